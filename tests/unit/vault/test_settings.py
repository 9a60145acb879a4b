"""The `vault` block: what it takes, what it refuses, and what it fills in."""

from __future__ import annotations

from pathlib import Path

import pytest
from vault_settings import make_settings

from ringfence_agent.kms.config import KmsFile, load_vault_settings
from ringfence_agent.vault.settings import vault_settings
from ringfence_zones.config_file import parse_config
from ringfence_zones.errors import ConfigError

LEAST = """\
vault:
  addresses: [https://vault1.example.com:8200]
  cluster: analytics
  auth: {role_id_file: /etc/role, wrapped_secret_id_file: /etc/wrapped}
"""


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "kms.yaml", KmsFile)
    return caught.value.message


def test_what_is_left_out_follows_from_the_cluster() -> None:
    block = parse_config(LEAST, "kms.yaml", KmsFile).vault
    assert block is not None
    settings = vault_settings(block)
    assert settings.transit_mount == "transit-analytics"
    assert (settings.kv_mount, settings.keystore_prefix) == ("kv", None)
    assert (settings.auth.method, settings.auth_mount, settings.role) == (
        "approle",
        "approle",
        "ringfence-kms-analytics",
    )
    assert settings.agent_socket is None
    assert settings.token_file == Path("/var/lib/ringfence/vault-token")


def test_an_address_is_brought_to_one_form(tmp_path: Path) -> None:
    given = ["https://VAULT1.example.com", "https://[::1]:8200/", "http://localhost:8200"]
    assert make_settings(given, tmp_path).addresses == (
        "https://vault1.example.com:443",
        "https://[::1]:8200",
        "http://localhost:8200",
    )


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://vault.example.com:8200", "must be https"),
        ("https://vault.example.com/v1", "addresses like"),
        ("https://user:word@vault.example.com", "addresses like"),
        ("https://vault.example.com?x=1", "addresses like"),
        ("vault.example.com:8200", "addresses like"),
        ("https://vault.example.com:99999", "addresses like"),
        ("ftp://vault.example.com", "addresses like"),
        ("'https://vault1.example .com:8200'", "addresses like"),
        ('"https://vault1\\nexample.com:8200"', "addresses like"),
        ('"https://vault1\\x07.example.com:8200"', "addresses like"),
        ("https://vaüt.example.com:8200", "addresses like"),
        ("https://vault1.example.com:0", "addresses like"),
        ("https://-vault1.example.com", "addresses like"),
        ("https://@vault1.example.com", "addresses like"),
    ],
)
def test_an_address_that_would_not_do_is_refused(address: str, why: str) -> None:
    assert why in problem(LEAST.replace("https://vault1.example.com:8200", address))


def test_the_same_address_twice_is_refused() -> None:
    twice = "https://vault1.example.com:8200, https://VAULT1.example.com:8200/"
    assert "twice" in problem(LEAST.replace("https://vault1.example.com:8200", twice))


@pytest.mark.parametrize("cluster", ["", "Analytics", "a/b", "-a", "a-", "a" * 49, "a b", "ä"])
def test_a_cluster_that_could_not_stand_in_a_path_is_refused(cluster: str) -> None:
    assert "vault.cluster" in problem(LEAST.replace("analytics", f'"{cluster}"'))


@pytest.mark.parametrize("mount", ["/transit", "transit/", "a//b", "../sys", "a b", "a?b", 'a"b'])
def test_a_mount_that_could_reach_elsewhere_is_refused(mount: str) -> None:
    assert "transit_mount" in problem(LEAST + f"  transit_mount: '{mount}'\n")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("transit_mount: sys", "vault.transit_mount' must be a mount of its own"),
        ("kv_mount: auth/kv", "vault.kv_mount' must be a mount of its own"),
        ("kv_mount: transit-analytics", "they are two engines"),
        ("transit_mount: kv", "they are two engines"),
    ],
)
def test_a_mount_that_is_another_s_is_refused(settings: str, why: str) -> None:
    assert why in problem(LEAST + f"  {settings}\n")


def test_no_addresses_are_told_as_what_is_missing() -> None:
    assert "auth.method approle needs those of every node" in problem(
        LEAST.replace("https://vault1.example.com:8200", "")
    )


@pytest.mark.parametrize(
    ("there", "put"),
    [
        ("https://vault1.example.com:8200", "https://svc:hvs.CANARY@vault1.example.com:8200"),
        ("/etc/role", "hvs.CANARY"),
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(there: str, put: str) -> None:
    said = problem(LEAST.replace(there, put))
    assert "vault" in said
    assert "CANARY" not in said


@pytest.mark.parametrize(
    ("auth", "why"),
    [
        ("{method: approle, role_id_file: /r}", "one of wrapped_secret_id_file and secret_id_file"),
        ("{role_id_file: /r, secret_id_file: /s, wrapped_secret_id_file: /w}", "one of"),
        ("{secret_id_file: /s}", "needs role_id_file"),
        ("{method: jwt, jwt_file: /j}", "needs role"),
        ("{method: jwt, role: r, jwt_file: /j, secret_id_file: /s}", "no use for secret_id_file"),
        ("{method: aws_iam, role: r, region: eu-west-1}", "needs server_id"),
        ("{method: aws_iam, role: r, region: Ireland, server_id: v}", "region"),
        ("{method: token_file, role: r}", "no use for role"),
        ("{method: password}", "method"),
        ("{method: agent, socket: /run/agent}", "its socket stands for them: leave them out"),
    ],
)
def test_a_login_that_could_not_work_is_refused_with_the_reason(auth: str, why: str) -> None:
    text = LEAST.replace("{role_id_file: /etc/role, wrapped_secret_id_file: /etc/wrapped}", auth)
    assert why in problem(text)


def test_an_agent_s_socket_stands_for_the_addresses() -> None:
    text = "vault: {cluster: c1, auth: {method: agent, socket: /run/agent.sock}}"
    block = parse_config(text, "kms.yaml", KmsFile).vault
    assert block is not None
    settings = vault_settings(block)
    assert (settings.addresses, settings.agent_socket) == ((), Path("/run/agent.sock"))
    assert settings.label == "the Vault Agent at /run/agent.sock"


def test_a_secret_itself_has_no_place_in_the_file() -> None:
    assert "secret_id" in problem(LEAST.replace("auth: {", "auth: {secret_id: abc, "))


def test_commands_need_the_block_alone(tmp_path: Path) -> None:
    path = tmp_path / "kms.yaml"
    path.write_text(LEAST)
    assert load_vault_settings(path).cluster == "analytics"
    path.write_text("listen: localhost:1\n")
    with pytest.raises(ConfigError, match="no vault block"):
        load_vault_settings(path)
