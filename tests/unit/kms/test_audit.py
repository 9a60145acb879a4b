from __future__ import annotations

import asyncio
import json
import os
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ringfence_agent.kms.audit import AuditLog
from ringfence_zones.errors import ConfigError, StoreUnavailableError

LINE: dict[str, Any] = {
    "op": "GENERATE_EEK",
    "key": 'k"\n',
    "user": "hdfs",
    "identity": "claimed",
    "address": "127.0.0.1",
    "status": 200,
    "outcome": "ok",
    "revision": 3,
    "detail": {"count": 150},
}


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def record(log: AuditLog, **changes: Any) -> None:
    async def on_a_loop() -> None:
        log.record(**{**LINE, **changes})

    asyncio.run(on_a_loop())


def test_a_line_is_there_when_record_returns(tmp_path: Path, executor: Executor) -> None:
    log = AuditLog(tmp_path / "audit", 2, executor, 0.01, now_s=lambda: 1_700_000_000.25)
    record(log)
    assert json.loads((tmp_path / "audit").read_text()) == {
        "time": "2023-11-14T22:13:20.250Z",
        "slot": 2,
        "op": "GENERATE_EEK",
        "key": 'k"\n',
        "user": "hdfs",
        "identity": "claimed",
        "from": "127.0.0.1",
        "status": 200,
        "outcome": "ok",
        "revision": 3,
        "count": 150,
    }
    record(log, key=None, user=None, address=None, detail=None)
    assert json.loads((tmp_path / "audit").read_text().splitlines()[1])["user"] is None
    log.close()
    log.close()


def test_lines_of_several_workers_stay_whole(tmp_path: Path, executor: Executor) -> None:
    logs = [AuditLog(tmp_path / "audit", slot, executor, 0.01) for slot in range(4)]
    for number in range(200):
        record(logs[number % 4], key=f"k{number}")
    lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    assert [line["key"] for line in lines] == [f"k{number}" for number in range(200)]
    for log in logs:
        log.close()


def test_a_log_that_cannot_be_written_is_an_error(executor: Executor) -> None:
    log = AuditLog.__new__(AuditLog)
    with pytest.raises(ConfigError, match="not a regular file"):
        log.__init__(Path("/dev/full"), 0, executor, 0.01)  # type: ignore[misc]


def test_a_full_disk_is_an_error_and_not_a_lost_line(
    tmp_path: Path, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(tmp_path / "audit", 0, executor, 0.01)
    monkeypatch.setattr(os, "write", lambda _descriptor, data: len(data) - 1)
    with pytest.raises(StoreUnavailableError, match="only a part"):
        record(log)
    monkeypatch.undo()
    log.close()


def test_a_link_is_not_followed(tmp_path: Path, executor: Executor) -> None:
    (tmp_path / "audit").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError):
        AuditLog(tmp_path / "audit", 0, executor, 0.01)
    assert not (tmp_path / "elsewhere").exists()


def test_lines_are_synced_to_disk(tmp_path: Path, executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    async def record_and_wait() -> None:
        loop, synced = asyncio.get_running_loop(), asyncio.Event()
        monkeypatch.setattr(os, "fdatasync", lambda _: loop.call_soon_threadsafe(synced.set))
        log = AuditLog(tmp_path / "audit", 0, executor, 0.01)
        log.record(**LINE)
        await asyncio.wait_for(synced.wait(), 10)
        log.close()

    asyncio.run(record_and_wait())


def test_long_names_do_not_stay_in_memory(tmp_path: Path, executor: Executor) -> None:
    log = AuditLog(tmp_path / "audit", 0, executor, 60.0)
    record(log)
    tracemalloc.start()
    try:
        for number in range(20):
            record(log, key=str(number) + "n" * 1_000_000)
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 2_000_000
    log.close()


def test_a_line_after_a_torn_one_stands_alone(
    tmp_path: Path, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, write = AuditLog(tmp_path / "audit", 0, executor, 60.0), os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:30]))
    with pytest.raises(StoreUnavailableError, match="only a part"):
        record(log)
    monkeypatch.undo()
    record(log, key="whole")
    record(log, key="next")
    torn, *whole = (tmp_path / "audit").read_bytes().splitlines()
    assert len(torn) == 30
    assert [json.loads(line)["key"] for line in whole] == ["whole", "next"]
    log.close()
