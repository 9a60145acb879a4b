"""`ringfence sandbox up --ha`: two real NameNodes change places, asked and killed, while a client writes into a zone.

In an order that restarts little: what one test leaves stopped the next one begins with, or starts for itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from cluster_commands import Cluster, wait_until
from sandboxes import new_sandbox, run_ringfence, start_stopped
from zone_loop import loop_in

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

_ZONE = "/failover/pii"
_POLICY = f"""
version: 1
cluster: failover-test
zones:
  - {{path: {_ZONE}, owner: etl}}
kms: {{namenode_users: [hdfs], admins: [hdfs]}}
"""
_COMMAND_TIMEOUT_S = 300


class Pair:
    """A sandbox with two NameNodes and one zone."""

    def __init__(self, described: dict[str, Any]) -> None:
        self.cluster = Cluster(described)
        self.described = described

    def ringfence(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_ringfence(
            ["sandbox", command, "--dir", self.cluster.directory, *arguments], timeout_s=_COMMAND_TIMEOUT_S
        )

    def status(self) -> dict[str, Any]:
        described: dict[str, Any] = json.loads(self.ringfence("status", "--json").stdout)
        return described

    def roles(self) -> dict[str, str | None]:
        return {name: each["role"] for name, each in self.status()["namenodes"].items()}

    def active(self) -> str:
        [name] = [name for name, role in self.roles().items() if role == "active"]
        return name

    def other(self) -> str:
        return "nn2" if self.active() == "nn1" else "nn1"

    def fail_over(self, *arguments: str) -> str:
        """What was said; the other one is active afterwards."""
        other = self.other()
        done = self.ringfence("failover", *arguments)
        assert done.returncode == 0, done.stderr
        assert self.active() == other
        return done.stderr

    def live_value(self, name: str) -> dict[str, str]:
        """A property as each running NameNode holds it."""
        found = {}
        for namenode, each in self.described["namenodes"].items():
            answer = requests.get(
                f"{each['web']}/conf", params={"name": name}, headers={"Accept": "application/json"}, timeout=30
            )
            found[namenode] = answer.json()["property"]["value"]
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with new_sandbox("--ha") as described:
        pair = Pair(described)
        policy = tmp_path_factory.mktemp("policy") / "zones.yaml"
        policy.write_text(_POLICY)
        applied = run_ringfence(["apply", "-f", policy], pair.cluster.environ("hdfs"), timeout_s=_COMMAND_TIMEOUT_S)
        assert applied.returncode == 0, applied.stderr
        yield pair


@pytest.fixture
def pair(made: Pair) -> Pair:
    """The module's sandbox with everything running, whatever the test before did to it."""
    if any(pid is None for pid in made.status()["pids"].values()) or "active" not in made.roles().values():
        start_stopped(made.cluster.directory)
    return made


def test_one_is_active_and_both_know_the_key_provider(pair: Pair) -> None:
    assert sorted(str(role) for role in pair.roles().values()) == ["active", "standby"]
    described = pair.status()
    daemons = {"kms", "journalnode", "namenode-nn1", "namenode-nn2", "datanode"}
    assert described["pids"].keys() == daemons
    assert all(described["pids"].values())
    uri = pair.cluster.environment["RINGFENCE_KMS_URI"]
    assert pair.live_value("hadoop.security.key.provider.path") == {"nn1": uri, "nn2": uri}
    assert pair.live_value("dfs.nameservices") == {"nn1": "ringfence", "nn2": "ringfence"}


def test_a_client_that_writes_into_a_zone_goes_on_through_both_kinds_of_failover(pair: Pair, tmp_path: Path) -> None:
    first = pair.active()
    with loop_in(pair.cluster, _ZONE, tmp_path) as loop:
        assert "killing" not in pair.fail_over()
        loop.wait_for_rounds(3)
        daemon = pair.described["namenodes"][pair.active()]["daemon"]
        killed = pair.status()["pids"][daemon]
        assert f"killing the {daemon}" in pair.fail_over("--kill")
        # Dead at once; its entry goes when whoever inherited it has asked how it ended.
        wait_until(lambda: not Path(f"/proc/{killed}").exists(), timeout_s=_COMMAND_TIMEOUT_S)
        assert pair.status()["pids"][daemon] is None
        loop.wait_for_rounds(3)
        rounds = loop.finish()
    assert pair.active() == first
    listed = pair.cluster.webhdfs("GET", "LISTSTATUS", _ZONE).json()["FileStatuses"]["FileStatus"]
    written = [each["pathSuffix"] for each in listed if each["pathSuffix"].startswith("loop-")]
    assert len(written) == rounds, "nothing that was confirmed is lost"
    # What the new active one knows of the zone came through the JournalNode.
    assert pair.cluster.encryption_of(f"{_ZONE}/loop-0").version_name


def test_a_killed_namenode_comes_back_as_standby_on_its_ports(made: Pair) -> None:
    if made.ringfence("status").returncode == 0:
        made.fail_over("--kill")
    before = made.status()
    [stopped] = [name for name, each in before["namenodes"].items() if each["role"] is None]
    again = start_stopped(made.cluster.directory)
    assert again["ports"] == before["ports"]
    assert again["pids"][before["namenodes"][stopped]["daemon"]] is not None
    assert again["namenodes"][stopped]["role"] == "standby"


def test_what_makes_no_sense_is_refused_and_changes_nothing(pair: Pair) -> None:
    roles = pair.roles()
    assert f"{pair.active()} is active already" in pair.ringfence("failover", "--to", pair.active()).stderr
    refused = pair.ringfence("failover", "--kill", "--to", pair.active())
    assert refused.returncode == 1
    assert "--kill would end it" in refused.stderr
    assert pair.roles() == roles


def test_nobody_takes_over_from_a_namenode_that_died_until_somebody_says_so(pair: Pair) -> None:
    active, other = pair.active(), pair.other()
    os.kill(pair.status()["pids"][pair.described["namenodes"][active]["daemon"]], signal.SIGKILL)
    wait_until(lambda: pair.roles()[active] is None, timeout_s=30)
    time.sleep(2)
    assert pair.roles() == {active: None, other: "standby"}
    done = pair.ringfence("failover", "--to", active)
    assert done.returncode == 1
    assert f"{active} does not answer, so it cannot be made active" in done.stderr
    assert pair.ringfence("failover").returncode == 0
    assert pair.roles() == {active: None, other: "active"}


def test_files_ports_and_the_active_one_outlive_a_restart(made: Pair) -> None:
    before, active = made.status(), made.active()
    made.cluster.webhdfs("PUT", "MKDIRS", "/failover/kept")
    assert made.ringfence("down").returncode == 0
    assert not any(made.status()["pids"].values())
    again = start_stopped(made.cluster.directory)
    assert again["ports"] == before["ports"]
    roles = {name: each["role"] for name, each in again["namenodes"].items()}
    assert roles[active] == "active", "the one that was active last is active again"
    assert sorted(str(role) for role in roles.values()) == ["active", "standby"]
    assert made.cluster.status_of("/failover/kept")["type"] == "DIRECTORY"
    assert made.cluster.status_of(_ZONE)["encBit"]


@pytest.mark.long
def test_two_secure_namenodes_change_places_too() -> None:
    with new_sandbox("--ha", "--kerberos", "--tls") as described:
        pair = Pair(described)
        pair.fail_over()
        pair.fail_over("--kill")
        written = pair.ringfence("hdfs", "dfs", "-touchz", "/tmp/after")
        assert written.returncode == 0, written.stderr
        again = start_stopped(pair.cluster.directory)
        assert sorted(str(each["role"]) for each in again["namenodes"].values()) == ["active", "standby"]
