"""The event stream against a name space in memory: what is renamed back, what is left, and what a kill leaves.

A world is a name space, a state directory and a policy; a new watcher on the same directory is an agent that was
started anew. Each step is polled by hand, with clocks that tests set.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from namespace_double import NamespaceDouble

from ringfence_agent.events.findings import event_findings
from ringfence_agent.events.reverter import Reverter, RevertStep
from ringfence_agent.events.state_file import FILE_NAME, StateFile
from ringfence_agent.events.stream import EventStream
from ringfence_agent.events.watcher import EventView, EventWatcher, Listing
from ringfence_agent.reverts import Case, CaseState
from ringfence_zones.errors import HdfsPermissionError, NameNodeUnavailableError, SafeModeError
from ringfence_zones.findings import Rule, Severity
from ringfence_zones.hdfs_interface import Entry
from ringfence_zones.policy import Policy, parse_policy

POLICY = """
version: 1
cluster: c
zones:
  - {path: /d/a, key: ka}
  - {path: /d/b, key: kb}
  - {path: /z, key: kz}
must_encrypt: [/d]
kms: {namenode_users: [hdfs], admins: [hdfs]}
agent: {mode: enforce, pin: 'off', revert_zone_root_renames: true}
"""


class _Killed(BaseException):
    """What stands for kill -9: nothing of the agent's runs after it."""


class _World:
    """See the module."""

    def __init__(self, directory: Path) -> None:
        self.now_s = 1_000_000.0
        self.space = NamespaceDouble(lambda: int(self.now_s * 1000))
        for path, key in (("/d/a", "ka"), ("/d/b", "kb"), ("/z", "kz")):
            self.space.make_zone(path, key)
        self.space.make("/plain")
        self.policy: Policy | None = parse_policy(POLICY, "zones.yaml")
        self.state_dir = directory
        self.my_turn = True
        self.users: dict[tuple[str, str], str] = {}
        self.woken = 0
        self.views: list[EventView] = []
        self.kill_at: RevertStep | None = None
        self.watcher = self.new_watcher()

    def new_watcher(self) -> EventWatcher:
        def wake() -> None:
            self.woken += 1

        def on_step(step: enum.StrEnum) -> None:
            if step is self.kill_at:
                raise _Killed

        clock: Callable[[], float] = lambda: self.now_s  # noqa: E731
        return EventWatcher(
            EventStream(self.space),  # type: ignore[arg-type]
            Reverter(self.space, lambda: self.my_turn, on_step=on_step, clock=clock, wall_clock=clock),  # type: ignore[arg-type]
            StateFile(self.state_dir),
            interval_s=0.2,
            wake_loop=wake,
            on_change=self.views.append,
            find_user=lambda source, target, _when_s: self.users.get((source, target)),
            clock=clock,
            wall_clock=clock,
        )

    def look(self) -> None:
        """What the loop does with each cycle."""
        txid = self.space.txid
        self.watcher.adopt(Listing(zones=self.space.list_zones(), policy=self.policy, from_txid=txid, to_txid=txid))

    def poll(self, times: int = 1) -> None:
        for _ in range(times):
            self.now_s += 1.5
            self.watcher.run_once()

    def begin(self) -> None:
        self.look()
        self.poll()

    def set_agent(self, mode: str, revert: bool) -> None:
        text = POLICY.replace("enforce", mode).replace("renames: true", f"renames: {str(revert).lower()}")
        self.policy = parse_policy(text, "zones.yaml")

    @property
    def zones(self) -> dict[str, str]:
        return {zone.path: zone.key_name for zone in self.space.list_zones()}

    @property
    def cases(self) -> list[tuple[str, str, str]]:
        return [(case.source, case.target, case.state.value) for case in self.watcher.view.cases]

    def is_home(self) -> bool:
        return self.zones == {"/d/a": "ka", "/d/b": "kb", "/z": "kz"}


@pytest.fixture
def world(tmp_path: Path) -> _World:
    made = _World(tmp_path)
    made.begin()
    return made


def test_a_root_that_is_renamed_away_is_back_with_the_next_poll(world: _World) -> None:
    world.users["/z", "/gone"] = "mallory"
    world.space.rename("/z", "/gone")
    world.poll()
    assert world.is_home()
    assert world.cases == [("/z", "/gone", "reverted")]
    (finding,) = event_findings(world.watcher.view)
    assert finding.rule is Rule.ZONE_ROOT_RENAMED
    assert finding.message.startswith("mallory renamed the zone root /z to /gone; it was renamed back after ")


def test_a_directory_above_roots_goes_back_with_them(world: _World) -> None:
    world.space.rename("/d", "/e")
    world.poll()
    assert world.is_home()
    assert world.cases == [("/d", "/e", "reverted")]
    assert event_findings(world.watcher.view)[0].message.startswith("an unknown user renamed a directory with zone")


def test_its_own_rename_is_never_undone(world: _World) -> None:
    world.space.rename("/z", "/gone")
    world.poll(5)
    assert world.is_home()
    assert world.cases == [("/z", "/gone", "reverted")]


def test_renames_inside_and_beside_zones_are_nobodys_business(world: _World) -> None:
    world.space.make("/d/a/x")
    world.space.rename("/d/a/x", "/d/a/y")
    world.space.rename("/plain", "/other")
    world.poll()
    assert world.cases == []


def test_a_root_that_wanders_goes_home_not_one_step_back(world: _World) -> None:
    world.my_turn = False
    world.space.rename("/z", "/one")
    world.poll()
    world.space.rename("/one", "/two")
    world.poll()
    assert world.cases == [("/z", "/two", "open")]
    world.my_turn = True
    world.poll(2)
    assert world.is_home()


def test_what_somebody_brings_back_himself_is_only_told(world: _World) -> None:
    world.my_turn = False
    world.space.rename("/z", "/one")
    world.poll()
    world.space.rename("/one", "/z")
    world.poll()
    assert world.cases == [("/z", "/one", "restored")]
    assert event_findings(world.watcher.view)[0].severity is Severity.INFO


@pytest.mark.parametrize(("mode", "revert"), [("observe", True), ("enforce", False)])
def test_without_leave_to_it_is_a_finding_with_the_command(world: _World, mode: str, revert: bool) -> None:
    world.set_agent(mode, revert)
    world.begin()
    world.space.rename("/z", "/it's gone")
    world.poll(3)
    assert "/it's gone" in world.zones
    (finding,) = event_findings(world.watcher.view)
    assert finding.severity is Severity.ERROR
    assert finding.command == """hdfs dfs -mv '/it'"'"'s gone' /z"""


def test_an_occupied_source_is_a_finding(world: _World) -> None:
    world.my_turn = False
    world.space.rename("/z", "/gone")
    world.poll()
    world.space.make("/z")
    world.my_turn = True
    world.poll(3)
    assert world.cases == [("/z", "/gone", "left")]
    assert "there is something at /z again" in event_findings(world.watcher.view)[0].message


def test_another_inode_at_the_target_is_a_finding(world: _World) -> None:
    world.space.rename("/z", "/gone")
    world.space.delete("/gone")
    world.space.make("/gone")
    world.poll(2)
    assert "/gone" not in world.zones
    assert world.space.find_entry("/gone") is not None
    (finding,) = event_findings(world.watcher.view)
    assert "it was deleted there" in finding.message


def test_a_swap_between_look_and_rename_moves_nothing_else(world: _World) -> None:
    """The rename is by inode: what was put at the target meanwhile stays there."""

    def swap() -> None:
        world.space.before_rename = lambda: None
        world.space.rename("/gone", "/hidden")
        world.space.make("/gone")

    world.space.rename("/z", "/gone")
    world.space.before_rename = swap
    world.poll(2)
    assert world.is_home()
    assert world.space.find_entry("/gone") is not None


def test_who_renames_again_and_again_is_left_after_three(world: _World) -> None:
    for _ in range(5):
        world.space.rename("/z", "/gone") if "/z" in world.zones else None
        world.poll(2)
    assert [state for _, _, state in world.cases] == ["reverted"] * 3 + ["left"]
    assert "/gone" in world.zones
    assert "renamed away 4 times within an hour" in event_findings(world.watcher.view)[0].message


def test_the_budget_outlives_a_restart(world: _World) -> None:
    for _ in range(3):
        world.space.rename("/z", "/gone")
        world.poll(2)
    world.watcher = world.new_watcher()
    world.begin()
    world.space.rename("/z", "/gone")
    world.poll(2)
    assert "/gone" in world.zones


def test_an_hour_later_it_is_brought_back_again(world: _World) -> None:
    for _ in range(3):
        world.space.rename("/z", "/gone")
        world.poll(2)
    world.now_s += 3700
    world.space.rename("/z", "/gone")
    world.poll(2)
    assert world.is_home()


@pytest.mark.parametrize("error", [SafeModeError("safe mode"), NameNodeUnavailableError("away")])
def test_safe_mode_and_an_absent_namenode_are_waited_for(world: _World, error: Exception) -> None:
    world.space.rename("/z", "/gone")
    world.space.refuses_rename = error  # type: ignore[assignment]
    world.poll(3)
    assert world.cases == [("/z", "/gone", "open")]
    world.space.refuses_rename = None
    world.poll(2)
    assert world.is_home()


def test_a_refusal_is_a_finding(world: _World) -> None:
    world.space.rename("/z", "/gone")
    world.space.refuses_rename = HdfsPermissionError("HDFS refused user x: no")
    world.poll(3)
    assert world.cases == [("/z", "/gone", "left")]
    assert "HDFS refused user x" in event_findings(world.watcher.view)[0].message


def test_a_namenode_that_is_away_is_a_finding_and_nothing_is_lost(world: _World) -> None:
    world.space.rename("/z", "/gone")
    world.space.away = NameNodeUnavailableError("does not answer")
    world.poll(3)
    assert [each.rule for each in event_findings(world.watcher.view)] == [Rule.EVENTS_UNAVAILABLE]
    assert world.watcher.rest_s() > 0.2
    world.space.away = None
    world.poll()
    assert world.is_home()
    assert world.watcher.rest_s() == 0.2


@pytest.mark.parametrize("step", list(RevertStep))
@pytest.mark.parametrize("source", ["/z", "/d"])
def test_killed_at_each_step_it_converges(world: _World, step: RevertStep, source: str) -> None:
    world.space.rename(source, "/gone")
    world.kill_at = step
    with pytest.raises(_Killed):
        world.poll()
    world.kill_at = None
    world.watcher = world.new_watcher()
    world.begin()
    world.poll(2)
    assert world.is_home()
    assert world.cases == [(source, "/gone", "reverted")]


def test_the_intent_is_on_disk_before_hdfs_is_asked(world: _World) -> None:
    asked: list[Case] = []

    def look() -> None:
        state = StateFile(world.state_dir).load()
        assert state is not None
        asked.extend(state.cases)

    world.space.before_rename = look
    world.space.rename("/z", "/gone")
    world.poll()
    assert [(case.source, case.state, case.tried_s is not None) for case in asked] == [("/z", CaseState.OPEN, True)]


def test_what_happened_while_it_was_down_is_seen_from_its_saved_position(world: _World) -> None:
    world.space.rename("/z", "/one")
    world.space.rename("/one", "/two")
    world.watcher = world.new_watcher()
    world.begin()
    world.poll()
    assert world.is_home()
    assert world.cases == [("/z", "/two", "reverted")]


def test_without_a_policy_it_waits_for_one(world: _World) -> None:
    world.watcher = world.new_watcher()
    world.space.rename("/z", "/gone")
    world.poll(2)
    assert world.cases == [("/z", "/gone", "open")]
    world.look()
    world.poll(2)
    assert world.is_home()


def test_lost_events_mean_a_look_at_every_zone_and_a_finding(world: _World) -> None:
    world.space.rename("/z", "/gone")
    world.space.purge()
    woken = world.woken
    world.poll()
    assert world.woken > woken
    world.poll()  # nothing to begin with yet
    assert world.watcher.view.txid is None
    world.begin()
    rules = {each.rule: each for each in event_findings(world.watcher.view)}
    assert "every zone was looked at again" in rules[Rule.EVENTS_LOST].message
    assert rules[Rule.ZONE_ROOT_RENAMED].command == "hdfs dfs -mv /gone /z"
    assert "/gone" in world.zones
    world.space.rename("/d/a", "/away")
    world.poll()
    assert "/d/a" in world.zones


def test_a_namenode_that_went_back_is_a_loss_too(world: _World) -> None:
    world.space.restore(world.space.txid - 2)
    world.poll()
    assert "behind transaction" in event_findings(world.watcher.view)[0].message


def test_two_roots_that_moved_unseen_are_two_cases(world: _World) -> None:
    world.space.rename("/z", "/gone")
    world.space.rename("/d/a", "/away")
    world.space.purge()
    world.poll()
    world.users["/z", "/gone"] = "mallory"
    world.begin()
    world.poll(3)
    assert sorted(world.cases) == [("/d/a", "/away", "left"), ("/z", "/gone", "left")]


def test_a_user_whom_the_audit_log_names_later_is_told(world: _World) -> None:
    world.space.rename("/z", "/gone")
    world.poll()
    assert world.watcher.view.cases[0].user == "unknown"
    world.users["/z", "/gone"] = "mallory"
    world.poll(2)
    assert world.watcher.view.cases[0].user == "mallory"
    assert world.cases == [("/z", "/gone", "reverted")]


def test_one_case_that_cannot_be_looked_at_holds_no_other_up(world: _World) -> None:
    real = world.space.find_entry

    def find_entry(path: str) -> Entry | None:
        if path == "/gone":
            raise HdfsPermissionError("no")
        return real(path)

    world.space.find_entry = find_entry  # type: ignore[method-assign]
    world.space.rename("/z", "/gone")
    world.space.rename("/d/a", "/away")
    world.poll()
    assert "/d/a" in world.zones
    assert world.watcher.view.problem == "no"


def test_nothing_is_written_while_nothing_happens(world: _World) -> None:
    world.poll(5)
    before = (world.state_dir / FILE_NAME).stat().st_ino
    world.poll(20)
    assert (world.state_dir / FILE_NAME).stat().st_ino == before
    world.space.touch()
    world.poll(5)
    assert (world.state_dir / FILE_NAME).stat().st_ino != before


def test_a_damaged_file_is_as_none(world: _World) -> None:
    (world.state_dir / FILE_NAME).write_text('{"schema": 1, "txid":')
    world.watcher = world.new_watcher()
    world.begin()
    world.space.rename("/z", "/gone")
    world.poll()
    assert world.is_home()


def test_a_zone_made_and_renamed_before_any_listing_goes_back_too(world: _World) -> None:
    world.policy = parse_policy(POLICY.replace("/z", "/new"), "zones.yaml")
    world.look()
    world.space.make_zone("/new", "kz2")
    world.space.rename("/new", "/gone")
    world.poll(2)
    assert world.cases == [("/new", "/gone", "open")]
    world.look()
    world.poll(3)
    assert "/new" in world.zones


def test_a_listing_from_before_a_rename_is_not_believed(world: _World) -> None:
    world.set_agent("observe", revert=False)
    world.begin()
    old = Listing(
        zones=world.space.list_zones(), policy=world.policy, from_txid=world.space.txid, to_txid=world.space.txid
    )
    world.space.rename("/z", "/gone")
    world.poll()
    world.watcher.adopt(old)
    world.poll()
    world.space.rename("/gone", "/z")
    world.poll()
    assert world.cases[-1] == ("/z", "/gone", "restored")


def test_a_raw_copy_with_another_zones_key_is_a_suspect(world: _World) -> None:
    world.space.make("/d/a/f", file=True)
    world.space.set_key_version("/d/a/f", "kb@0")
    world.space.set_key_version("/d/a/g", "ka@3")
    world.poll()
    assert world.watcher.view.suspects == ("/d/a/f",)
    world.watcher.forget(["/d/a/f"])
    world.poll()
    assert world.watcher.view.suspects == ()


@pytest.mark.parametrize(("path", "wakes"), [("/d/new", True), ("/d/a/new", False), ("/plain/new", False)])
def test_something_in_clear_where_it_must_not_be_wakes_the_loop(world: _World, path: str, wakes: bool) -> None:
    before = world.woken
    world.space.make(path)
    world.poll()
    assert (world.woken > before) == wakes


def test_the_view_says_position_and_lag(world: _World) -> None:
    view = world.watcher.view
    assert (view.txid, view.lag) == (world.space.txid, 0)
    assert view.seen_s == world.now_s


def test_a_bug_is_logged_and_does_not_end_the_stream(world: _World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    world.space.last_transaction_id = None  # type: ignore[method-assign, assignment]
    world.poll()
    assert "a bug ended" in (world.watcher.view.problem or "")
    assert "a bug ended a poll" in caplog.text


_PLACES = ["/d", "/d/a", "/d/b", "/z", "/plain", "/e", "/d/c"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("rename"), st.sampled_from(_PLACES), st.sampled_from(_PLACES)),
            st.tuples(st.sampled_from(["poll", "look", "kill", "purge"]), st.just(""), st.just("")),
        ),
        max_size=12,
    )
)
@example(steps=[("rename", "/d", "/e"), ("poll", "", ""), ("purge", "", ""), ("rename", "/d", "/e")])
@example(steps=[("purge", "", ""), ("rename", "/d/a", "/e"), ("rename", "/d/b", "/d/a")])
def test_whatever_is_renamed_when_zones_end_at_home_or_in_a_finding(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, str]]
) -> None:
    """And it renames no more than its budget, and only zone roots and what is above them."""
    world = _World(tmp_path_factory.mktemp("state"))
    world.begin()
    renamed: list[str] = []
    world.space.before_rename = lambda: renamed.append("")
    for kind, source, target in steps:
        match kind:
            case "rename":
                try:
                    if not target.startswith(f"{source}/"):
                        world.space.rename(source, target)
                except Exception:  # noqa: BLE001 - what HDFS refuses does not happen
                    pass
            case "kill":
                world.watcher = world.new_watcher()
            case "purge":
                world.space.purge()
            case _:
                world.look()
                world.poll()
    for _ in range(4):
        world.look()
        world.poll(2)
    told = {root.inode for case in world.watcher.view.cases if case.ended_s is None for root in case.roots}
    homes = {"ka": "/d/a", "kb": "/d/b", "kz": "/z"}
    for zone in world.space.list_zones():
        assert zone.path == homes[zone.key_name] or zone.inode in told
    assert not [case for case in world.watcher.view.cases if case.state is CaseState.OPEN]
    assert len(renamed) <= 3 * len(_PLACES)


def test_old_cases_are_forgotten(world: _World) -> None:
    world.space.rename("/z", "/gone")
    world.poll(2)
    world.now_s += 90_000
    world.space.touch()
    world.poll()
    state = StateFile(world.state_dir).load()
    assert state is not None
    assert state.cases == ()
    assert replace(state, cases=()) == state
