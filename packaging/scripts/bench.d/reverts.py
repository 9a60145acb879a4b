"""How long a zone root that was renamed away is away: from the rename's answer until its inode is back in its place.

An agent in `mode: enforce` follows HDFS's events and renames back, at most `MAX_REVERTS` times an hour for one path, so
that several roots take turns. Whoever renames and looks has a Java process of its own; its looks, one every few
milliseconds, are part of what is measured. A root that does not come back fails the measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from figures import Spread, spread_of
from kms_load import BenchError
from move_checks import running_agent
from process_tree import tree_rss_mib
from sandbox import Sandbox

from ringfence_agent.client import AgentClient, AgentError
from ringfence_agent.reverts import MAX_REVERTS
from ringfence_zones.hdfs_child import HdfsChild

_LOOK_S = 0.005
_REST_S = 0.3
_TIMEOUT_S = 60.0
_ROOT = "/bench-r"
_POLICY = """\
version: 1
cluster: bench
zones:
{zones}
kms: {{namenode_users: [hdfs], admins: [hdfs]}}
agent: {{mode: enforce, pin: 'off', revert_zone_root_renames: true}}
"""


@dataclass(frozen=True, slots=True)
class Reverts:
    """Seconds that roots were away, and the memory of the agent with its Java children after that."""

    away_s: Spread | None
    agent_mib: float


def measure_reverts(ours: Sandbox, scratch: Path, *, roots: int, say: Callable[[str], None]) -> Reverts:
    """On a running sandbox. Raises BenchError when a root does not come back."""
    paths = [f"{_ROOT}/z{number}" for number in range(roots)]
    document = scratch / "reverts.yaml"
    document.write_text(_POLICY.format(zones="\n".join(f"  - {{path: {path}, owner: hdfs}}" for path in paths)))
    ours.run([str(ours.program), "apply", "-f", str(document)])
    conf = Path(ours.environment["HADOOP_CONF_DIR"])
    with (
        running_agent(ours, scratch) as (process, socket),
        closing(HdfsChild(conf, "hdfs", environ=ours.environment)) as hdfs,
    ):
        _await_following(AgentClient(str(socket)))
        away = []
        for number in range(MAX_REVERTS):
            say(f"reverts: round {number + 1} of {MAX_REVERTS}")
            for path in paths:
                away.append(_away_s(hdfs, path))
                time.sleep(_REST_S)
        return Reverts(spread_of(away), tree_rss_mib(process.pid))


def _await_following(client: AgentClient) -> None:
    deadline = time.monotonic() + 2 * _TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            health = client.health()
        except AgentError:
            health = {"ready": False}
        if health["ready"] and health["events"] and health["events"]["lag"] == 0 and health["lease"]["acts"]:
            return
        time.sleep(0.1)
    raise BenchError("the agent did not follow HDFS's events within two minutes")


def _away_s(hdfs: HdfsChild, path: str) -> float:
    inode = _inode(hdfs, path)
    hdfs.rename(path, f"{path}-away")
    began = time.monotonic()
    while _inode(hdfs, path) != inode:
        if time.monotonic() - began > _TIMEOUT_S:
            raise BenchError(f"{path} was not renamed back within {_TIMEOUT_S:g} s")
        time.sleep(_LOOK_S)
    return time.monotonic() - began


def _inode(hdfs: HdfsChild, path: str) -> int | None:
    entry = hdfs.find_entry(path)
    return None if entry is None else entry.inode
