from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ringfence_agent.kms.audit.config import AuditFormat, AuditSettings
from ringfence_agent.kms.audit.log import AuditLog
from ringfence_agent.kms.audit.reader import find_files
from ringfence_agent.kms.audit.record import Decision
from ringfence_zones.errors import ConfigError, StoreUnavailableError

DECISION = Decision("DECRYPT_EEK", "k", 0, "etl", None, None, "claimed", "10.0.0.7", 200, "ok", "r", 3)


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


class Clock:
    """Wall time that stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.25

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


Open = Callable[..., AuditLog]


@pytest.fixture
def open_log(tmp_path: Path, executor: Executor, clock: Clock) -> Iterator[Open]:
    """Opens logs in one directory; closes them at the end."""
    logs: list[AuditLog] = []

    def open_one(**changes: Any) -> AuditLog:
        settings = AuditSettings(directory=tmp_path / "audit", **{"sync_s": 60.0, **changes})
        logs.append(AuditLog(settings, 2, executor, clock))
        return logs[-1]

    yield open_one
    for log in logs:
        log.close()


def on_a_loop(work: Callable[[], Any]) -> Any:
    async def run() -> Any:
        outcome = work()
        return await outcome if isinstance(outcome, Awaitable) else outcome

    return asyncio.run(run())


def write(log: AuditLog, *keys: str) -> StoreUnavailableError | None:
    """Records one decision about each key, in one turn."""

    def turn() -> StoreUnavailableError | None:
        for key in keys:
            log.record(DECISION._replace(key=key))
        return log.commit()

    refusal: StoreUnavailableError | None = on_a_loop(turn)
    return refusal


def records(tmp_path: Path) -> list[dict[str, Any]]:
    return [record.fields for record in find_files([tmp_path / "audit"]).read()]


def keys(tmp_path: Path) -> list[str]:
    return [str(record["key"]) for record in records(tmp_path)]


def break_writes(monkeypatch: pytest.MonkeyPatch, code: int = errno.ENOSPC) -> None:
    def fail(_descriptor: int, _data: bytes) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", fail)


def test_a_turn_of_decisions_is_one_write_and_is_in_the_file_when_commit_returns(
    tmp_path: Path, open_log: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, sizes, write_to = open_log(), [], os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: sizes.append(len(data)) or write_to(descriptor, data))
    assert write(log, "a", "b", "c") is None
    assert len(sizes) == 1
    lines = records(tmp_path)
    assert [line["sequence"] for line in lines] == [1, 2, 3]
    assert lines[2] == {
        "time": "2023-11-14T22:13:20.250000Z",
        "sequence": 3,
        "slot": 2,
        "op": "DECRYPT_EEK",
        "key": "c",
        "version": 0,
        "user": "etl",
        "real_user": None,
        "identity": "claimed",
        "address": "10.0.0.7",
        "status": 200,
        "outcome": "ok",
        "rule": "r",
        "revision": 3,
    }


def test_a_write_that_fails_is_a_refusal_until_one_succeeds(
    tmp_path: Path, open_log: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = open_log()
    break_writes(monkeypatch)
    refusals = [write(log, "lost"), write(log, "lost too")]
    assert [str(refusal) for refusal in refusals] == ["the audit log cannot be written: No space left on device"] * 2
    with pytest.raises(StoreUnavailableError):
        log.require_writable()
    assert [entry.levelno for entry in caplog.records] == [logging.ERROR]
    monkeypatch.undo()
    assert write(log, "kept") is None
    log.require_writable()
    assert [(line["key"], line["sequence"]) for line in records(tmp_path)] == [("kept", 1)]
    assert log.state.lost == 2


def test_a_part_that_was_taken_is_cut_off_again(
    tmp_path: Path, open_log: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, write_to = open_log(), os.write
    write(log, "before")
    monkeypatch.setattr(os, "write", lambda descriptor, data: write_to(descriptor, data[:300]))
    refusal = write(log, "whole in the part", "torn")
    assert refusal is not None and "only a part was taken" in refusal.message
    monkeypatch.undo()
    write(log, "after")
    assert keys(tmp_path) == ["before", "after"]


def test_a_log_that_is_not_required_serves_on_counts_what_is_lost_and_says_so_once(
    tmp_path: Path, open_log: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = open_log(required=False)
    break_writes(monkeypatch)
    assert write(log, "a", "b") is None
    assert write(log, "c") is None
    on_a_loop(lambda: log.begin(DECISION))
    assert [entry.message for entry in caplog.records] == [
        f"the audit log in {tmp_path}/audit cannot be written: No space left on device;"
        " requests are served without a record"
    ]
    assert (log.state.lost, log.state.problem) == (4, "No space left on device")


def test_a_change_is_on_record_and_on_disk_before_it_is_begun(
    tmp_path: Path, open_log: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, synced = open_log(), []
    monkeypatch.setattr(os, "fdatasync", lambda _: synced.append(records(tmp_path)[-1]["outcome"]))
    on_a_loop(lambda: log.begin(DECISION, {"length": 256}))
    assert synced == ["begun"]
    assert records(tmp_path)[0]["status"] is None
    assert records(tmp_path)[0]["length"] == 256
    assert log.state.unsynced_s == 0.0 or log.state.unsynced_s >= 0.0


@pytest.mark.parametrize("broken", ["write", "fdatasync", "statvfs"])
def test_a_change_is_not_begun_when_its_record_is_not_safe(
    open_log: Open, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    log = open_log()

    def fail(*_: object) -> Any:
        if broken == "statvfs":
            return SimpleNamespace(f_bavail=1, f_frsize=4096)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(StoreUnavailableError, match="the audit log cannot be written"):
        on_a_loop(lambda: log.begin(DECISION))
    monkeypatch.undo()


def test_records_reach_the_disk_within_the_interval_and_a_disk_that_fails_is_a_refusal(
    tmp_path: Path, open_log: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(sync_s=0.01)
    answers = iter([OSError(errno.EIO, "Input/output error"), None, None, None, None])

    def sync(_: int) -> None:
        answer = next(answers)
        if answer is not None:
            raise answer

    monkeypatch.setattr(os, "fdatasync", sync)

    async def until(condition: Callable[[], bool]) -> None:
        for _ in range(1000):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(log.state)

    async def run() -> None:
        log.record(DECISION)
        assert log.commit() is None
        await until(lambda: log.state.problem is not None)
        log.record(DECISION)
        refusal = log.commit()
        assert refusal is not None and "does not reach the disk" in refusal.message
        await until(lambda: log.state.problem is None and log.state.unsynced_s == 0)
        assert log.commit() is None

    asyncio.run(run())
    assert len(records(tmp_path)) == 2
    assert log.state.syncs >= 1


def test_records_that_never_pause_are_synced_once_an_interval(open_log: Open, clock: Clock) -> None:
    interval_s = 0.05
    log = open_log(sync_s=interval_s)

    async def run() -> float:
        began_s = time.monotonic()
        while (passed_s := time.monotonic() - began_s) < 10 * interval_s:
            clock.now_s += 0.001
            log.record(DECISION)
            assert log.commit() is None
            await asyncio.sleep(0.001)
        return passed_s

    passed_s = asyncio.run(run())
    assert 1 <= log.state.syncs <= passed_s / interval_s + 1


def test_the_sequence_goes_on_after_a_restart_and_a_rotation(tmp_path: Path, open_log: Open) -> None:
    first = open_log()
    write(first, "a", "b")
    on_a_loop(first.rotate)
    first.close()
    second = open_log()
    write(second, "c")
    assert [(line["key"], line["sequence"]) for line in records(tmp_path)] == [("a", 1), ("b", 2), ("c", 3)]


def test_two_living_logs_never_share_a_file(tmp_path: Path, open_log: Open) -> None:
    logs = [open_log() for _ in range(3)]
    for number, log in enumerate(logs):
        write(log, f"k{number}")
    names = sorted(path.name for path in (tmp_path / "audit").glob("*.jsonl"))
    assert names == ["worker-0.jsonl", "worker-1.jsonl", "worker-2.jsonl"]
    logs[1].close()
    write(open_log(), "again")
    assert (tmp_path / "audit" / "worker-1.jsonl").read_text().count("\n") == 2


def test_a_file_past_its_size_is_put_aside_whole(tmp_path: Path, open_log: Open, clock: Clock) -> None:
    log = open_log(rotate_bytes=2000)
    for number in range(40):
        clock.now_s += 0.001
        write(log, f"k{number}")
    files = sorted((tmp_path / "audit").glob("worker-0.*.jsonl"))
    assert len(files) == 4
    assert all(2000 <= path.stat().st_size < 2400 for path in files)
    assert keys(tmp_path) == [f"k{number}" for number in range(40)]


def test_a_file_of_some_age_is_put_aside_and_an_empty_one_is_not(tmp_path: Path, open_log: Open, clock: Clock) -> None:
    log = open_log(rotate_s=3600.0)
    write(log, "old")
    for _ in range(3):
        clock.now_s += 3601
        on_a_loop(log.tick)
    write(log, "new")
    assert len(list((tmp_path / "audit").glob("worker-0.*.jsonl"))) == 1
    assert keys(tmp_path) == ["old", "new"]


def test_on_a_signal_a_file_that_was_moved_away_is_followed_by_a_new_one(tmp_path: Path, open_log: Open) -> None:
    log, path = open_log(), tmp_path / "audit" / "worker-0.jsonl"
    write(log, "a")
    path.rename(path.with_name("worker-0.jsonl-20261122"))
    write(log, "still the old file")
    on_a_loop(log.reopen)
    write(log, "b")
    assert path.read_text().count("\n") == 1
    on_a_loop(log.reopen)
    write(log, "c")
    assert len(list((tmp_path / "audit").glob("*jsonl*"))) == 3
    assert keys(tmp_path) == ["a", "still the old file", "b", "c"]


def test_a_directory_that_takes_no_new_file_is_written_on_in_the_old_one(
    tmp_path: Path, open_log: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, open_file = open_log(), os.open

    def refuse(path: Any, flags: int, mode: int = 0o777) -> int:
        if str(path).endswith("worker-0.jsonl"):
            raise OSError(errno.EMFILE, "Too many open files")
        return open_file(path, flags, mode)

    write(log, "a")
    monkeypatch.setattr(os, "open", refuse)
    on_a_loop(log.rotate)
    monkeypatch.undo()
    write(log, "b")
    assert [path.name for path in (tmp_path / "audit").glob("*.jsonl")] == ["worker-0.jsonl"]
    assert keys(tmp_path) == ["a", "b"]


@pytest.mark.parametrize(("limits", "kept"), [({"keep_files": 2}, 2), ({"keep_s": 3600.0}, 1), ({}, 4)])
def test_only_what_the_settings_say_is_deleted(
    tmp_path: Path, executor: Executor, clock: Clock, open_log: Open, limits: dict[str, Any], kept: int
) -> None:
    log = open_log(**limits)
    for number in range(4):
        clock.now_s += 1
        write(log, f"k{number}")
        if number == 3:
            for path in (tmp_path / "audit").glob("worker-0.*.jsonl"):
                os.utime(path, (1, 1))
        on_a_loop(log.rotate)
    executor.submit(lambda: None).result()
    write(log, "live")
    assert len(list((tmp_path / "audit").glob("worker-0.*.jsonl"))) == kept
    assert keys(tmp_path)[-1] == "live"


def test_nobody_but_the_service_and_its_group_reads_the_files(tmp_path: Path, open_log: Open) -> None:
    previous = os.umask(0)
    try:
        log = open_log(format=AuditFormat.BOTH)
    finally:
        os.umask(previous)
    write(log, "a")
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "audit").iterdir()} == {0o640}


def test_a_link_is_not_followed_and_a_directory_that_cannot_be_made_is_named(
    tmp_path: Path, open_log: Open, executor: Executor
) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "worker-0.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot open the audit file"):
        open_log()
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(ConfigError, match="cannot write audit files to") as caught:
        AuditLog(AuditSettings(directory=tmp_path / "no" / "such"), 0, executor)
    assert caught.value.command == f"install -d -m 0750 {tmp_path}/no/such"


def test_long_names_stay_neither_in_memory_nor_in_the_log(tmp_path: Path, open_log: Open) -> None:
    log = open_log()
    write(log, "first")
    tracemalloc.start()
    try:
        for number in range(20):
            write(log, str(number) + "n" * 1_000_000)
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 2_000_000
    assert max(map(len, keys(tmp_path))) < 3000
    assert keys(tmp_path)[-1].endswith("... (1000002 characters)")


def test_a_line_that_a_dead_machine_tore_is_ended_and_passed_over(tmp_path: Path, open_log: Open) -> None:
    log = open_log()
    write(log, "whole")
    log.close()
    path = tmp_path / "audit" / "worker-0.jsonl"
    with path.open("ab") as stream:
        stream.write(b'{"time":"2023-11-14T22:13:2')
    write(open_log(), "next")
    files = find_files([tmp_path / "audit"])
    assert [record.fields["key"] for record in files.read()] == ["whole", "next"]
    assert files.torn == 1
    assert json.loads(path.read_bytes().splitlines()[-1])["sequence"] == 2


def test_both_formats_are_written_and_one_may_stand_alone(tmp_path: Path, open_log: Open) -> None:
    log = open_log(format=AuditFormat.BOTH)
    write(log, "a")
    on_a_loop(lambda: log.begin(DECISION))
    log.close()
    assert len((tmp_path / "audit" / "worker-0.kms-audit.log").read_text().splitlines()) == 1
    assert len((tmp_path / "audit" / "worker-0.jsonl").read_text().splitlines()) == 2
    alone = open_log(format=AuditFormat.HADOOP)
    on_a_loop(lambda: alone.begin(DECISION))
    assert " BEGUN[op=DECRYPT_EEK, key=k, user=etl] \n" in (tmp_path / "audit" / "worker-0.kms-audit.log").read_text()
