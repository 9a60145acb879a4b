"""How callers are authenticated: Hadoop's properties, the blocks of kms.yaml, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kdc import Kdc

from ringfence_agent.kms.authentication.config import AuthenticationSettings, authentication_settings
from ringfence_agent.kms.authentication.delegation_tokens import TokenLifetimes
from ringfence_agent.kms.authorization.acls import AccessList
from ringfence_agent.kms.config import KmsFile
from ringfence_agent.spnego.auth_to_local import Mechanism
from ringfence_zones.config_file import parse_config
from ringfence_zones.errors import ConfigError
from ringfence_zones.gssapi import ChannelBinding
from ringfence_zones.hadoop_conf import HadoopConf

PREFIX = "hadoop.kms.authentication."


def from_hadoop(properties: dict[str, str] | None = None, **more: str) -> AuthenticationSettings:
    named = {PREFIX + name.replace("__", "-").replace("_", "."): value for name, value in more.items()}
    return authentication_settings(None, None, None, HadoopConf({**(properties or {}), **named}))


def from_yaml(text: str, conf: dict[str, str] | None = None) -> AuthenticationSettings:
    file = parse_config(text, "kms.yaml", KmsFile)
    return authentication_settings(
        file.authentication, file.delegation_tokens, file.proxy_users, HadoopConf(conf or {})
    )


@pytest.fixture
def keytab(tmp_path: Path) -> Path:
    path = tmp_path / "http.keytab"
    path.write_bytes(b"\x05\x02")
    path.chmod(0o600)
    return path


def test_hadoops_defaults() -> None:
    found = from_hadoop()
    assert (found.type, found.session_s, found.idle_s) == ("simple", 36_000, None)
    assert (found.cookie_path, found.cookie_domain, found.cookie_persistent) == (None, None, False)
    assert found.token_lifetimes == TokenLifetimes(604_800_000, 86_400_000, 86_400_000, 3_600_000)
    assert (found.signature_secret, found.token_in_query, dict(found.proxy_rules)) == (None, False, {})


def test_another_keytab_stands_in_for_that_of_kms_site(keytab: Path) -> None:
    theirs = HadoopConf({PREFIX + "type": "kerberos", PREFIX + "kerberos.keytab": "/etc/of-another-user"})
    found = authentication_settings(None, None, None, theirs, keytab)
    assert found.kerberos is not None and found.kerberos.keytab == keytab

    with pytest.raises(ConfigError, match=r"type is not kerberos in kms-site\.xml"):
        authentication_settings(None, None, None, HadoopConf({}), keytab)
    named = parse_config("authentication: {type: simple}", "kms.yaml", KmsFile).authentication
    with pytest.raises(ConfigError, match=r"stands beside authentication"):
        authentication_settings(named, None, None, theirs, keytab)


def test_hadoops_properties(keytab: Path) -> None:
    found = from_hadoop(
        {
            "hadoop.security.auth_to_local.mechanism": "MIT",
            "hadoop.kms.proxyuser.hive.users": "alice, bob",
            "hadoop.kms.proxyuser.hive.hosts": "localhost,10.0.0.0/8",
            "hadoop.kms.proxyuser.svc.one.groups": "*",
            "hadoop.kms.proxyuser.svc.one.hosts": "*",
            PREFIX + "kerberos.name.rules": "RULE:[1:$1] DEFAULT",
            PREFIX + "token.max-inactive-interval": "60",
            PREFIX + "delegation-token.max-lifetime.sec": "5",
            PREFIX + "delegation-token.renew-interval.sec": "4",
            PREFIX + "delegation-token.update-interval.sec": "3",
            PREFIX + "delegation-token.removal-scan-interval.sec": "2",
        },
        type="kerberos",
        kerberos_keytab=str(keytab),
        kerberos_principal="HTTP/localhost, HTTP/alias@REALM",
        token_validity="7",
        cookie_path="/kms",
        cookie_domain="x.org",
    )
    kerberos = found.kerberos
    assert kerberos is not None
    assert (kerberos.keytab, kerberos.principals) == (keytab, ("HTTP/localhost", "HTTP/alias@REALM"))
    assert (kerberos.rules, kerberos.mechanism) == ("RULE:[1:$1] DEFAULT", Mechanism.MIT)
    assert (found.type, found.session_s, found.idle_s) == ("kerberos", 7, 60)
    assert (found.cookie_path, found.cookie_domain) == ("/kms", "x.org")
    assert found.token_lifetimes == TokenLifetimes(5000, 4000, 3000, 2000)
    hive, service = found.proxy_rules["hive"], found.proxy_rules["svc.one"]
    assert hive.targets == AccessList(frozenset({"alice", "bob"}))
    assert (hive.hosts, service.targets.everybody, service.hosts) == (("localhost", "10.0.0.0/8"), True, ("*",))


def test_every_http_principal_of_the_keytab(keytab: Path) -> None:
    found = from_hadoop(type="kerberos", kerberos_keytab=str(keytab), kerberos_principal="*")
    assert found.kerberos is not None and found.kerberos.principals is None


def test_a_persistent_cookie_has_no_idle_limit() -> None:
    found = from_hadoop({PREFIX + "token.max-inactive-interval": "60"}, cookie_persistent="true")
    assert (found.cookie_persistent, found.idle_s) == (True, None)


def test_kms_yaml_says_the_same(keytab: Path) -> None:
    found = from_yaml(
        f"""
authentication:
  type: kerberos
  session: 5m
  idle: 30s
  kerberos:
    keytab: {keytab}
    principals: [HTTP/localhost]
    auth_to_local: "RULE:[1:$1] DEFAULT"
    auth_to_local_mechanism: mit
    channel_binding: required
delegation_tokens: {{max_life: 2d, renew_interval: 1h, roll_interval: 1d, removal_scan: 5m, in_query: true}}
proxy_users:
  hive: {{users: [alice], groups: [staff], hosts: [localhost]}}
""",
        {"hadoop.kms.proxyuser.oozie.users": "*", "hadoop.kms.proxyuser.oozie.hosts": "*"},
    )
    kerberos = found.kerberos
    assert kerberos is not None
    assert (kerberos.principals, kerberos.mechanism) == (("HTTP/localhost",), Mechanism.MIT)
    assert kerberos.channel_binding is ChannelBinding.REQUIRED
    assert (found.session_s, found.idle_s, found.token_in_query) == (300, 30, True)
    assert found.token_lifetimes == TokenLifetimes(172_800_000, 3_600_000, 86_400_000, 300_000)
    # A block decides alone: what Hadoop's files say of proxy users is not added to it.
    assert list(found.proxy_rules) == ["hive"]
    assert found.proxy_rules["hive"].targets == AccessList(frozenset({"alice"}), frozenset({"staff"}))


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("type", "org.example.Handler", "which this KMS does not know"),
        ("type", "kerberos", "names no file"),
        ("simple.anonymous.allowed", "true", "not served to nobody"),
        ("signer.secret.provider", "org.example.Provider", "which this KMS does not know"),
        ("token.validity", "0", "at least 1 second"),
        ("delegation-token.max-lifetime.sec", "-1", "at least 1 second"),
    ],
)
def test_what_is_refused(name: str, value: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        from_hadoop({PREFIX + name: value})


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"kerberos_principal": "kms/localhost"}, "no principal for HTTP"),
        ({"kerberos_principal": "http/localhost"}, "no principal for HTTP"),
        ({"kerberos_keytab": "relative"}, "names no file"),
        ({"kerberos_keytab": "/absent/keytab"}, "cannot read the keytab"),
        ({"kerberos_name_rules_mechanism": "x"}, "mechanism"),
    ],
)
def test_what_is_refused_of_kerberos(keytab: Path, more: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        from_hadoop(**{"type": "kerberos", "kerberos_keytab": str(keytab), **more})


def test_a_keytab_that_others_can_read_is_refused(keytab: Path) -> None:
    keytab.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others"):
        from_hadoop(type="kerberos", kerberos_keytab=str(keytab))


def test_kerberos_without_its_block_is_refused() -> None:
    with pytest.raises(ConfigError, match="no keytab is named"):
        from_yaml("authentication: {type: kerberos}")


def test_a_network_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"hadoop\.kms\.proxyuser\.hive\.hosts holds '10\.0\.0\.0/99'"):
        from_hadoop({"hadoop.kms.proxyuser.hive.hosts": "10.0.0.0/99"})


def test_a_keytab_without_keys_and_rules_for_superusers_are_told_before_the_first_request(
    kdc: Kdc, keytab: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [name for name in os.environ if name.startswith("KRB5")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KRB5_CONFIG", kdc.environment["KRB5_CONFIG"])
    empty = from_hadoop(type="kerberos", kerberos_keytab=str(keytab)).kerberos
    assert empty is not None
    with pytest.raises(ConfigError, match="cannot be used"):
        empty.check()
    other = from_hadoop(type="kerberos", kerberos_keytab=str(kdc.keytab("HTTP/elsewhere"))).kerberos
    assert other is not None
    with pytest.raises(ConfigError, match="holds no key of HTTP/localhost"):
        other.check()
    good = from_hadoop(type="kerberos", kerberos_keytab=str(kdc.keytab("HTTP/localhost"))).kerberos
    assert good is not None
    good.check()
    assert "hdfs/<any host> for the user hdfs" in caplog.text
