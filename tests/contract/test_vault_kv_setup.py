"""What `ringfence vault setup` and `doctor vault` do for a key store in Vault, wherever in it that is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from local_stores import new_key
from vault_clusters import SERVERS, VaultCluster, VaultServer, vault_cluster, vault_server
from vault_settings import write_private

from ringfence_agent.doctor.vault import CHECKS, VaultSubject
from ringfence_agent.keystore.open import open_keystore
from ringfence_agent.kms.config import load_vault_settings
from ringfence_agent.vault.policy import PolicyRole, policy_hcl
from ringfence_agent.vault.settings import VaultSettings
from ringfence_agent.vault.setup import VaultSetup
from ringfence_zones.errors import ConfigError, KeyStoreError
from ringfence_zones.findings import Finding, Rule
from ringfence_zones.named_checks import run_checks


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[VaultServer]:
    with vault_server(request.param) as server:
        yield server


@pytest.fixture
def cluster(server: VaultServer, tmp_path: Path) -> Iterator[VaultCluster]:
    with vault_cluster(server, tmp_path) as cluster:
        cluster.set_up_and_log_in()
        yield cluster


def settings_of(cluster: VaultCluster, prefix: str) -> VaultSettings:
    return replace(cluster.settings(), keystore_prefix=prefix)


def findings(cluster: VaultCluster, prefix: str) -> list[Finding]:
    subject = VaultSubject(cluster.own(settings_of(cluster, prefix)))
    (found,) = (outcome for outcome in run_checks(CHECKS, subject) if outcome.name == "store")
    assert found.not_checked is None
    return list(found.findings)


def make_store(cluster: VaultCluster, prefix: str) -> None:
    root_key = cluster.directory / f"{prefix.replace('/', '-')}.key"
    with closing(open_keystore(f"vault://{prefix}", root_key, True, vault=cluster.settings())) as store:
        store.create_key(new_key("k"))


def test_below_the_place_that_kms_yaml_names_the_policies_are_enough(cluster: VaultCluster) -> None:
    prefix = f"ringfence/{cluster.name}/keystore"
    (absent,) = findings(cluster, prefix)
    assert "no key store yet" in absent.message
    make_store(cluster, prefix)
    assert findings(cluster, prefix) == []


def test_elsewhere_the_policies_are_written_for_it(cluster: VaultCluster) -> None:
    prefix = "elsewhere/keys"
    missing = findings(cluster, prefix)
    assert {each.rule for each in missing} == {Rule.VAULT_POLICY}
    assert [each.path for each in missing] == [
        f"{cluster.kv_mount}/data/{prefix}/head",
        f"{cluster.kv_mount}/data/{prefix}/keys/a",
        f"{cluster.kv_mount}/metadata/{prefix}/keys/",
    ]
    with pytest.raises(KeyStoreError, match="its policy does not allow it"):
        make_store(cluster, prefix)
    steps = VaultSetup(cluster.administrator(settings_of(cluster, prefix))).apply()
    assert [step.thing.partition(" ")[0] for step in steps] == ["policy"] * 3
    make_store(cluster, prefix)
    assert findings(cluster, prefix) == []


@pytest.mark.parametrize("operation", ["data", "metadata", "delete", "destroy"])
def test_a_token_that_could_delete_is_found(cluster: VaultCluster, operation: str) -> None:
    prefix = f"ringfence/{cluster.name}/keystore"
    make_store(cluster, prefix)
    roles = (PolicyRole.SERVICE, PolicyRole.KEYADMIN)
    hcl = "".join(policy_hcl(role, cluster.settings()) for role in roles)
    path = f"{cluster.kv_mount}/{operation}/{prefix}/*"
    more = f'path "{path}" {{ capabilities = ["create", "read", "update", "delete", "list"] }}'
    write_private(cluster.settings().token_file, cluster.token_with(f"{hcl}\n{more}"))
    (found,) = findings(cluster, prefix)
    assert (found.rule, found.path) == (Rule.VAULT_POLICY, f"{cluster.kv_mount}/{operation}/{prefix}/head")
    assert "`delete`" in found.message


def test_settings_say_where_the_store_is_that_kms_yaml_names(cluster: VaultCluster, tmp_path: Path) -> None:
    file = tmp_path / "kms.yaml"
    block = "vault: {addresses: ['http://127.0.0.1:1'], cluster: c1, kv_mount: secret, auth: {method: token_file}}\n"
    for keystore, prefix in [
        ("vault://secret/a/b", "a/b"),
        ("vault://a/b", "a/b"),
        ("sqlite:////var/lib/keys.db", None),
    ]:
        write_private(file, f"keystore: {keystore}\n{block}")
        assert load_vault_settings(file).keystore_prefix == prefix


def test_without_leave_and_without_a_store_nothing_is_made(cluster: VaultCluster) -> None:
    uri = f"vault://ringfence/{cluster.name}/none"
    with pytest.raises(ConfigError, match="holds no key store"):
        open_keystore(uri, cluster.directory / "none.key", False, vault=cluster.settings())
    with pytest.raises(ConfigError, match="no root key file is named"):
        open_keystore(uri, None, True, vault=cluster.settings())
    assert not (cluster.directory / "none.key").exists()
