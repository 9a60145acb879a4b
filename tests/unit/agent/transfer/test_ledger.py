"""The ledger moves forward only, says what is on disk, and is nobody else's to read."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from transfer_scenes import ID, Scene

from ringfence_agent.transfer.ledger import Ledger
from ringfence_agent.transfer.record import Grant, Item, Job, Problem, State
from ringfence_zones.errors import ConfigError, TransferError, TransferNotFoundError

PROBLEM = Problem(kind="X", message="x")
GRANT = Grant(id="g", approver="boss", purpose="p")


def item(path: str, size: int = 5, *, is_directory: bool = False) -> Item:
    return Item(
        path=path,
        is_directory=is_directory,
        bytes=0 if is_directory else size,
        mode=0o640,
        owner="etl",
        group="etl",
        modified_ms=1,
        accessed_ms=2,
        file_id=7,
        key_version=None if is_directory else "k@0",
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    scene = Scene(tmp_path)
    opened = scene.open_ledger()
    scene.submit(opened)
    return opened


def test_the_file_is_its_owners_alone_and_written_through(tmp_path: Path, ledger: Ledger) -> None:
    assert (tmp_path / "transfers.sqlite").stat().st_mode & 0o777 == 0o600
    settings = [ledger._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]
    assert settings == [2, "wal"]  # FULL


def test_what_one_agent_wrote_the_next_one_finds(tmp_path: Path, ledger: Ledger) -> None:
    ledger.begin(ID, [item("", is_directory=True), item("a"), item("b", 7)], 42)
    ledger.verified(ID, "b", "f" * 64)
    ledger.close()
    again = Ledger(tmp_path / "transfers.sqlite")
    [found] = again.list_unfinished()
    assert (found.state, found.source_id, found.files, found.bytes) == (State.COPYING, 42, 2, 12)
    assert [each.sha256 for each in again.items(ID)] == [None, None, "f" * 64]
    assert found.request == Scene(tmp_path).request()


def test_a_file_that_is_verified_twice_counts_once(ledger: Ledger) -> None:
    ledger.begin(ID, [item("a"), item("b", 7)], 42)
    for _ in range(2):
        ledger.verified(ID, "b", "f" * 64)
    assert (ledger.get(ID).files_verified, ledger.get(ID).bytes_verified) == (1, 7)


def test_a_step_from_another_state_is_refused_and_changes_nothing(ledger: Ledger) -> None:
    for step in (
        lambda: ledger.approve(ID, GRANT),
        lambda: ledger.ready(ID, [], 1),
        lambda: ledger.placed(ID),
        lambda: ledger.done(ID, b"receipt", 2),
    ):
        with pytest.raises(TransferError, match="is queued"):
            step()
    transfer = ledger.get(ID)
    assert (transfer.state, transfer.grant, ledger.find_receipt(ID)) == (State.QUEUED, None, None)


def test_a_failure_never_overtakes_an_end(ledger: Ledger) -> None:
    ledger.failed(ID, PROBLEM, 5)
    ledger.failing(ID, PROBLEM)
    assert ledger.get(ID).state is State.FAILED
    assert ledger.list_unfinished() == []


def test_a_transfer_that_is_not_there_is_said_to_be_so(ledger: Ledger) -> None:
    with pytest.raises(TransferNotFoundError):
        ledger.get("f" * 32)
    with pytest.raises(TransferNotFoundError):
        ledger.placed("f" * 32)


def test_a_user_sees_the_own_ones_and_all_is_all(ledger: Ledger) -> None:
    assert [len(ledger.list_transfers(owner, 10)) for owner in ("masker", "etl", None)] == [1, 0, 1]


def test_a_ledger_of_another_release_and_a_file_that_is_none_stop_the_agent(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(ConfigError, match="its format 9 is of another release"):
        Ledger(other)
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    with pytest.raises(ConfigError):
        Ledger(tmp_path / "junk")


def test_a_job_is_remembered_before_and_after_yarn_has_it(tmp_path: Path, ledger: Ledger) -> None:
    ledger.begin(ID, [item("", is_directory=True), item("a")], 42, by_job=True)
    assert ledger.find_job(ID) == Job(0, None)
    ledger.job_started(ID, 1)
    ledger.job_found(ID, "application_1_0001")
    ledger.close()
    again = Ledger(tmp_path / "transfers.sqlite")
    assert again.find_job(ID) == Job(1, "application_1_0001")
    again.job_started(ID, 2)
    assert again.get_job(ID) == Job(2, None)


def test_a_transfer_that_is_copied_here_has_no_job(ledger: Ledger) -> None:
    ledger.begin(ID, [item("", is_directory=True)], 42)
    assert ledger.find_job(ID) is None


def test_a_ledger_of_before_there_were_jobs_is_taken_up(tmp_path: Path, ledger: Ledger) -> None:
    ledger._connection.execute("DROP TABLE jobs")
    ledger.close()
    assert Ledger(tmp_path / "transfers.sqlite").find_job(ID) is None


def test_who_cancels_too_late_changes_nothing(ledger: Ledger) -> None:
    # Not even when the transfer was still being copied a moment ago: a source half removed would stay so.
    ledger.begin(ID, [], 1)
    ledger.ready(ID, [], 2)
    for step in (lambda: None, lambda: ledger.placed(ID), lambda: ledger.done(ID, b"receipt", 9)):
        step()
        before = ledger.get(ID)
        with pytest.raises(TransferError, match="too late"):
            ledger.cancel(ID, Problem(kind="CancelledError", message="cancelled"), 10)
        assert ledger.get(ID) == before
