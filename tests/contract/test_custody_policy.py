"""Custody for administrators, against the real server: what it says it has, keys made by command, policies."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_serving import Answer
from kms_serving import KmsPlace, RunningKms, call, json_of
from sandboxes import run_ringfence
from transit_custody import CustodyKms
from vault_clusters import VaultCluster

from ringfence_zones.errors import KmsRemoteError
from ringfence_zones.kms_client import KmsClient


@pytest.fixture(scope="module")
def kms(vault_cluster_on_double: VaultCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKms]:
    with CustodyKms.make(tmp_path_factory.mktemp("kms"), vault_cluster_on_double).serving() as running:
        yield running


@pytest.fixture(scope="module")
def without_vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKms]:
    with KmsPlace.make(tmp_path_factory.mktemp("kms")).serving(1) as running:
        yield running


def uri(kms: RunningKms) -> str:
    return f"kms://http@localhost:{kms.port}/kms"


def client(kms: RunningKms) -> KmsClient:
    return KmsClient(uri(kms), "hdfs")


def create(kms: RunningKms, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["key", "create", *arguments, "--provider", uri(kms), "--as", "hdfs", "--hadoop-conf", str(directory)]
    return run_ringfence(command)


def publish(kms: RunningKms, **custody: str) -> Answer:
    """A policy with a zone for each key, in the custody that is said for it."""
    zones = [{"path": f"/{key}", "key": key, "custody": word} for key, word in custody.items()]
    users = {"namenode_users": ["hdfs"], "admins": ["hdfs"]}
    policy: dict[str, Any] = {"version": 1, "cluster": "c", "zones": zones, "kms": users}
    with kms.connect_admin() as admin:
        revision = json_of(call(admin, "GET", "/ringfence/v1/policy", user=None))["revision"]
        return call(admin, "PUT", "/ringfence/v1/policy", {"expected_revision": revision, "policy": policy}, user=None)


def test_a_server_says_which_custodies_it_has(kms: RunningKms, without_vault: RunningKms) -> None:
    for server, custodies in ((kms, ("envelope", "transit")), (without_vault, ("envelope",))):
        status = client(server).find_ringfence_status()
        assert status is not None
        assert status.custodies == custodies


def test_a_key_is_made_by_command_in_either_custody(
    kms: RunningKms, vault_cluster_on_double: VaultCluster, tmp_path: Path
) -> None:
    keys = f"{vault_cluster_on_double.settings().transit_mount}/keys"
    before = set(vault_cluster_on_double.done("LIST", keys).data["keys"])
    done = create(kms, tmp_path, "by-command", "--custody", "transit", "--size", "128", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["custody"] == "transit"
    assert create(kms, tmp_path, "by-command-here").returncode == 0
    made = set(vault_cluster_on_double.done("LIST", keys).data["keys"]) - before
    assert len(made) == 1
    described = client(kms).find_keys(["by-command", "by-command-here"])
    assert {name: key.attributes["ringfence.custody"] for name, key in described.items()} == {
        "by-command": "transit", "by-command-here": "envelope",
    }  # fmt: skip
    assert described["by-command"].length_bits == 128
    again = create(kms, tmp_path, "by-command", "--custody", "transit")
    assert again.returncode == 1
    assert "already exists" in again.stderr
    assert set(vault_cluster_on_double.done("LIST", keys).data["keys"]) == before | made


def test_a_server_without_vault_makes_no_key_of_transit_whoever_asks(without_vault: RunningKms, tmp_path: Path) -> None:
    by_command = create(without_vault, tmp_path, "held", "--custody", "transit")
    assert by_command.returncode == 1
    assert "custody_unavailable" in by_command.stderr
    # As Hadoop's own command does, which does not ask beforehand.
    with pytest.raises(KmsRemoteError, match="not set up for Vault") as refused:
        client(without_vault).create_key("held", 256, attributes={"ringfence.custody": "transit"})
    assert refused.value.status == 500
    assert client(without_vault).find_key("held") is None
    assert publish(without_vault, held="transit").status == 400


def test_a_policy_says_of_no_key_that_it_is_where_it_is_not(kms: RunningKms) -> None:
    client(kms).create_key("of-vault", 256, attributes={"ringfence.custody": "transit"})
    client(kms).create_key("of-server", 256)
    for custody in ({"of-vault": "envelope"}, {"of-vault": "transit", "of-server": "transit"}):
        refused = publish(kms, **custody)
        assert refused.status == 400
        assert "which it keeps" in refused.body.decode()
    taken = publish(kms, **{"of-vault": "transit", "of-server": "envelope", "not-made-yet": "transit"})
    assert taken.status == 200, taken.body
