"""Zones in every custody on a real HDFS at once: what a root key file, Vault and AWS KMS seal, and what Vault holds.

One key server has them all: its store is sealed anew from one zone to the next, and the policy of every step is applied
on top of the one before. Vault and AWS KMS are the doubles.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from aws_kms_double import AwsKmsDouble
from cluster_commands import Cluster, wait_until
from sandboxes import new_sandbox, run_ringfence
from vault_clusters import VaultCluster, server_of, vault_cluster
from vault_doubles import VaultDouble, running_vault

from ringfence_agent.keystore.protectors.aws_kms_config import AwsKmsSettings

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(900)]

FILE, VAULT, AWS, HELD = (f"/custody/{name}" for name in ("file", "vault", "aws", "held"))
TRANSIT_EDEK_BYTES, ENVELOPE_EDEK_BYTES = 66, 32


class Custodies:
    """A cluster whose KMS is set up for everything, and files in its zones."""

    def __init__(self, cluster: Cluster, vault: VaultCluster, directory: Path) -> None:
        self.cluster = cluster
        self.vault = vault
        self._directory = directory
        self._policy = directory / "zones.yaml"
        self._zones: dict[str, str] = {}
        self.content: dict[str, bytes] = {}

    def run(self, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        done = run_ringfence(arguments, self.cluster.environ("hdfs"))
        assert done.returncode == expect, done.stdout + done.stderr
        return done

    def with_policy(self, command: str, *, expect: int = 0, **changes: str) -> Any:
        """`plan`, `apply` or `check` with the zones that there are, and `changes` of their custody; what it says."""
        zones = [
            {"path": path, "custody": changes.get(path.rpartition("/")[2], custody), "owner": "etl", "writers": ["etl"]}
            for path, custody in self._zones.items()
        ]
        kms = {"namenode_users": ["hdfs"], "admins": ["hdfs"]}
        self._policy.write_text(json.dumps({"version": 1, "cluster": "custody", "zones": zones, "kms": kms}))
        return json.loads(self.run(command, "-f", str(self._policy), "--json", expect=expect).stdout)

    def declare(self, path: str, custody: str) -> None:
        """Adds a zone to the policy."""
        self._zones[path] = custody

    def make_zone(self, path: str, custody: str = "envelope") -> None:
        self.declare(path, custody)
        assert self.with_policy("apply")["failed"] == []

    def write(self, zone: str, name: str) -> None:
        """A file, by Hadoop's own client as etl."""
        path = f"{zone}/{name}"
        self.content[path] = f"what stands in {path}\n".encode() * 200
        local = self._directory / name
        local.write_bytes(self.content[path])
        self.cluster.run("hdfs", "dfs", "-put", str(local), path, user="etl")

    def check_read(self, zone: str) -> None:
        """Every file of the zone is read back by Hadoop's own client as etl."""
        paths = [path for path in self.content if path.startswith(f"{zone}/")]
        read = self.cluster.run("hdfs", "dfs", "-cat", *paths, user="etl").stdout
        assert read == b"".join(self.content[path] for path in paths)

    def check_refused(self, zone: str) -> None:
        path = next(path for path in self.content if path.startswith(f"{zone}/"))
        refused = self.cluster.run("hdfs", "dfs", "-cat", path, user="etl", expect=1)
        assert self.content[path] not in refused.stdout

    def health(self) -> tuple[int, Any]:
        """Status and content of /health/ready."""
        answer = requests.get(f"http://localhost:{self.cluster.ports['kms']}/health/ready", timeout=30)
        return answer.status_code, answer.json()

    def key_of(self, zone: str) -> str:
        return self.cluster.list_zones()[zone]

    def transit_keys(self) -> list[dict[str, Any]]:
        mount = self.vault.settings().transit_mount
        names = self.vault.done("LIST", f"{mount}/keys").data["keys"]
        return [self.vault.done("GET", f"{mount}/keys/{name}").data for name in names if name != "z-wrap"]


def kms_settings(vault: VaultCluster, aws: AwsKmsSettings) -> str:
    """What a sandbox's KMS is to have too, as YAML."""
    blocks = {
        "workers": 1,  # each has a memory of its own, and what is in it is asked for
        "protector": ["file", "vault-transit", "aws-kms"],
        "vault": {
            "addresses": vault.addresses,
            "cluster": vault.name,
            "token_file": str(vault.settings().token_file),
            "auth": {"method": "token_file"},
        },
        "aws_kms": {"key": aws.key, "cluster": aws.cluster, "endpoint": aws.endpoint, "deadline": "2s"},
    }
    return "".join(f"{name}: {json.dumps(block)}\n" for name, block in blocks.items())


@pytest.fixture
def double() -> Iterator[VaultDouble]:
    with running_vault() as double:
        yield double


@pytest.fixture
def custodies(
    double: VaultDouble, aws_kms_settings: AwsKmsSettings, aws_kms_double: AwsKmsDouble, tmp_path: Path
) -> Iterator[Custodies]:
    assert aws_kms_double is not None  # its credentials are in the environment, and so in the KMS's
    (tmp_path / "vault").mkdir()
    with vault_cluster(server_of(double), tmp_path / "vault") as vault:
        vault.set_up_and_log_in()
        settings = tmp_path / "kms-settings.yaml"
        settings.write_text(kms_settings(vault, aws_kms_settings))
        with new_sandbox("--kms-settings", str(settings)) as described:
            yield Custodies(Cluster(described), vault, tmp_path)


def test_files_are_written_and_read_in_four_zones_that_each_keep_their_key_in_another_way(
    custodies: Custodies, double: VaultDouble
) -> None:
    cluster = custodies.cluster
    custodies.make_zone(FILE)
    custodies.declare(HELD, "transit")
    (warning,) = custodies.with_policy("plan")["problems"]
    assert (warning["rule"], warning["severity"], warning["path"]) == ("custody_cost", "warn", HELD)
    custodies.make_zone(HELD, "transit")
    for zone, protector in ((VAULT, "vault-transit"), (AWS, "aws-kms")):
        custodies.run("keystore", "protect", "--with", protector)
        custodies.make_zone(zone)
    planned = custodies.with_policy("plan")
    assert (planned["actions"], planned["problems"]) == ([], [])
    slots = json.loads(custodies.run("keystore", "slots", "--json").stdout)["slots"]
    assert {slot["protector"]: slot["versions"] for slot in slots} == {"file": 1, "vault-transit": 1, "aws-kms": 1}
    assert [(key["exportable"], key["latest_version"]) for key in custodies.transit_keys()] == [(False, 1)]

    for zone in (FILE, VAULT, AWS, HELD):
        custodies.write(zone, "first.txt")
    for zone in (FILE, VAULT, AWS, HELD):
        custodies.check_read(zone)
        encryption = cluster.encryption_of(f"{zone}/first.txt")
        assert len(encryption.edek) == (TRANSIT_EDEK_BYTES if zone == HELD else ENVELOPE_EDEK_BYTES)
        assert encryption.version_name == f"{custodies.key_of(zone)}@0"
        assert cluster.read_raw(f"{zone}/first.txt") != custodies.content[f"{zone}/first.txt"]
    status = json.loads(custodies.run("status", "--json").stdout)
    assert status["kms"]["custody"] == ["envelope", "transit"]
    assert {zone["path"]: zone["custody"] for zone in status["zones"]} == {
        FILE: "envelope", VAULT: "envelope", AWS: "envelope", HELD: "transit",
    }  # fmt: skip

    roll_and_reencrypt(custodies)
    refuse_another_custody(custodies)
    with double.sealed():
        # What is in memory goes on, and so does what Vault has no part in; what Vault holds does not.
        for zone in (FILE, VAULT, AWS):
            custodies.check_read(zone)
        custodies.check_refused(HELD)
        assert custodies.health() == (200, {"ready": True, "degraded": True})
    # A Vault that refused is asked again after seconds, which is longer than Hadoop's client tries.
    wait_until(lambda: custodies.health() == (200, {"ready": True}), timeout_s=15)
    custodies.check_read(HELD)


def roll_and_reencrypt(custodies: Custodies) -> None:
    """Hadoop's own commands: a new version in Vault, and the old file's EDEK under it, with the same DEK."""
    cluster, key, path = custodies.cluster, custodies.key_of(HELD), f"{HELD}/first.txt"
    (before,) = custodies.transit_keys()
    old = cluster.encryption_of(path)
    cluster.run("hadoop", "key", "roll", key)
    (after,) = custodies.transit_keys()
    assert (after["name"], after["latest_version"]) == (before["name"], 2)
    cluster.run("hdfs", "crypto", "-reencryptZone", "-start", "-path", HELD)
    wait_until(lambda: cluster.encryption_of(path).version_name == f"{key}@1", timeout_s=60)
    new = cluster.encryption_of(path)
    assert (new.iv, len(new.edek)) == (old.iv, TRANSIT_EDEK_BYTES)
    assert new.edek != old.edek
    custodies.write(HELD, "second.txt")
    assert re.fullmatch(rf"{key}@[01]", cluster.encryption_of(f"{HELD}/second.txt").version_name)
    custodies.check_read(HELD)


def refuse_another_custody(custodies: Custodies) -> None:
    """Neither way round, and nothing is changed."""
    for name, custody in (("held", "envelope"), ("file", "transit")):
        refused = custodies.with_policy("apply", expect=1, **{name: custody})
        assert [problem["rule"] for problem in refused["problems"]] == ["custody_mismatch"]
        assert refused["done"] == []
    found = custodies.with_policy("check", expect=3, held="envelope")["findings"]
    assert HELD in [finding["path"] for finding in found if finding["rule"] == "custody_mismatch"]
