"""The agent on two real NameNodes: pins hold on both, a renamed root goes back, and it goes on through a failover and a
killed NameNode.

One sandbox, one agent process from the first test to the last; what a NameNode protects is judged by trying, and by
what each one's own servlet shows; who renamed what is read from the edit log itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import agent_until
import pytest
import requests
from cluster_commands import Cluster, wait_until
from sandboxes import RINGFENCE, new_sandbox, run_ringfence, start_stopped

from ringfence_agent.client import AgentClient
from ringfence_agent.events.reverter import RevertStep
from ringfence_zones.errors import HdfsError
from ringfence_zones.hdfs_child import HdfsChild
from ringfence_zones.hdfs_interface import EventKind

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1200)]

PROPERTY = "fs.protected.directories"
ROOTS = ("/pair/pii", "/pair/masked")
# Comes with a policy that pins no more: so this one is not protected, and can be renamed.
LOOSE = "/pair/loose"
_FOLLOWS_S = 180.0
_COMMAND_TIMEOUT_S = 300
# Two NameNodes and up to four Java clients start and stop on what may be a busy machine.
_PATIENT = "interval: 200ms\nstale_after: 300s\nbudgets: {cpu_percent: 200}\n"
_POLICY = """
version: 1
cluster: agent-pair
zones:
{zones}
kms: {{namenode_users: [hdfs], admins: [hdfs]}}
agent: {{mode: enforce, pin: '{pin}', revert_zone_root_renames: true}}
"""


class Watched:
    """The pair, and the agent that watches it."""

    def __init__(self, described: dict[str, Any], directory: Path, process: subprocess.Popen[str]) -> None:
        self.cluster = Cluster(described)
        self.described = described
        self.directory = directory
        self.process = process
        self.client = AgentClient(str(directory / "agent.sock"), timeout_s=60)
        self.hdfs = HdfsChild(self.cluster.hadoop_conf, "hdfs", environ=self.cluster.environ("hdfs"), deadline_s=60)

    def fail_over(self, *arguments: str) -> None:
        failed = run_ringfence(
            ["sandbox", "failover", "--dir", self.cluster.directory, *arguments], timeout_s=_COMMAND_TIMEOUT_S
        )
        assert failed.returncode == 0, failed.stderr

    def live_values(self) -> dict[str, set[str]]:
        """What each NameNode that runs protects."""
        found = {}
        for name, each in self.described["namenodes"].items():
            try:
                answer = requests.get(
                    f"{each['web']}/conf", params={"name": PROPERTY}, headers={"Accept": "application/json"}, timeout=30
                )
            except requests.ConnectionError:
                continue
            value = answer.json()["property"]["value"] if answer.ok else None
            found[name] = {entry for entry in (value or "").split(",") if entry}
        return found

    def await_pins(self, *roots: str, namenodes: int = 2) -> None:
        """Until that many NameNodes run and each protects exactly these roots."""
        wait_until(lambda: [*self.live_values().values()] == [set(roots)] * namenodes, timeout_s=_FOLLOWS_S)

    def await_calm(self) -> None:
        """Until a cycle that began after now sees the cluster and has nothing to say of NameNodes or pins."""
        began = self.client.health()["cycle"]

        def holds() -> bool:
            health = self.client.health()
            told = {finding.rule for finding in self.client.findings()}
            silent = not told & {"namenode_unreachable", "cluster_not_seen", "pin_failed", "root_not_pinned"}
            return bool(health["cycle"] > began + 1 and health["ready"] and silent)

        wait_until(holds, timeout_s=_FOLLOWS_S)
        assert self.process.poll() is None

    def assert_protected(self, *roots: str) -> None:
        for root in roots:
            refused = self.cluster.ask_webhdfs("PUT", "RENAME", root, destination="/elsewhere")
            assert refused.status_code == 403
            assert f"Cannot delete/rename non-empty protected directory {root}" in refused.text

    def publish(self, *roots: str, pin: str = "apply") -> None:
        publish(self.cluster, self.directory, *roots, pin=pin)

    def told(self) -> set[tuple[str, str]]:
        """Rule and path of every finding."""
        return {(finding.rule, finding.path) for finding in self.client.findings()}

    def inode(self, path: str) -> int | None:
        entry = self.hdfs.find_entry(path)
        return None if entry is None else entry.inode

    def await_back(self, path: str, inode: int | None) -> None:
        wait_until(lambda: self.inode(path) == inode, timeout_s=_FOLLOWS_S)

    def await_caught_up(self) -> None:
        """Until every edit was read and no case is open; nothing was lost on the way."""
        newest = self.hdfs.last_transaction_id()

        def is_there() -> bool:
            events = self.client.health()["events"]
            return bool(events["position"] >= newest and events["lag"] == 0 and not events["open_cases"])

        wait_until(is_there, timeout_s=_FOLLOWS_S)
        assert "events_lost" not in {finding.rule for finding in self.client.findings()}

    def renames_to(self, target: str, after_txid: int) -> int:
        """How many times something was renamed to `target`, by the edit log."""
        newest, count = self.hdfs.last_transaction_id(), 0
        while after_txid < newest:
            page = self.hdfs.read_events(after_txid)
            assert page.first_txid == after_txid + 1
            assert page.last_txid is not None
            count += sum(event.kind is EventKind.RENAME and event.target == target for event in page.events)
            after_txid = page.last_txid
        return count

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The agent, without its next step for a while."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    @contextmanager
    def stopping_agent(self, step: RevertStep) -> Iterator[subprocess.Popen[str]]:
        """A second agent, which needs no lease, with a state of its own; it stops at a step until told to go on."""
        place = self.directory / step.value
        place.mkdir()
        config = place / "agent.yaml"
        config.write_text(
            f"policy: {self.directory}/zones.yaml\nsocket: {place}/a.sock\nstate_dir: {place}/state\n{_PATIENT}"
        )
        conf = place / "conf"
        shutil.copytree(self.cluster.hadoop_conf, conf)
        (conf / "ringfence-client.yaml").unlink()
        with subprocess.Popen(
            [sys.executable, agent_until.__file__, config, conf, step.value],
            env={**self.cluster.environ("hdfs"), "HADOOP_CONF_DIR": str(conf)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline().startswith("ready ")
                client = AgentClient(f"{place}/a.sock", timeout_s=60)
                wait_until(lambda: bool((client.health()["events"] or {}).get("position")), timeout_s=_FOLLOWS_S)
                wait_until(lambda: bool((client.health()["lease"] or {}).get("acts")), timeout_s=_FOLLOWS_S)
                yield process
            finally:
                process.kill()
                process.wait()


def publish(cluster: Cluster, directory: Path, *roots: str, pin: str = "apply") -> None:
    """Applies a policy with these zones, and puts something into each: an empty root may be renamed."""
    zones = "\n".join(f"  - {{path: {root}, owner: etl}}" for root in roots)
    document = directory / "zones.yaml"
    document.write_text(_POLICY.format(zones=zones, pin=pin))
    applied = run_ringfence(["apply", "-f", document], cluster.environ("hdfs"), timeout_s=_COMMAND_TIMEOUT_S)
    assert applied.returncode == 0, applied.stderr
    for root in roots:
        cluster.webhdfs("PUT", "MKDIRS", f"{root}/something", **{"user.name": "etl"})


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with (
        new_sandbox("--ha") as described,
        tempfile.TemporaryDirectory(prefix="rfah-") as name,
    ):
        cluster, directory = Cluster(described), Path(name)
        publish(cluster, directory, *ROOTS)
        config, logs = directory / "agent.yaml", cluster.directory / "logs"
        config.write_text(
            f"hadoop_conf: {cluster.hadoop_conf}\nnamenode_conf_dir: {cluster.hadoop_conf}\n"
            f"socket: {directory}/agent.sock\nstate_dir: {directory}/state\n{_PATIENT}"
            f"namenode_log: [{logs}/namenode-nn1.log, {logs}/namenode-nn2.log]\n"
            f"namenode_audit_log: [{logs}/hdfs-audit-nn1.log, {logs}/hdfs-audit-nn2.log]\n"
        )
        with (
            (directory / "agent.log").open("ab") as log,
            subprocess.Popen(
                [RINGFENCE, "agent", "serve", "--config", config],
                env=cluster.environ("hdfs"),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            ) as process,
        ):
            try:
                assert process.stdout is not None
                assert process.stdout.readline().startswith("ready "), (directory / "agent.log").read_text()[-2000:]
                made = Watched(described, directory, process)
                try:
                    yield made
                finally:
                    made.hdfs.close()
            finally:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()


def test_both_namenodes_are_reconfigured_and_the_standby_protects_the_roots_once_it_is_active(watched: Watched) -> None:
    watched.await_pins(*ROOTS)
    watched.assert_protected(*ROOTS)
    watched.fail_over()
    watched.assert_protected(*ROOTS)
    watched.await_calm()
    assert all(zone.pinned for zone in watched.client.zones())


def test_a_killed_namenode_costs_no_pin_and_the_agent_goes_on(watched: Watched) -> None:
    watched.await_pins(*ROOTS)
    watched.fail_over("--kill")
    watched.assert_protected(*ROOTS)
    # One NameNode is down, and what the other one protects is still known.
    watched.await_calm()
    assert {zone.path: zone.pinned for zone in watched.client.zones()} == dict.fromkeys(ROOTS, True)


def test_a_root_that_comes_while_one_is_down_is_pinned_there_when_it_is_back(watched: Watched) -> None:
    if len(watched.live_values()) == 2:
        watched.fail_over("--kill")
    watched.publish(*ROOTS, "/pair/late")
    watched.await_pins(*ROOTS, "/pair/late", namenodes=1)
    watched.assert_protected("/pair/late")
    start_stopped(watched.cluster.directory)
    watched.await_pins(*ROOTS, "/pair/late")
    watched.fail_over()
    watched.assert_protected(*ROOTS, "/pair/late")
    watched.await_calm()


def _loosen(watched: Watched) -> int:
    """Has the root that nobody protects, with everything running; its inode."""
    start_stopped(watched.cluster.directory)
    if watched.inode(LOOSE) is None:
        watched.publish(*ROOTS, LOOSE, pin="off")
    wait_until(lambda: any(zone.path == LOOSE and zone.in_policy for zone in watched.client.zones()), timeout_s=60)
    wait_until(lambda: bool(watched.client.health()["lease"]["acts"]), timeout_s=_FOLLOWS_S)
    watched.await_caught_up()
    inode = watched.inode(LOOSE)
    assert inode is not None
    return inode


def test_a_root_that_was_renamed_is_back_before_a_failover_and_after_it(watched: Watched) -> None:
    inode, began = _loosen(watched), watched.hdfs.last_transaction_id()
    for number in range(2):
        watched.cluster.webhdfs("PUT", "RENAME", LOOSE, destination=f"/pair/away-{number}")
        watched.await_back(LOOSE, inode)
        watched.await_caught_up()
        if not number:
            watched.fail_over()
    assert watched.renames_to(LOOSE, began) == 2
    [told] = [each.message for each in watched.client.findings() if each.rule == "zone_root_renamed"]
    assert told.startswith("hdfs renamed the zone root /pair/loose to /pair/away-")
    assert "it was renamed back after" in told


def test_a_refused_rename_is_told_whichever_namenode_refused_it(watched: Watched) -> None:
    _loosen(watched)
    for number in range(2):
        source = f"{ROOTS[0]}/refused-{number}"
        watched.cluster.webhdfs("PUT", "MKDIRS", source)
        # Over RPC: of what WebHDFS is refused the log says nothing.
        with pytest.raises(HdfsError, match="can't be moved"):
            watched.hdfs.rename(source, f"{ROOTS[1]}/x")
        wait_until(
            lambda source=source: ("rename_refused", source) in watched.told(),  # type: ignore[misc]
            timeout_s=_FOLLOWS_S,
        )
        watched.fail_over()


def test_a_root_renamed_just_before_the_active_namenode_is_killed_goes_back_on_the_other(watched: Watched) -> None:
    inode, began = _loosen(watched), watched.hdfs.last_transaction_id()
    with watched.paused():
        watched.cluster.webhdfs("PUT", "RENAME", LOOSE, destination="/pair/unseen")
        watched.fail_over("--kill")
        assert watched.inode(LOOSE) is None
    watched.await_back(LOOSE, inode)
    watched.await_caught_up()
    assert watched.renames_to(LOOSE, began) == 1


@pytest.mark.parametrize("step", [RevertStep.INTENDED, RevertStep.ASKED])
def test_a_namenode_killed_in_the_middle_of_a_revert_costs_and_doubles_nothing(
    watched: Watched, step: RevertStep
) -> None:
    inode, began = _loosen(watched), watched.hdfs.last_transaction_id()
    with watched.paused(), watched.stopping_agent(step) as other:
        assert other.stdin is not None and other.stdout is not None
        watched.cluster.webhdfs("PUT", "RENAME", LOOSE, destination=f"/pair/{step.value}")
        assert other.stdout.readline() == f"reached {step.value}\n"
        watched.fail_over("--kill")
        assert watched.inode(LOOSE) == (inode if step is RevertStep.ASKED else None)
        other.stdin.write("go on\n")
        other.stdin.flush()
        watched.await_back(LOOSE, inode)
        client = AgentClient(f"{watched.directory}/{step.value}/a.sock", timeout_s=60)
        wait_until(
            lambda: any("it was renamed back after" in each.message for each in client.findings()), timeout_s=_FOLLOWS_S
        )
        wait_until(lambda: client.health()["events"]["open_cases"] == 0, timeout_s=_FOLLOWS_S)
    # The first agent saw the whole of it late, and has nothing left to do.
    watched.await_caught_up()
    assert watched.inode(LOOSE) == inode
    assert watched.renames_to(LOOSE, began) == 1
