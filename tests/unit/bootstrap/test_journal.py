"""Steps that are undone: by an error, by a process that dies at any point, and by the next command after it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ringfence_bootstrap.journal import DONE, ROLLED_BACK, RUNNING, Journal, Step, Undo, locked, roll_back, run
from ringfence_zones.errors import ConfigError, InstallError, NotRolledBackError, RolledBackError


@dataclass
class Machine:
    """Two files that steps change; the dead points are every line at which a process may end."""

    directory: Path
    points: list[str] = field(default_factory=list)
    die_at: str | None = None
    fail_at: str | None = None
    fail_undo: str | None = None

    def reach(self, point: str) -> None:
        self.points.append(point)
        if point == self.die_at:
            os._exit(9)
        if point == self.fail_at:
            raise InstallError(f"{point} failed", hint="mend it")

    def step(self, name: str) -> Step:
        path = self.directory / name

        def prepare() -> Undo:
            self.reach(f"prepare {name}")
            return {"content": path.read_text()}

        def do() -> None:
            self.reach(f"before {name}")
            path.write_text("half")
            self.reach(f"within {name}")
            path.write_text("new")
            self.reach(f"after {name}")

        def undo(found: Undo) -> None:
            if name == self.fail_undo:
                raise InstallError(f"undoing {name} failed")
            path.write_text(found["content"])

        return Step(name, f"changing {name}", do, undo, prepare)

    @property
    def steps(self) -> list[Step]:
        return [self.step("one"), self.step("two")]

    def contents(self) -> list[str]:
        return [(self.directory / name).read_text() for name in ("one", "two")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"old {name}")
    return Machine(tmp_path)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.json")


OLD = ["old one", "old two"]
POINTS = [f"{when} {name}" for name in ("one", "two") for when in ("prepare", "before", "within", "after")]


def ignore(_said: str) -> None:
    pass


def test_all_steps_are_done_and_on_record(machine: Machine, journal: Journal) -> None:
    said: list[str] = []
    run(journal, {"a": 1}, machine.steps, said.append)
    assert machine.contents() == ["new", "new"]
    assert said == ["changing one", "changing two"]
    assert machine.points == POINTS
    assert Journal(journal.path).find() == (DONE, {"a": 1})


@pytest.mark.parametrize("point", POINTS)
def test_a_step_that_fails_anywhere_leaves_everything_as_it_was(machine: Machine, journal: Journal, point: str) -> None:
    machine.fail_at = point
    with pytest.raises(RolledBackError, match=f"{point} failed; everything is as it was before") as caught:
        run(journal, {}, machine.steps, ignore)
    assert caught.value.hint == "mend it"
    assert machine.contents() == OLD
    found = Journal(journal.path).find()
    assert found is not None and found[0] == ROLLED_BACK


@pytest.mark.parametrize("point", POINTS)
def test_a_process_that_dies_anywhere_is_rolled_back_by_the_next(
    machine: Machine, journal: Journal, point: str
) -> None:
    machine.die_at = point
    child = os.fork()
    if child == 0:
        run(journal, {"a": 1}, machine.steps, ignore)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    machine.die_at = None
    next_one = Journal(journal.path)
    assert next_one.find() == (RUNNING, {"a": 1})
    roll_back(next_one, machine.steps, "it was interrupted", ignore)
    assert machine.contents() == OLD
    assert next_one.find() == (ROLLED_BACK, {"a": 1})


def test_what_cannot_be_undone_says_so_and_is_gone_on_with_later(machine: Machine, journal: Journal) -> None:
    machine.fail_at, machine.fail_undo = "after two", "one"
    with pytest.raises(NotRolledBackError, match="after two failed; and it could not be undone: undoing one failed"):
        run(journal, {}, machine.steps, ignore)
    assert machine.contents() == ["new", "old two"]
    machine.fail_undo = None
    again = Journal(journal.path)
    found = again.find()
    assert found is not None and found[0] == RUNNING
    roll_back(again, machine.steps, "an earlier run failed", ignore)
    assert machine.contents() == OLD


def test_what_an_undo_tells_is_told_with_what_failed(machine: Machine, journal: Journal) -> None:
    def breaks() -> None:
        raise InstallError("it broke")

    def undo(_: Undo) -> str:
        return "one thing stayed"

    with pytest.raises(RolledBackError, match=r"it broke; everything is as it was before; one thing stayed$"):
        run(journal, {}, [machine.step("one"), Step("two", "breaking", breaks, undo)], ignore)
    assert machine.contents() == OLD


def test_an_unexpected_exception_rolls_back_too(machine: Machine, journal: Journal) -> None:
    def breaks() -> None:
        raise KeyboardInterrupt

    with pytest.raises(RolledBackError, match="KeyboardInterrupt"):
        run(journal, {}, [machine.step("one"), Step("two", "breaking", breaks)], ignore)
    assert machine.contents() == OLD


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 9}'])
def test_a_journal_that_is_none_is_not_believed(journal: Journal, text: str) -> None:
    journal.path.write_text(text)
    with pytest.raises(ConfigError, match="journal"):
        journal.find()


def test_one_command_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "state"), pytest.raises(InstallError, match="another command"), locked(tmp_path / "state"):
        pass
    with locked(tmp_path / "state"):
        pass


def test_a_directory_that_others_could_exchange_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(InstallError, match="others could put a journal"), locked(shared / "state"):
        pass
    shared.chmod(0o1777)
    with locked(shared / "state"):
        pass
