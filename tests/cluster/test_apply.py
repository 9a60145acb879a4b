"""`ringfence apply` on real daemons: what it makes, that a second run makes nothing, what it refuses and says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cluster_commands import Cluster
from sandboxes import run_ringfence

pytestmark = pytest.mark.cluster

KMS = "kms: {namenode_users: [hdfs], admins: [hdfs]}\n"
TWO_ZONES = """\
version: 1
cluster: applied
zones:
  - path: /applied/pii
    owner: etl
    group: pii
    mode: "0750"
    readers: [analyst, "@pii-readers"]
    writers: [etl]
  - path: /applied/masked
    length_bits: 128
    readers: ["*"]
    writers: [masker]
"""


class Applied:
    """`ringfence apply` with a policy of the test's own."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self._file = directory / "zones.yaml"

    def run(self, policy: str, *options: str, user: str = "hdfs") -> subprocess.CompletedProcess[str]:
        self._file.write_text(policy)
        return run_ringfence(["apply", "-f", self._file, *options], self.cluster.environ(user))

    def run_json(self, policy: str, expect: int = 0) -> dict[str, Any]:
        finished = self.run(policy, "--json")
        assert finished.returncode == expect, finished.stderr
        answer: dict[str, Any] = json.loads(finished.stdout)
        return answer


@pytest.fixture
def applied(ringfence_cluster: Cluster, tmp_path: Path) -> Applied:
    return Applied(ringfence_cluster, tmp_path)


def rules_of(answer: dict[str, Any]) -> list[str]:
    return [problem["rule"] for problem in answer["problems"]]


def test_two_zones_are_made_with_their_rights_and_a_second_run_changes_nothing(applied: Applied) -> None:
    first = applied.run(TWO_ZONES + KMS)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("done: 2 keys created, 2 directories made, 2 zones created, 2 trashes provisioned")
    assert "policy revision" in first.stdout
    assert first.stderr == ""
    zones = applied.cluster.list_zones()
    assert {path: zones[path] for path in ("/applied/pii", "/applied/masked")} == {
        "/applied/pii": "applied-applied-pii",
        "/applied/masked": "applied-applied-masked",
    }
    acl = applied.cluster.run("hdfs", "dfs", "-getfacl", "/applied/pii").output.splitlines()
    for line in (
        "# owner: etl",
        "# group: pii",
        "user::rwx",
        "user:analyst:r-x",
        "group::r-x",
        "group:pii-readers:r-x",
        "other::---",
        "default:user:analyst:r-x",
    ):
        assert line in acl
    trash = applied.cluster.run("hdfs", "dfs", "-getfacl", "/applied/pii/.Trash").output
    assert "# flags: --t" in trash
    assert "analyst" not in trash
    second = applied.run_json(TWO_ZONES + KMS)
    assert (second["done"], second["failed"], second["not_attempted"]) == ([], [], [])


def test_rights_that_drifted_are_set_back_and_nothing_else(applied: Applied) -> None:
    assert applied.run(TWO_ZONES + KMS).returncode == 0
    applied.cluster.run("hdfs", "dfs", "-setfacl", "-m", "user:dr.who:rwx", "/applied/pii")
    repaired = applied.run_json(TWO_ZONES + KMS)
    assert repaired["done"] == ["set_rights:/applied/pii"]
    assert "dr.who" not in applied.cluster.run("hdfs", "dfs", "-getfacl", "/applied/pii").output


def test_one_zone_that_cannot_be_made_does_not_stop_the_other(applied: Applied) -> None:
    applied.cluster.run("hdfs", "dfs", "-touchz", "/applied-file")
    policy = "version: 1\ncluster: part\nzones:\n  - path: /applied-file/zone\n  - path: /applied-good\n" + KMS
    answer = applied.run_json(policy, expect=1)
    assert [failure["id"] for failure in answer["failed"]] == ["make_directory:/applied-file/zone"]
    assert "not a directory" in answer["failed"][0]["message"]
    assert answer["not_attempted"] == [
        "create_zone:/applied-file/zone",
        "provision_trash:/applied-file/zone",
        "set_rights:/applied-file/zone",
    ]
    assert "/applied-good" in applied.cluster.list_zones()


def test_a_directory_with_files_and_a_zone_with_another_key_are_refused_with_a_way_out(applied: Applied) -> None:
    applied.cluster.run("hdfs", "dfs", "-mkdir", "-p", "/applied-full/child")
    policy = "version: 1\ncluster: refused\nzones:\n  - path: /applied-full\n  - path: /applied-fresh\n" + KMS
    answer = applied.run_json(policy, expect=1)
    assert rules_of(answer) == ["directory_not_empty"]
    assert answer["problems"][0]["command"]
    assert applied.run(TWO_ZONES + KMS).returncode == 0
    another = applied.run_json(TWO_ZONES.replace("owner: etl", "owner: etl\n    key: another") + KMS, expect=1)
    assert rules_of(another) == ["zone_key_mismatch"]
    assert "/applied-fresh" not in applied.cluster.list_zones()


def test_somebody_who_is_not_the_superuser_is_told_to_be_and_nothing_is_changed(applied: Applied) -> None:
    policy = "version: 1\ncluster: claimed\nzones:\n  - path: /applied-claimed\n" + KMS
    finished = applied.run(policy, user="etl")
    assert finished.returncode == 1
    assert "Superuser privilege is required" in finished.stderr
    assert "--as hdfs" in finished.stderr
    assert "\tat " not in finished.stderr
    as_hdfs = applied.run(policy, "--as", "hdfs", user="etl")
    assert as_hdfs.returncode == 0, as_hdfs.stderr


def test_in_safe_mode_the_failure_says_so_and_a_re_run_afterwards_finishes(applied: Applied) -> None:
    policy = "version: 1\ncluster: safe\nzones:\n  - path: /applied-safe\n" + KMS
    applied.cluster.run("hdfs", "dfsadmin", "-safemode", "enter")
    try:
        answer = applied.run_json(policy, expect=1)
    finally:
        applied.cluster.run("hdfs", "dfsadmin", "-safemode", "leave")
    assert [failure["id"] for failure in answer["failed"]] == ["make_directory:/applied-safe"]
    assert "safe mode" in answer["failed"][0]["message"]
    assert applied.run(policy).returncode == 0


def test_with_the_kms_down_nothing_is_begun_and_a_re_run_afterwards_finishes(
    applied: Applied, ringfence_sandbox: dict[str, Any]
) -> None:
    policy = "version: 1\ncluster: silent\nzones:\n  - path: /applied-silent\n" + KMS
    sandbox = ["--dir", ringfence_sandbox["directory"], "--json"]
    status = run_ringfence(["sandbox", "status", *sandbox], os.environ)
    os.kill(json.loads(status.stdout)["pids"]["kms"], signal.SIGTERM)
    try:
        answer = applied.run_json(policy, expect=1)
    finally:
        again = run_ringfence(["sandbox", "up", *sandbox], os.environ)
    assert rules_of(answer) == ["kms_unreachable"]
    assert applied.cluster.kms_url in answer["problems"][0]["message"].replace("kms://http@", "http://")
    assert answer["done"] == []
    assert again.returncode == 0, again.stderr
    assert applied.run(policy).returncode == 0


def test_without_a_way_to_publish_nothing_is_begun(applied: Applied, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    for file in applied.cluster.hadoop_conf.glob("*-site.xml"):
        (tmp_path / "conf" / file.name).write_bytes(file.read_bytes())
    policy = "version: 1\ncluster: mute\nzones:\n  - path: /applied-mute\n" + KMS
    finished = applied.run(policy, "--hadoop-conf", str(tmp_path / "conf"))
    assert finished.returncode == 2, finished.stderr
    assert "RINGFENCE_KMS_ADMIN_SOCKET" in finished.stderr
    names = applied.cluster.run("hadoop", "key", "list").output
    assert "mute-applied-mute" not in names


def test_a_stock_kms_gets_the_zones_without_a_publication(stock_cluster: Cluster, tmp_path: Path) -> None:
    applied = Applied(stock_cluster, tmp_path)
    answer = applied.run_json("version: 1\ncluster: stock\nzones:\n  - path: /applied-stock\n")
    assert answer["revision"] is None
    assert answer["failed"] == []
    assert stock_cluster.list_zones()["/applied-stock"].startswith("stock-applied-stock-")
