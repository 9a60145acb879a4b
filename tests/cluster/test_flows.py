"""Copies between zones with Hadoop's own client, in both orders, in shadow mode and enforced.

Simple authentication, so each user's commands have JVMs of their own, and rules are enforced on claimed names. DistCp
is not in the sandbox: what it does, creating the target before it opens the source, a Java client does here as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cluster_commands import Cluster
from sandboxes import new_sandbox, run_ringfence

from ringfence_agent.kms.audit.reader import find_files

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

USERS = ["etl", "analyst", "masker"]
_JOB = Path(__file__).parents[1] / "support" / "java_job.py"


def policy(mode: dict[str, object]) -> dict[str, Any]:
    zones = [
        {"path": f"/flows/{name}", "key": name, "mode": "0777", "readers": USERS, "writers": USERS}
        for name in ("pii", "masked")
    ]
    return {
        "version": 1,
        "cluster": "flows",
        "zones": zones,
        "kms": {"namenode_users": ["hdfs"], "admins": ["hdfs"]},
        "flows": [{"from": "/flows/pii", "to": "/flows/masked", "who": ["masker"]}],
        "flow_control": mode,
    }


@dataclass
class Site:
    cluster: Cluster
    directory: Path
    mode: str = ""

    def apply(self, mode: dict[str, object]) -> None:
        file = self.directory / "zones.yaml"
        file.write_text(json.dumps(policy(mode)))
        done = run_ringfence(["apply", "-f", file], self.cluster.environ("hdfs"))
        assert done.returncode == 0, done.stderr
        self.mode = str(mode["mode"])

    def put(self, path: str, user: str) -> None:
        file = self.directory / "plain.txt"
        file.write_text("secret\n" * 1000)
        self.cluster.run("hdfs", "dfs", "-put", "-f", str(file), path, user=user)

    def copy_target_first(self, source: str, target: str, user: str) -> str | None:
        """What a Java client says of it, None when it was copied."""
        environment = self.cluster.environ(user)
        command = [sys.executable, str(_JOB), "copy_target_first", source, target]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return found.get("message")

    def openings(self, user: str) -> list[dict[str, Any]]:
        files = find_files([self.cluster.directory / "kms.db.audit.d"])
        lines = [record.fields for record in files.read()]
        return [line for line in lines if line["op"] == "DECRYPT_EEK" and line["user"] == user]

    def lengths(self, directory: str) -> dict[str, int]:
        answer = self.cluster.webhdfs("GET", "LISTSTATUS", directory).json()["FileStatuses"]["FileStatus"]
        return {entry["pathSuffix"]: entry["length"] for entry in answer if entry["type"] == "FILE"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with new_sandbox("--kms", "ringfence") as described:
        site = Site(Cluster(described), tmp_path_factory.mktemp("site"))
        site.apply({"mode": "shadow"})
        yield site


def test_flows_in_shadow_mode_and_then_enforced(site: Site) -> None:
    cluster = site.cluster
    # Each user is one session, so what each does first decides what else it may do in the next minutes.
    site.put("/flows/pii/file", "masker")
    assert [line["opened"] for line in site.openings("masker")] == ["write"]
    cluster.run("hdfs", "dfs", "-cp", "/flows/pii/file", "/flows/masked/shadowed", user="analyst")
    read, written = site.openings("analyst")
    assert (read["key"], read["opened"], read.get("flow")) == ("pii", "read", None)
    assert (written["key"], written["opened"]) == ("masked", "write")
    assert written["flow"] == {"from": "/flows/pii", "to": "/flows/masked", "mode": "shadow"}

    site.apply({"mode": "enforce", "enforce_on_claimed_identity": True})
    refused = cluster.run("hdfs", "dfs", "-cp", "/flows/pii/file", "/flows/masked/copied", user="analyst", expect=1)
    assert "flow refused: analyst may not bring data from /flows/pii to /flows/masked" in refused.output
    assert "rule flow_refused" in refused.output
    assert "copied" not in site.lengths("/flows/masked")
    # Reading goes on.
    assert cluster.run("hdfs", "dfs", "-cat", "/flows/pii/file", user="analyst").stdout.startswith(b"secret")

    cluster.run("hdfs", "dfs", "-cp", "/flows/pii/file", "/flows/masked/allowed", user="masker")
    assert site.lengths("/flows/masked")["allowed"] == 7000
    assert site.copy_target_first("/flows/pii/file", "/flows/masked/allowed-too", "masker") is None


def test_the_order_of_distcp_is_refused_at_the_source(site: Site) -> None:
    site.apply({"mode": "enforce", "enforce_on_claimed_identity": True})
    message = site.copy_target_first("/flows/pii/file", "/flows/masked/by-target-first", "etl")
    assert message is not None
    assert "flow refused: etl may not bring data from /flows/pii to /flows/masked" in message
    assert "has written to /flows/masked" in message
    assert site.lengths("/flows/masked")["by-target-first"] == 0
    refused = site.openings("etl")[-1]
    assert (refused["outcome"], refused["key"], refused["opened"]) == ("denied", "pii", "read")


def test_what_the_readme_says_cannot_be_refused_is_not(site: Site) -> None:
    """An append opens its EDEK as a read does, and a copy to clear text is a read."""
    site.apply({"mode": "enforce", "enforce_on_claimed_identity": True})
    cluster, more = site.cluster, site.directory / "more.txt"
    more.write_text("secret\n")
    # Somebody else's file: what the session itself has just made, it goes on writing for a minute.
    site.put("/flows/masked/appended", "masker")
    cluster.run("hdfs", "dfs", "-chmod", "666", "/flows/masked/appended", user="masker")
    cluster.run("hdfs", "dfs", "-cat", "/flows/pii/file", user="analyst")
    cluster.run("hdfs", "dfs", "-appendToFile", str(more), "/flows/masked/appended", user="analyst")
    assert site.lengths("/flows/masked")["appended"] == 7000 + len("secret\n")
    assert (site.openings("analyst")[-1]["key"], site.openings("analyst")[-1]["opened"]) == ("masked", "read")
    cluster.make_directory("/clear", owner="analyst")
    cluster.run("hdfs", "dfs", "-cp", "/flows/pii/file", "/clear/copied", user="analyst")
    assert site.lengths("/clear") == {"copied": 7000}
