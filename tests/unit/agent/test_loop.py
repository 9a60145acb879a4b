"""The loop against a NameNode in memory: it converges, survives, rests, and says one sentence per cycle."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path

import pytest
from fake_namenode import FakeNameNode

from ringfence_agent.act import Pinner
from ringfence_agent.budgets import BudgetView
from ringfence_agent.enforce import Observation
from ringfence_agent.loop import AgentLoop, FatalAgentError
from ringfence_agent.observe import Observer
from ringfence_agent.pins import PinMemory
from ringfence_agent.policy_source import FilePolicy
from ringfence_agent.snapshot import Board
from ringfence_agent.steps import OnStep, unheard
from ringfence_zones.errors import HdfsPermissionError, NameNodeUnavailableError

CORE_SITE = (
    "<configuration><property><name>fs.protected.directories</name><value>/apps</value></property></configuration>"
)
POLICY = """
version: 1
cluster: c
zones:
  - {{path: /a, key: ka}}
  - {{path: /b, key: kb}}
kms: {{namenode_users: [hdfs], admins: [hdfs]}}
agent: {{mode: {mode}, pin: {pin}}}
"""


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class _Budgets:
    """Budgets that say what a test sets."""

    view = BudgetView()
    may_go_on = True
    rest_s = 0.0

    def measure(self) -> bool:
        return self.may_go_on

    def pause_s(self) -> float:
        return self.rest_s


class _World:
    """A cluster, a policy file, and an agent's loop over them."""

    def __init__(self, directory: Path) -> None:
        self.conf = directory / "conf"
        self.conf.mkdir()
        self.core_site = self.conf / "core-site.xml"
        self.core_site.write_text(CORE_SITE)
        self.policy = directory / "zones.yaml"
        self.state_dir = directory / "state"
        self.hdfs = FakeNameNode(self.conf)
        self.hdfs.add_zone("/a", "ka")
        self.hdfs.add_zone("/b", "kb")
        self.clock = _Clock()
        self.board = Board(60, self.clock)
        self.checked = 0
        self.budgets = _Budgets()
        self.looks: list[Observation] = []
        self.write_policy()
        self.loop = self.new_loop()

    def new_loop(self, on_step: OnStep = unheard) -> AgentLoop:
        memory = PinMemory(self.state_dir, self.core_site)
        observer = Observer(
            self.hdfs, FilePolicy(self.policy), memory, namenode_conf_dir=self.conf, user="hdfs", kms_timeout_s=1
        )
        pinner = Pinner(self.hdfs, memory, timeout_s=5, pause=lambda _: None)
        return AgentLoop(
            observer,
            pinner,
            self.board,
            interval_s=5,
            checks=(self._check,),
            budgets=self.budgets,
            longest_pause_s=60.0,
            on_look=self.looks.append,
            clock=self.clock,
            on_step=on_step,
        )

    def write_policy(self, mode: str = "enforce", pin: str = "apply") -> None:
        (self.policy.parent / "next").write_text(POLICY.format(mode=mode, pin=pin))
        (self.policy.parent / "next").rename(self.policy)

    def _check(self) -> None:
        self.checked += 1

    def rules(self) -> set[str]:
        return {finding.rule.value for finding in self.board.snapshot.findings}


@pytest.fixture
def world(tmp_path: Path) -> _World:
    return _World(tmp_path)


def test_it_pins_and_then_has_nothing_to_do(world: _World) -> None:
    assert world.loop.run_cycle().endswith("; did pin /a, /b")
    assert world.loop.rest_s() == 0.0
    sentence = world.loop.run_cycle()
    assert sentence.startswith("enforce: 2 zones, ")
    assert "did" not in sentence
    assert world.loop.rest_s() == 5.0
    assert world.hdfs.protected_directories() == ("/a", "/apps", "/b")
    assert "root_not_pinned" not in world.rules()
    assert world.hdfs.reloads == ["nn1:8020"]


def test_observe_changes_nothing(world: _World) -> None:
    world.write_policy(mode="observe")
    assert world.loop.run_cycle().endswith("; would pin /a, /b")
    assert world.core_site.read_text() == CORE_SITE
    assert world.hdfs.reloads == []
    assert not world.state_dir.exists()
    assert "root_not_pinned" in world.rules()


def test_a_zone_made_later_is_pinned_and_one_deleted_unpinned(world: _World) -> None:
    world.hdfs.remove_zone("/b")
    world.loop.run_cycle()
    world.hdfs.add_zone("/b", "kb")
    assert "did pin /b" in world.loop.run_cycle()
    world.hdfs.remove_zone("/a")
    assert "did unpin /a" in world.loop.run_cycle()
    assert world.hdfs.protected_directories() == ("/apps", "/b")


def test_a_restarted_agent_knows_its_pins(world: _World) -> None:
    world.loop.run_cycle()
    world.hdfs.remove_zone("/a")
    assert "did unpin /a" in world.new_loop().run_cycle()
    assert world.hdfs.protected_directories() == ("/apps", "/b")


def test_an_edit_by_somebody_else_is_merged_with(world: _World) -> None:
    world.loop.run_cycle()
    world.core_site.write_text(CORE_SITE.replace("/apps", "/apps,/added"))
    world.hdfs.restart()
    assert "did pin /a, /b" in world.loop.run_cycle()
    assert world.hdfs.protected_directories() == ("/a", "/added", "/apps", "/b")


def test_it_survives_a_namenode_that_is_away_and_goes_on(world: _World) -> None:
    world.loop.run_cycle()
    world.loop.run_cycle()
    world.hdfs.fail = NameNodeUnavailableError("the NameNode at nn1:8020 does not answer")
    world.clock.now += 30
    assert world.loop.run_cycle() == "the NameNode at nn1:8020 does not answer"
    assert world.rules() == {"namenode_unreachable"}
    assert world.board.is_live()
    assert world.board.is_ready()
    world.clock.now += 31
    world.loop.run_cycle()
    assert world.board.is_live()
    assert not world.board.is_ready()
    world.hdfs.fail = None
    assert world.loop.run_cycle().startswith("enforce: 2 zones")
    assert world.board.is_ready()


def test_another_failure_to_look_is_a_finding_too(world: _World) -> None:
    world.hdfs.fail = HdfsPermissionError("superuser privilege is required")
    world.loop.run_cycle()
    assert world.rules() == {"cluster_not_seen"}


def test_a_bug_ends_the_cycle_and_not_the_loop(world: _World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.hdfs, "list_zones", lambda: 1 / 0)
    sentence = world.loop.run_cycle()
    assert sentence.startswith("a bug ended this cycle: ZeroDivisionError at ")
    assert world.rules() == {"cluster_not_seen"}
    monkeypatch.undo()
    assert "did pin" in world.loop.run_cycle()


def test_what_is_fatal_passes_through(world: _World, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise FatalAgentError("the socket is gone")

    monkeypatch.setattr(world.loop, "_checks", (lost,))
    with pytest.raises(FatalAgentError, match="the socket is gone"):
        world.loop.run(threading.Event())


def test_a_pin_that_fails_is_found_at_once_and_tried_again_with_growing_pauses(world: _World) -> None:
    world.hdfs.refuses_value = "not now"
    attempts = []
    for _ in range(40):
        before = len(world.hdfs.reloads)
        world.loop.run_cycle()
        assert "pin_failed" in world.rules()
        if len(world.hdfs.reloads) > before:
            attempts.append(world.clock.now)
        world.clock.now += 5
    pauses = [later - earlier for earlier, later in pairwise(attempts)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 10.0
    assert pauses[-1] > 60.0
    world.hdfs.refuses_value = None
    world.clock.now += 300
    assert "did" in world.loop.run_cycle()
    world.loop.run_cycle()
    assert "pin_failed" not in world.rules()


def test_a_file_that_cannot_be_written_is_a_finding_and_left_alone(
    world: _World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.mkstemp", _refuse)
    world.state_dir.mkdir()
    monkeypatch.setattr(PinMemory, "save", lambda *_: None)
    world.loop.run_cycle()
    assert "pin_failed" in world.rules()
    assert world.core_site.read_text() == CORE_SITE


def _refuse(*_arguments: object, **_options: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_it_rests_in_proportion_to_what_a_look_costs(world: _World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.loop.run_cycle()
    real = world.hdfs.list_zones

    def slow() -> object:
        world.clock.now += 3
        return real()

    monkeypatch.setattr(world.hdfs, "list_zones", slow)
    world.loop.run_cycle()
    assert world.loop.rest_s() == 5.0  # once is an accident
    world.loop.run_cycle()
    assert world.loop.rest_s() == 12.0


def test_checks_run_in_every_cycle(world: _World) -> None:
    world.loop.run_cycle()
    world.loop.run_cycle()
    assert world.checked == 2


def test_each_cycle_is_one_log_line(world: _World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="ringfence_agent")
    world.loop.run_cycle()
    world.loop.run_cycle()
    lines = [record for record in caplog.records if record.name == "ringfence_agent.cycle"]
    assert [record.fields["cycle"] for record in lines] == [1, 2]  # type: ignore[attr-defined]
    assert lines[0].getMessage().startswith("enforce: 2 zones, ")
    assert lines[0].getMessage().endswith("; did pin /a, /b")


def test_print_mode_prints_what_to_set_into_the_log(world: _World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="ringfence_agent")
    world.write_policy(pin="print")
    world.loop.run_cycle()
    (line,) = [record for record in caplog.records if record.name == "ringfence_agent.cycle"]
    assert '"/apps,/a,/b"' in line.fields["to_set"][0]  # type: ignore[attr-defined]
    assert world.core_site.read_text() == CORE_SITE
    assert world.hdfs.reloads == []


def test_a_trash_that_lost_its_sticky_bit_gets_it_and_nothing_else(world: _World) -> None:
    world.hdfs.add_zone("/a", "ka", trash_mode=0o755)
    assert "did set the sticky bit of /a/.Trash, pin /a, /b" in world.loop.run_cycle()
    assert world.hdfs.find_directory("/a").trash_mode == 0o1755  # type: ignore[union-attr]
    assert "sticky" not in world.loop.run_cycle()


def test_a_sticky_bit_that_cannot_be_set_is_tried_again_and_holds_no_pin_up(world: _World) -> None:
    world.hdfs.add_zone("/a", "ka", trash_mode=0o755)
    world.hdfs.refuses_mode = HdfsPermissionError("no")
    assert world.loop.run_cycle().endswith("; did pin /a, /b")
    assert "trash_rights" in world.rules()
    world.hdfs.refuses_mode = None
    assert "did set the sticky bit of /a/.Trash" in world.loop.run_cycle()


def test_each_look_is_handed_on_with_the_edits_around_it(world: _World) -> None:
    world.loop.run_cycle()
    (look,) = world.looks
    assert (look.from_txid, look.to_txid) == (world.hdfs.edits, world.hdfs.edits)


def test_a_new_policy_is_handed_on_before_anything_is_done_about_it(world: _World) -> None:
    told: list[tuple[str, int, int]] = []
    loop = world.new_loop(lambda step: told.append((step.value, len(world.looks), len(world.hdfs.reloads))))
    loop.run_cycle()
    assert [each for each in told if each[0] in ("read", "adopted")] == [("read", 0, 0), ("adopted", 1, 0)]
    told.clear()
    loop.run_cycle()
    assert told == []
    world.write_policy(pin="off")
    loop.run_cycle()
    assert told == [("read", 2, 1), ("adopted", 3, 1)]


def test_a_budget_that_is_spent_lengthens_the_rest_also_after_an_act(world: _World) -> None:
    world.budgets.rest_s = 40.0
    world.loop.run_cycle()
    assert world.loop.rest_s() == 40.0
    world.loop.run_cycle()
    assert world.loop.rest_s() == 40.0


def test_budgets_that_callers_spent_do_not_blind_the_agent(world: _World) -> None:
    # Answers cost processor time as well: whoever asks all day long must not keep the loop from looking.
    world.budgets.rest_s = 4000.0
    world.loop.run_cycle()
    assert world.loop.rest_s() == 60.0


def test_an_agent_beyond_its_memory_ends(world: _World) -> None:
    world.budgets.may_go_on = False
    with pytest.raises(FatalAgentError, match="more memory than its budget"):
        world.loop.run_cycle()


def test_it_is_woken_from_its_rest(world: _World) -> None:
    world.loop.run_cycle()
    stop = threading.Event()
    thread = threading.Thread(target=world.loop.run, args=(stop,))
    thread.start()
    try:
        while len(world.looks) < 2:
            stop.wait(0.01)
        world.loop.wake()
        deadline = threading.Event()
        for _ in range(300):
            if len(world.looks) >= 3:
                break
            deadline.wait(0.01)
        assert len(world.looks) >= 3
    finally:
        stop.set()
        thread.join(10)
