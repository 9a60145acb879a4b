"""What is looked at in directories, and what is made of it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from namespace_double import NamespaceDouble

from ringfence_agent import inspection as inspection_module
from ringfence_agent.inspection import Inspection, Inspector
from ringfence_agent.inspection_findings import clear_findings, foreign_findings
from ringfence_zones.findings import Finding, Rule
from ringfence_zones.model import ClusterState
from ringfence_zones.policy import Policy, parse_policy

POLICY = """
version: 1
cluster: c
zones:
  - {path: /d/pii, key: kp}
  - {path: /d/deep/er/masked, key: km}
must_encrypt: [/d, /absent, /d/pii/inside]
kms: {namenode_users: [hdfs], admins: [hdfs]}
"""


class _World:
    def __init__(self) -> None:
        self.space = NamespaceDouble()
        self.space.make_zone("/d/pii", "kp")
        self.space.make_zone("/d/deep/er/masked", "km")
        self.space.make("/d/pii/inside/f", file=True)
        self.space.set_key_version("/d/pii/inside/f", "kp@0")
        self.policy: Policy = parse_policy(POLICY, "zones.yaml")
        self.suspects: list[str] = []
        self.has_room = True
        self.now_s = 0.0
        self.inspector = Inspector(
            self.space,  # type: ignore[arg-type]
            has_room=lambda: self.has_room,
            suspects=lambda: self.suspects,
            forget=self._forget,
            clock=lambda: self.now_s,
            choose=random.Random(1),
        )

    def _forget(self, paths: Sequence[str]) -> None:
        self.suspects = [path for path in self.suspects if path not in paths]

    @property
    def state(self) -> ClusterState:
        return ClusterState((3, 4, 2), self.space.list_zones(), {}, None, None)

    def inspect(self) -> Inspection:
        self.now_s += 5
        return self.inspector.inspect(self.state, self.policy, self.space.txid)

    def clear(self) -> list[Finding]:
        return list(clear_findings(self.policy, self.inspect()))

    def foreign(self) -> list[Finding]:
        return list(foreign_findings(self.state, self.inspect()))


@pytest.fixture
def world() -> _World:
    return _World()


def test_zones_and_what_is_above_them_are_not_clear_data(world: _World) -> None:
    assert world.clear() == []


def test_files_and_directories_beside_zones_are_each_found_once_at_the_top(world: _World) -> None:
    world.space.make("/d/new/a/b", file=True)
    world.space.make("/d/deep/f.csv", file=True)
    world.space.make("/d/deep/er/x")
    found = world.clear()
    assert [finding.path for finding in found] == ["/d/deep/er/x", "/d/deep/f.csv", "/d/new"]
    assert {finding.rule for finding in found} == {Rule.CLEAR_DATA}
    assert found[1].command is not None
    assert found[1].command.startswith("hdfs dfs -cp /d/deep/f.csv /d/deep/er/masked/f.csv && test")
    world.space.delete("/d/new")
    assert [finding.path for finding in world.clear()] == ["/d/deep/er/x", "/d/deep/f.csv"]


def test_nothing_is_listed_again_while_nothing_was_edited(world: _World) -> None:
    world.has_room = False
    world.inspect()
    calls = world.space.calls
    world.inspect()
    assert world.space.calls == calls + 1  # the test's own listing of zones


def test_without_a_policy_nothing_is_clear_data(world: _World) -> None:
    world.space.make("/d/new")
    inspection = world.inspector.inspect(world.state, None, world.space.txid)
    assert inspection.clear == ()
    assert list(clear_findings(None, inspection)) == []


def test_a_directory_of_thousands_is_not_read_to_its_end(world: _World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection_module, "MAX_CLEAR", 3)
    for number in range(5):
        world.space.make(f"/d/f{number}", file=True)
    found = world.clear()
    assert [finding.path for finding in found] == ["/d/f0", "/d/f1", "/d/f2", "/"]
    assert "not all is said" in found[-1].message


def test_a_sample_finds_a_key_version_of_another_zone_and_says_that_it_is_one(world: _World) -> None:
    world.space.make("/d/deep/er/masked/copied", file=True)
    world.space.set_key_version("/d/deep/er/masked/copied", "kp@3")
    found: list[Finding] = []
    for _ in range(20):
        found = world.foreign()
        if found:
            break
    (finding,) = found
    assert finding.rule is Rule.FOREIGN_KEY_VERSION
    assert finding.key == "km"
    assert "wrapped with kp@3" in finding.message
    assert "Seen in a sample (" in finding.hint
    assert finding.command == ("hadoop distcp -px /.reserved/raw/d/deep/er/masked/copied /.reserved/raw/d/pii/copied")


def test_what_events_named_is_looked_at_at_once_and_forgotten_when_it_is_gone(world: _World) -> None:
    world.has_room = False
    world.space.make("/d/pii/raw", file=True)
    world.space.set_key_version("/d/pii/raw", "km@0")
    world.suspects.append("/d/pii/raw")
    assert [finding.path for finding in world.foreign()] == ["/d/pii/raw"]
    world.space.delete("/d/pii/raw")
    world.now_s += 60
    assert world.foreign() == []


def test_a_suspect_that_is_in_order_is_forgotten(world: _World) -> None:
    world.suspects.append("/d/pii/inside/f")
    assert world.foreign() == []
    assert world.suspects == []


def test_without_room_nothing_is_sampled(world: _World) -> None:
    world.has_room = False
    assert world.inspect().sampled == 0
    world.has_room = True
    assert world.inspect().sampled > 0
