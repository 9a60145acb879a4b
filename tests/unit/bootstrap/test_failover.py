"""Which of two NameNodes becomes active, and what is refused; `haadmin` is a stand-in that notes its words."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from ringfence_bootstrap.sandbox import failover, processes, readiness
from ringfence_bootstrap.sandbox.processes import Process
from ringfence_bootstrap.sandbox.readiness import Access, Role
from ringfence_bootstrap.sandbox.state import Layout, Ports, State, find_state
from ringfence_zones.errors import SandboxError

PORTS = Ports(1, 2, 3, 4, 5, 6, namenode2=12, namenode2_http=13)
ACTIVE_FIRST: dict[str, Role | None] = {"nn1": "active", "nn2": "standby"}


class World:
    """A sandbox on paper: what the NameNodes say, what `haadmin` was told, who was killed."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout = Layout(directory)
        self.roles = dict(ACTIVE_FIRST)
        self.said: list[str] = []
        self.killed: list[int] = []
        self.state = State(
            "3.4.2",
            "ringfence",
            PORTS,
            "/jvm",
            ha=True,
            processes={"namenode-nn1": Process(101, 1, "boot"), "namenode-nn2": Process(102, 1, "boot")},
        )
        names = {each.http_port: each.name for each in self.state.namenodes}
        monkeypatch.setattr(readiness, "find_role", lambda _access, port: self.roles[names[port]])
        monkeypatch.setattr(readiness, "hdfs_waits_for", lambda _access: None)
        monkeypatch.setattr(processes, "kill", lambda process: self.killed.append(process.pid))
        self.install("exit 0")

    def install(self, last: str) -> None:
        program = self.layout.hadoop_home / "bin/hdfs"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "$*" >>{self.layout.directory}/told\n{last}\n')
        program.chmod(0o755)

    @property
    def told(self) -> list[str]:
        path = self.layout.directory / "told"
        return path.read_text().splitlines() if path.exists() else []

    def fail_over(self, to: str | None = None, *, kill: bool = False) -> State:
        environ: Mapping[str, str] = os.environ
        return failover.fail_over(self.layout, self.state, environ, self.said.append, to=to, kill=kill)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


@pytest.mark.parametrize("to", [None, "nn2"])
def test_the_active_one_is_asked_to_stand_by(world: World, to: str | None) -> None:
    assert world.fail_over(to).active == "nn2"
    assert world.told == ["haadmin -failover nn1 nn2"]
    saved = find_state(world.layout)
    assert saved is not None
    assert saved.active == "nn2", "a restart makes the same one active"


def test_the_active_one_is_killed_and_not_asked(world: World) -> None:
    assert world.fail_over(kill=True).active == "nn2"
    assert world.killed == [101]
    assert world.told == ["haadmin -transitionToActive --forceactive nn2"]


def test_after_a_crash_the_one_that_is_left_takes_over(world: World) -> None:
    world.roles = {"nn1": None, "nn2": "standby"}
    assert world.fail_over().active == "nn2"
    assert world.killed == []
    assert world.told == ["haadmin -transitionToActive --forceactive nn2"]


@pytest.mark.parametrize(
    ("to", "kill", "roles", "message"),
    [
        ("nn1", True, ACTIVE_FIRST, "--kill would end it"),
        (None, False, {"nn1": "active", "nn2": None}, "nn2 does not answer, so it cannot be made active"),
        (None, True, {"nn1": "active", "nn2": None}, "nn2 does not answer, so it cannot be made active"),
        ("nn1", False, {"nn1": None, "nn2": "active"}, "nn1 does not answer"),
    ],
)
def test_what_would_leave_nobody_active_is_refused_before_anything_is_done(
    world: World, to: str | None, kill: bool, roles: dict[str, Role | None], message: str
) -> None:
    world.roles = roles
    with pytest.raises(SandboxError, match=message):
        world.fail_over(to, kill=kill)
    assert (world.told, world.killed) == ([], [])


def test_the_active_one_stays(world: World) -> None:
    assert world.fail_over("nn1") == world.state
    assert (world.told, world.said) == ([], ["nn1 is active already"])


def test_a_sandbox_with_one_namenode_has_nobody_to_fail_over_to(tmp_path: Path) -> None:
    single = State("3.4.2", "ringfence", PORTS, "/jvm")
    with pytest.raises(SandboxError, match="has one NameNode"):
        failover.fail_over(Layout(tmp_path), single, os.environ, print, to=None, kill=False)


def test_haadmin_s_last_words_are_told(world: World) -> None:
    world.install('echo "trace" >&2; echo "Failover failed: no" >&2; exit 255')
    with pytest.raises(SandboxError, match="haadmin -failover nn1 nn2 failed: Failover failed: no"):
        world.fail_over()
    assert find_state(world.layout) is None, "nothing is remembered that did not happen"


def test_up_makes_the_last_active_one_active_again_and_believes_the_one_that_is(world: World) -> None:
    access = Access(PORTS)
    assert failover.ensure_active(world.layout, world.state, os.environ, access) == world.state
    world.roles = {"nn1": "standby", "nn2": "active"}
    assert failover.ensure_active(world.layout, world.state, os.environ, access).active == "nn2"
    assert failover.asking_active(access, world.state).namenode_http == 13
    assert world.told == []
    world.roles = {"nn1": "standby", "nn2": "standby"}
    assert failover.ensure_active(world.layout, world.state, os.environ, access).active == "nn1"
    assert world.told == ["haadmin -transitionToActive nn1"]
