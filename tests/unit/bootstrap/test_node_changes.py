"""Each change of a node finds its place as it was: after it is done, half done, done by others since."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence_bootstrap.journal import Journal, Step, roll_back, run
from ringfence_bootstrap.node.changes import Backups, directory_step, file_step, hadoop_step
from ringfence_zones.errors import InstallError, RolledBackError

SITE = b"""<?xml version="1.0"?>
<!-- of the cluster's administrator -->
<configuration>
  <property>\t<name>fs.defaultFS</name><value>hdfs://nn:8020</value></property>
  <property>
    <name>hadoop.security.key.provider.path</name>
    <value>kms://http@nn:9600/kms</value>
  </property>
</configuration>
"""
PATH = "hadoop.security.key.provider.path"
OURS = "kms://https@nn:9600/kms"


def quiet(_text: str) -> None:
    pass


@pytest.fixture
def backups(tmp_path: Path) -> Backups:
    return Backups(tmp_path / "kept")


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(root)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(root.rglob("*"))
    }


def make_steps(root: Path, backups: Backups) -> list[Step]:
    return [
        directory_step("directory", root / "made", 0o750),
        file_step("new", root / "made/new", lambda: b"ours", backups),
        file_step("old", root / "old", lambda: b"ours", backups, mode=0o600),
        hadoop_step("site", root / "site.xml", lambda: {PATH: OURS, "a.b": "c"}, backups),
        hadoop_step("none", root / "none.xml", lambda: {"a.b": "c"}, backups),
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    (root / "old").write_bytes(b"theirs")
    (root / "old").chmod(0o640)
    (root / "site.xml").write_bytes(SITE)
    (root / "site.xml").chmod(0o644)
    return root


def test_what_is_undone_is_byte_for_byte_what_it_was(root: Path, tmp_path: Path, backups: Backups) -> None:
    before = tree(root)
    journal = Journal(tmp_path / "journal.json")
    run(journal, {}, make_steps(root, backups), quiet)
    assert (root / "old").read_bytes() == (root / "made/new").read_bytes() == b"ours"
    assert stat.S_IMODE((root / "old").stat().st_mode) == 0o600
    assert OURS.encode() in (root / "site.xml").read_bytes()
    # By another process, which has nothing but the journal.
    again = Journal(tmp_path / "journal.json")
    assert again.find() is not None
    roll_back(again, make_steps(root, backups), "why", quiet)
    assert tree(root) == before


@pytest.mark.parametrize("died_at", ["directory", "new", "old", "site", "none"])
@pytest.mark.parametrize("was_done", [False, True])
def test_a_death_at_any_step_is_undone(
    root: Path, tmp_path: Path, backups: Backups, died_at: str, was_done: bool
) -> None:
    before = tree(root)
    journal = Journal(tmp_path / "journal.json")
    journal.begin({})
    for step in make_steps(root, backups):
        journal.note(step.name, step.prepare())
        if step.name != died_at or was_done:
            step.do()
        if step.name == died_at:
            break
    again = Journal(tmp_path / "journal.json")
    assert again.find() is not None
    roll_back(again, make_steps(root, backups), "why", quiet)
    assert tree(root) == before


def test_a_file_that_others_changed_since_stays_as_they_made_it(root: Path, tmp_path: Path, backups: Backups) -> None:
    journal = Journal(tmp_path / "journal.json")
    run(journal, {}, make_steps(root, backups), quiet)
    (root / "old").write_bytes(b"somebody's")
    (root / "made/another").touch()
    told = roll_back(journal, make_steps(root, backups), "why", quiet)
    assert (root / "old").read_bytes() == b"somebody's"
    assert f"{root / 'old'} stays" in told and f"{root / 'made'} stays" in told


def test_only_our_values_go_out_of_a_hadoop_file_that_others_changed(
    root: Path, tmp_path: Path, backups: Backups
) -> None:
    journal = Journal(tmp_path / "journal.json")
    run(journal, {}, make_steps(root, backups), quiet)
    site = root / "site.xml"
    site.write_bytes(site.read_bytes().replace(b"hdfs://nn:8020", b"hdfs://other:8020"))
    told = roll_back(journal, make_steps(root, backups), "why", quiet)
    assert site.read_bytes() == SITE.replace(b"hdfs://nn:8020", b"hdfs://other:8020")
    assert "only what was ours" in told


def test_a_hadoop_file_that_was_written_anew_keeps_what_it_says(root: Path, tmp_path: Path, backups: Backups) -> None:
    journal = Journal(tmp_path / "journal.json")
    run(journal, {}, make_steps(root, backups), quiet)
    anew = SITE.replace(b"kms://http@nn", b"kms://http@another")
    (root / "site.xml").write_bytes(anew)
    roll_back(journal, make_steps(root, backups), "why", quiet)
    assert (root / "site.xml").read_bytes() == anew


def test_a_private_directory_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    step = directory_step("keys", tmp_path / "keys", 0o700, private=True)
    undo = step.prepare()
    step.do()
    (tmp_path / "keys/store").touch()
    assert step.undo(undo) is None and not (tmp_path / "keys").exists()


def test_a_directory_that_was_there_stays_with_its_mode(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o755)
    step = directory_step("keys", tmp_path / "keys", 0o700, private=True)
    undo = step.prepare()
    step.do()
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o755
    step.undo(undo)
    assert (tmp_path / "keys").exists()


def test_a_step_that_fails_leaves_nothing(root: Path, tmp_path: Path, backups: Backups) -> None:
    before = tree(root)

    def fail() -> bytes:
        raise InstallError("no")

    steps = [*make_steps(root, backups), file_step("bad", root / "bad", fail, backups)]
    with pytest.raises(RolledBackError, match=r"^no; everything is as it was before$"):
        run(Journal(tmp_path / "journal.json"), {}, steps, quiet)
    assert tree(root) == before


def test_what_follows_a_file_is_called_when_it_is_written_and_when_it_is_put_back(
    tmp_path: Path, backups: Backups
) -> None:
    seen: list[bool] = []
    path = tmp_path / "unit"
    note: Callable[[], None] = lambda: seen.append(path.exists())  # noqa: E731 - a name for the type
    step = file_step("unit", path, lambda: b"[Unit]", backups, then=note)
    undo = step.prepare()
    step.do()
    step.undo(undo)
    assert seen == [True, False]


def test_no_content_of_a_file_is_in_the_journal(root: Path, tmp_path: Path, backups: Backups) -> None:
    secret = b"<property><name>p</name><value>hunter2</value></property></configuration>"
    (root / "site.xml").write_bytes(SITE.replace(b"</configuration>", secret))
    run(Journal(tmp_path / "journal.json"), {}, make_steps(root, backups), quiet)
    assert b"hunter2" not in (tmp_path / "journal.json").read_bytes()
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "kept").iterdir()} == {0o600}
