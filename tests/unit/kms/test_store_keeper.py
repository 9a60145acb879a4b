"""What a worker does so that the store is not lost: backups after changes, verification, the high-water mark."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from local_stores import LocalStore, in_child, kill, new_key, read_all

from ringfence_agent.keystore.backup.directory import DirectoryPlace
from ringfence_agent.keystore.backup.high_water import Mark, find_mark, put_mark
from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.kms.keeping_config import KeepingSettings
from ringfence_agent.kms.store_keeper import StoreKeeper
from ringfence_agent.kms.store_record import StoreRecord

DEADLINE_S = 20.0


@dataclass
class Bench:
    """A store, a record, and one worker's keeper after another."""

    directory: Path
    place: LocalStore
    store: OpenStore
    record: StoreRecord = field(default_factory=StoreRecord)
    counted: Counter[str] = field(default_factory=Counter)
    check_s: float = 300.0

    @property
    def backups(self) -> Path:
        return self.directory / "backups"

    @property
    def audit(self) -> Path:
        return self.directory / "audit"

    def keeper(self, executor: ThreadPoolExecutor, *, backs_up: bool = True) -> StoreKeeper:
        settings = KeepingSettings(backup=None, check_s=self.check_s, tombstone_s=1.0, mark_directory=self.audit)
        place = DirectoryPlace(self.backups) if backs_up else None
        return StoreKeeper(self.store, self.record, settings, place, executor, count=self.count)

    def count(self, name: str) -> None:
        self.counted[name] += 1

    def run(self, act: Callable[[StoreKeeper], Coroutine[Any, Any, None]], *, backs_up: bool = True) -> None:
        """`act` beside a keeper that keeps."""

        async def both() -> None:
            with ThreadPoolExecutor(1) as executor:
                keeper = self.keeper(executor, backs_up=backs_up)
                task = asyncio.create_task(keeper.run())
                try:
                    await asyncio.wait_for(act(keeper), DEADLINE_S)
                finally:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)

        asyncio.run(both())

    def made(self) -> list[int]:
        """The change numbers of the backups that are there."""
        return sorted(int(path.name.split("-")[2]) for path in self.backups.glob("*.rfbackup"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    for name in ("store", "backups", "audit"):
        (tmp_path / name).mkdir(mode=0o700)
    place = LocalStore(tmp_path / "store")
    with closing(place.open()) as store:
        store.create_key(new_key("k"))
        yield Bench(tmp_path, place, store)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 -- what is waited for happens in another thread
        await asyncio.sleep(0.01)


def test_what_was_not_backed_up_when_the_server_starts_is_so_at_once(bench: Bench) -> None:
    bench.run(lambda keeper: until(lambda: bench.made() == [1]))
    assert bench.record.backup_number == 1
    assert bench.record.behind_since_ms == 0
    assert bench.record.backup_place.endswith(".rfbackup")


def test_a_change_is_backed_up_at_once_and_a_few_share_one_backup(bench: Bench) -> None:
    async def act(keeper: StoreKeeper) -> None:
        await until(lambda: bench.made() == [1])
        for _ in range(5):
            bench.store.roll_key("k", None)
            keeper.note_change()
        assert bench.record.behind_since_ms
        await until(lambda: bench.made()[-1] == 6 and not bench.record.behind_since_ms)

    bench.run(act)
    assert len(bench.made()) <= 4
    assert bench.counted["backups"] == len(bench.made())


def test_another_worker_does_not_back_up_what_one_has(bench: Bench) -> None:
    bench.run(lambda keeper: until(lambda: bench.made() == [1]))

    async def act(keeper: StoreKeeper) -> None:
        keeper.note_change()
        await until(lambda: not bench.record.behind_since_ms)

    bench.run(act)
    assert bench.made() == [1]


def test_another_instance_does_not_back_up_what_one_has(bench: Bench) -> None:
    bench.run(lambda keeper: until(lambda: bench.made() == [1]))
    bench.record = StoreRecord()
    bench.run(lambda keeper: until(lambda: bench.record.backup_number == 1))
    assert bench.made() == [1]


def test_a_change_of_the_last_moment_is_backed_up_before_the_worker_goes(bench: Bench) -> None:
    async def act() -> None:
        with ThreadPoolExecutor(1) as executor:
            keeper = bench.keeper(executor)
            keeper.note_change()
            await keeper.close()

    asyncio.run(act())
    assert bench.made() == [1]


def test_a_backup_that_fails_is_told_and_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringfence_agent.kms.store_keeper._RETRY_S", 0.05)
    monkeypatch.setattr("ringfence_agent.kms.store_keeper._TICK_S", 0.05)
    shutil.rmtree(bench.backups)

    async def act(keeper: StoreKeeper) -> None:
        await until(lambda: bench.counted["backup_failures"] > 1)
        told = keeper.describe_backup()
        assert told is not None
        assert "No such file or directory" in told["problem"]
        assert told["newest"] is None
        assert told["behind_s"] > 0
        bench.backups.mkdir()
        await until(lambda: bench.record.backup_number == 1)
        told = keeper.describe_backup()
        assert told is not None
        assert (told["problem"], told["behind_s"], told["change_number"]) == (None, 0, 1)
        assert told["age_s"] < DEADLINE_S

    bench.run(act)


def test_the_event_loop_is_never_held_up(bench: Bench) -> None:
    for number in range(400):
        bench.store.create_key(new_key(f"k{number}"))

    async def act(keeper: StoreKeeper) -> None:
        longest, last = 0.0, time.monotonic()
        while not bench.made():
            await asyncio.sleep(0)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        assert longest < 0.5

    bench.run(act)


def test_how_far_the_store_was_seen_is_noted_without_backups_too(bench: Bench) -> None:
    def number() -> int:
        mark = find_mark(bench.audit, bench.store.store_id)
        return -1 if mark is None else mark.change_number

    async def act(keeper: StoreKeeper) -> None:
        await until(lambda: number() == 1)
        bench.store.roll_key("k", None)
        keeper.note_change()
        await until(lambda: number() == 2)
        assert keeper.describe_backup() is None

    bench.run(act, backs_up=False)
    assert bench.made() == []


def test_a_store_that_was_put_back_while_nobody_served_it_is_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    put_mark(bench.audit, bench.store.store_id, Mark(4, 1))

    async def act(keeper: StoreKeeper) -> None:
        await until(lambda: bench.record.missing_changes == 3)
        assert any("lacks 3 changes" in risk for risk in keeper.list_risks())
        for _ in range(3):
            bench.store.roll_key("k", None)
        keeper.note_change()
        await until(lambda: bench.record.missing_changes == 0)
        assert keeper.list_risks() == []

    bench.run(act, backs_up=False)
    assert [record.message for record in caplog.records if "lacks 3 changes" in record.message]


def alter(bench: Bench, statement: str) -> None:
    with closing(sqlite3.connect(bench.place.path)) as connection:
        connection.execute(statement)
        connection.commit()


def test_a_row_put_back_is_noticed_and_trusted_again_once_repaired(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ringfence_agent.kms.store_keeper._TICK_S", 0.05)
    bench.check_s = 0.05
    shutil.copy(bench.place.path, bench.directory / "kept.db")

    async def act(keeper: StoreKeeper) -> None:
        await until(lambda: bench.record.checked_ms > 0)
        assert bench.record.find_distrust() is None
        alter(bench, "CREATE TABLE aside AS SELECT * FROM key_version")
        await until(lambda: bench.record.find_distrust() is not None)
        assert keeper.describe_check()["problem"]
        assert keeper.gauges()["store_genuine"][1] == 0
        alter(bench, "DROP TABLE aside")
        await until(lambda: bench.record.find_distrust() is None)
        alter(bench, "DELETE FROM key_version")
        await until(lambda: bench.record.find_distrust() is not None)

    bench.run(act)
    said = [record.message for record in caplog.records if record.levelname == "CRITICAL"]
    assert len(said) == 2
    assert all(text.startswith("NO KEY IS SERVED") for text in said)
    assert bench.counted["store_check_failures"] >= 2


def test_a_store_that_cannot_be_read_is_no_verdict(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringfence_agent.kms.store_keeper._TICK_S", 0.02)
    bench.check_s = 0.02
    checked = bench.record.checked_ms

    async def act(keeper: StoreKeeper) -> None:
        await until(lambda: bench.record.checked_ms > checked)
        aside = bench.place.path.with_suffix(".aside")
        bench.place.path.rename(aside)
        since = bench.record.checked_ms
        looked = time.monotonic() + 0.5
        await until(lambda: time.monotonic() > looked)
        assert bench.record.find_distrust() is None
        assert bench.record.checked_ms <= since + 100
        aside.rename(bench.place.path)
        await until(lambda: bench.record.checked_ms > since + 100)

    bench.run(act)


def test_one_process_at_a_time_holds_the_record(tmp_path: Path) -> None:
    record = StoreRecord()

    def hold(report: int) -> None:
        with record.held():
            os.write(report, b"held\n")
            time.sleep(0.3)
            os.write(report, f"{time.monotonic()}\n".encode())

    _, read_end = in_child(hold)
    assert os.read(read_end, 100) == b"held\n"
    with record.held():
        taken = time.monotonic()
    assert taken >= float(read_all(read_end)[0])


def test_a_process_that_is_killed_lets_go_of_the_record() -> None:
    record = StoreRecord()

    def hold(report: int) -> None:
        with record.held():
            os.write(report, b"held\n")
            signal.pause()

    pid, read_end = in_child(hold)
    assert os.read(read_end, 100) == b"held\n"
    kill(pid)
    os.close(read_end)
    with record.held():
        pass


def test_what_one_process_notes_all_know(tmp_path: Path) -> None:
    record = StoreRecord()

    def note(report: int) -> None:
        record.note_distrust("röws were swapped " + "x" * 5000, 7)
        record.note_backup(12, 34, "s3://b/k")
        os.write(report, b"done\n")

    _, read_end = in_child(note)
    assert read_all(read_end) == ["done"]
    why = record.find_distrust()
    assert why is not None
    assert why.startswith("röws were swapped x")
    assert len(why.encode()) < 2048
    assert (record.distrusted_ms, record.backup_number, record.backup_ms, record.backup_place) == (
        7,
        12,
        34,
        "s3://b/k",
    )
    record.note_distrust("again", 9)
    assert (record.distrusted_ms, record.find_distrust()) == (7, "again")
    record.note_genuine(10)
    assert (record.find_distrust(), record.checked_ms) == (None, 10)


def test_work_is_taken_by_one_and_due_again_later() -> None:
    now = 100.0
    record = StoreRecord(lambda: now)
    assert record.take_check(5.0)
    assert not record.take_check(5.0)
    now += 5.1
    assert record.take_check(5.0)
    record.retry_check_in(1.0)
    now += 1.1
    assert record.take_check(5.0)


def test_a_keeper_that_is_stopped_in_the_turn_of_a_change_stops(bench: Bench) -> None:
    async def stop_after_a_change() -> None:
        with ThreadPoolExecutor(1) as executor:
            keeper = bench.keeper(executor)
            task = asyncio.create_task(keeper.run())
            for _ in range(10):
                await asyncio.sleep(0)  # so that it waits for the next change
            keeper.note_change()
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=DEADLINE_S)
            assert done == {task} and task.cancelled()

    asyncio.run(stop_after_a_change())
