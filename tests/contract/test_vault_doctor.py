"""`ringfence doctor vault` on a Vault that is well and on one with every fault it looks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vault_clusters import SERVERS, VaultCluster, VaultServer, vault_cluster, vault_server
from vault_settings import write_private

from ringfence_agent.doctor.vault import CHECKS, VaultSubject
from ringfence_agent.vault.policy import PolicyRole, policy_hcl
from ringfence_agent.vault.settings import WRAP_KEY
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.named_checks import Outcome, run_checks

# What a set-up of any kind is told: whether Vault has audit devices and voters is not ours to arrange in a test.
_NOT_OURS = {"audit", "voters"}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[VaultServer]:
    with vault_server(request.param) as server:
        yield server


@pytest.fixture
def cluster(server: VaultServer, tmp_path: Path) -> Iterator[VaultCluster]:
    with vault_cluster(server, tmp_path) as cluster:
        cluster.has_store = False
        yield cluster


def outcomes(cluster: VaultCluster, *, with_administrator: bool = True) -> dict[str, Outcome]:
    administrator = cluster.administrator() if with_administrator else None
    return {each.name: each for each in run_checks(CHECKS, VaultSubject(cluster.own(), administrator, list))}


def findings(cluster: VaultCluster, *, with_administrator: bool = True) -> list[Finding]:
    """Without what is merely worth knowing."""
    found = outcomes(cluster, with_administrator=with_administrator)
    return [
        finding
        for name, outcome in found.items()
        for finding in outcome.findings
        if name not in _NOT_OURS and finding.severity is not Severity.INFO
    ]


def only(cluster: VaultCluster, rule: Rule, words: str) -> Finding:
    """The one finding there is."""
    found = findings(cluster)
    assert [(each.rule, words in each.message) for each in found] == [(rule, True)], found
    return found[0]


def keys_of(cluster: VaultCluster) -> list[str]:
    return [str(name) for name in cluster.done("LIST", f"{cluster.settings().transit_mount}/keys").data["keys"]]


def test_what_setup_made_is_fine_and_the_trial_leaves_no_key(cluster: VaultCluster) -> None:
    cluster.set_up_and_log_in()
    assert findings(cluster) == []
    found = outcomes(cluster)
    assert {name for name, each in found.items() if each.not_checked is not None} <= {*_NOT_OURS, "store"}
    assert found["store"].not_checked == "the key store is not in Vault"
    assert keys_of(cluster) == [WRAP_KEY]


def test_without_an_administrator_the_wrap_key_is_tried_and_the_rest_not_called_fine(cluster: VaultCluster) -> None:
    cluster.set_up_and_log_in()
    assert findings(cluster, with_administrator=False) == []
    found = outcomes(cluster, with_administrator=False)
    not_checked = {name for name, each in found.items() if each.not_checked is not None}
    assert not_checked == {"engines", "login", "audit", "voters", "trial", "store"}
    assert "--token-file" in (found["trial"].not_checked or "")
    assert keys_of(cluster) == [WRAP_KEY]


def test_before_anybody_logged_in_nothing_of_the_token_is_called_fine(cluster: VaultCluster) -> None:
    cluster.set_up()
    found = outcomes(cluster, with_administrator=False)
    (finding,) = found["token"].findings
    assert finding.rule is Rule.VAULT_TOKEN and "`ringfence vault login`" in finding.hint
    for name in ("policy", "keys", "trial"):
        assert found[name].not_checked == "the key server is not logged in"


def test_a_token_that_was_revoked(cluster: VaultCluster) -> None:
    cluster.set_up_and_log_in().tokens.revoke_self()
    found = only(cluster, Rule.VAULT_TOKEN, "does not take the key server's token")
    assert found.command == "ringfence vault login"


def with_token(cluster: VaultCluster, hcl: str | None = None, **settings: Any) -> None:
    """Another token in the key server's file."""
    both = policy_hcl(PolicyRole.SERVICE, cluster.settings()) + policy_hcl(PolicyRole.KEYADMIN, cluster.settings())
    token = cluster.token_with(both if hcl is None else hcl, **{"period": "1h", **settings})
    write_private(cluster.settings().token_file, token)


def test_a_root_token_is_found_and_all_that_it_may(cluster: VaultCluster) -> None:
    cluster.set_up()
    write_private(cluster.settings().token_file, cluster.root_token)
    found = findings(cluster)
    assert {each.rule for each in found} == {Rule.VAULT_TOKEN, Rule.VAULT_POLICY}
    assert "has all of Vault" in found[0].message
    assert any("export/encryption-key" in each.path for each in found)


def test_the_policy_default_is_found(cluster: VaultCluster) -> None:
    cluster.set_up()
    with_token(cluster, no_default_policy=False)
    only(cluster, Rule.VAULT_TOKEN, "the policy `default`")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"period": "", "ttl": "1h", "num_uses": 1000}, "good for"),
        ({"period": "", "ttl": "1h", "renewable": False}, "cannot be renewed"),
    ],
)
def test_a_token_that_does_not_last_is_found(cluster: VaultCluster, settings: dict[str, Any], words: str) -> None:
    cluster.set_up()
    with_token(cluster, None, **settings)
    only(cluster, Rule.VAULT_TOKEN, words)


def test_a_policy_that_lacks_something_is_found_with_what(cluster: VaultCluster) -> None:
    cluster.set_up()
    hcl = policy_hcl(PolicyRole.SERVICE, cluster.settings()).replace("/rewrap/+", "/rewrap/other")
    with_token(cluster, hcl)
    found = [each for each in findings(cluster) if each.rule is Rule.VAULT_POLICY]
    assert [(each.path, "needs `update`" in each.message) for each in found] == [
        (f"{cluster.settings().transit_mount}/rewrap/{WRAP_KEY}", True)
    ]
    assert found[0].command == "ringfence vault policy --role service"


def test_a_policy_that_allows_too_much_is_found(cluster: VaultCluster) -> None:
    cluster.set_up()
    mount = cluster.settings().transit_mount
    more = (
        f'path "{mount}/export/encryption-key/*" {{ capabilities = ["read"] }}\n'
        f'path "{mount}/keys/+/config" {{ capabilities = ["update"] }}\n'
    )
    with_token(cluster, policy_hcl(PolicyRole.SERVICE, cluster.settings()) + more)
    assert [each.path for each in findings(cluster)] == [
        f"{mount}/export/encryption-key/{WRAP_KEY}",
        f"{mount}/keys/{WRAP_KEY}/config",
    ]


def test_a_token_that_could_make_keys_by_encrypting_is_found(cluster: VaultCluster) -> None:
    cluster.set_up()
    hcl = policy_hcl(PolicyRole.SERVICE, cluster.settings())
    encrypt = f'path "{cluster.settings().transit_mount}/encrypt/+" {{\n  capabilities = ["update"]'
    assert encrypt in hcl
    with_token(cluster, hcl.replace(encrypt, encrypt.replace('"update"', '"create", "update"')))
    only(cluster, Rule.VAULT_POLICY, "create keys by encrypting")


def test_unsound_keys_are_found_each_with_its_fault(cluster: VaultCluster) -> None:
    cluster.set_up_and_log_in()
    mount = cluster.settings().transit_mount
    cluster.done("POST", f"{mount}/keys/z-flat", {"type": "aes256-gcm96", "derived": False})
    cluster.done("POST", f"{mount}/keys/{WRAP_KEY}/config", {"exportable": True, "deletion_allowed": True})
    found = findings(cluster)
    assert {each.rule for each in found} == {Rule.VAULT_KEY}
    assert sorted((each.path.rpartition("/")[2], each.message[:20]) for each in found) == sorted(
        [
            ("z-flat", "it is not derived, so that what it"[:20]),
            (WRAP_KEY, "it can be exported"),
            (WRAP_KEY, "the key may be deleted"[:20]),
        ]
    )


def test_a_wrap_key_that_is_not_there_is_found(cluster: VaultCluster) -> None:
    cluster.set_up_and_log_in()
    path = f"{cluster.settings().transit_mount}/keys/{WRAP_KEY}"
    cluster.done("POST", f"{path}/config", {"deletion_allowed": True})
    cluster.done("DELETE", path)
    assert only(cluster, Rule.VAULT_KEY, "there is no such key").command == "ringfence vault setup"


def test_a_set_up_that_was_loosened_is_found(cluster: VaultCluster) -> None:
    cluster.has_store = True
    cluster.set_up_and_log_in()
    head = f"{cluster.kv_mount}/data/{cluster.settings().keystore_prefix}/head"
    cluster.done("POST", head, {"data": {}, "options": {"cas": 0}})
    settings = cluster.settings()
    cluster.done("POST", f"{settings.transit_mount}/config/keys", {"disable_upsert": False})
    cluster.done("POST", f"{cluster.kv_mount}/config", {"cas_required": False})
    cluster.done("POST", f"sys/auth/{cluster.approle_mount}/tune", {"user_lockout_config": {"lockout_disable": False}})
    loose = {"token_no_default_policy": False, "token_period": 0, "secret_id_num_uses": 0, "secret_id_ttl": 0}
    cluster.done("POST", f"auth/{cluster.approle_mount}/role/{settings.role}", loose)
    found = findings(cluster)
    assert {each.rule for each in found} == {Rule.VAULT_SETUP}
    messages = " | ".join(each.message for each in found)
    for words in (
        "an encrypt with a name that is none makes a key",
        "the second wins",
        "lock the key server's login out",
        "the policy `default`",
        "are not periodic",
        "more than once",
        "never runs out",
    ):
        assert words in messages
    assert len(found) == 7


def test_a_role_that_is_not_there_is_found(cluster: VaultCluster) -> None:
    cluster.set_up_and_log_in()
    cluster.done("DELETE", f"auth/{cluster.approle_mount}/role/{cluster.settings().role}")
    only(cluster, Rule.VAULT_SETUP, "no such role")


def test_an_administrator_that_may_not_try_is_told_before_anything_is_made(cluster: VaultCluster) -> None:
    cluster.set_up_and_log_in()
    token = cluster.token_with(policy_hcl(PolicyRole.KEYADMIN, cluster.settings()))
    subject = VaultSubject(cluster.own(), cluster.as_token(token))
    found = {each.name: each for each in run_checks(CHECKS, subject)}
    assert "may not delete and read and update" in (found["trial"].not_checked or "")
    for name in ("engines", "login", "audit", "voters"):
        assert found[name].not_checked is not None
    assert keys_of(cluster) == [WRAP_KEY]
