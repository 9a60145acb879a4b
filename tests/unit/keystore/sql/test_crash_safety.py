"""kill -9 from outside: at every crash point (`crash_points`) of a creation and a change, and at random in storms."""

from __future__ import annotations

import os
import random
import select
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from crash_points import ANSWER_WAIT_S, distinct, kill_at, trace_points
from frozen_store import frozen_store
from local_stores import LocalStore, in_child, kill, material_of, new_key, read_all
from store_storm import WRITERS, check_acknowledged, storm

from ringfence_agent.keystore.interface import KeyStore
from ringfence_agent.keystore.rows.changes import WRITE_WAIT_S
from ringfence_zones.errors import KeyExistsError, RevisionConflictError


def numbered(tmp_path: Path, number: int) -> LocalStore:
    directory = tmp_path / str(number)
    directory.mkdir(mode=0o700)
    return LocalStore(directory)


def create_store(place: LocalStore) -> None:
    place.open().close()


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_creation_killed_at_any_point_is_completed_by_the_next_start(tmp_path: Path, every: bool) -> None:
    points = trace_points(create_store, numbered(tmp_path, -1))
    assert {"COMMIT", "os.link /.keys.db.new", "os.link /.keys.db.root-key.new"} < set(points)
    for number in range(len(points)) if every else distinct(points):
        place = numbered(tmp_path, number)
        kill_at(points, number, create_store, place)
        store = place.open()
        store.create_key(new_key("k"))
        store.close()
        assert sorted(path.name for path in place.directory.iterdir()) == ["keys.db", "keys.db.root-key"], points[
            number
        ]


def change_everything(store: KeyStore, acknowledge: Callable[[str], None]) -> None:
    """Each kind of change once, on a store that holds `old` and the tombstone `gone`."""
    store.create_key(new_key("new"))
    acknowledge("create")
    store.roll_key("old", material_of("old", 1))
    acknowledge("roll")
    store.delete_key("old")
    acknowledge("delete")
    store.create_key(new_key("gone", 1))
    acknowledge("recreate")
    store.publish_policy(0, b"{}", "root")
    acknowledge("publish")


def what_happened(store: KeyStore) -> list[str]:
    """Which of the changes the store holds, each of them whole."""
    versions = {metadata.name: metadata.versions for metadata in store.list_metadata()}
    for name in versions:
        found = store.find_key(name)
        assert found is not None
        for version in found.versions:
            assert version.material == material_of(name, version.version)
    happened = {
        "create": "new" in versions,
        "roll": versions.get("old") != 1,
        "delete": "old" not in versions,
        "recreate": versions.get("gone") == 2,
        "publish": store.find_policy() is not None,
    }
    return [change for change, done in happened.items() if done]


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_change_killed_at_any_point_is_wholly_there_or_not_at_all(tmp_path: Path, every: bool) -> None:
    def prepare(place: LocalStore) -> None:
        store = place.open()
        store.create_key(new_key("old"))
        store.create_key(new_key("gone"))
        store.delete_key("gone")
        store.close()

    def act(place: LocalStore) -> None:
        log = os.open(place.directory.with_suffix(".acknowledged"), os.O_WRONLY | os.O_CREAT, 0o600)
        store = place.open()
        change_everything(store, lambda change: os.write(log, f"{change}\n".encode()) and None)
        store.close()

    rehearsal = numbered(tmp_path, -1)
    prepare(rehearsal)
    points = trace_points(act, rehearsal)
    assert points.count("COMMIT") == 5
    order = ["create", "roll", "delete", "recreate", "publish"]
    seen: set[int] = set()
    for number in range(len(points)) if every else distinct(points):
        place = numbered(tmp_path, number)
        prepare(place)
        kill_at(points, number, act, place)
        log = place.directory.with_suffix(".acknowledged")
        acknowledged = log.read_text().split() if log.exists() else []
        store = place.open()
        happened = what_happened(store)
        assert happened == order[: len(happened)]
        assert len(acknowledged) <= len(happened) <= len(acknowledged) + 1, number
        seen.add(len(happened))
        store.close()
    assert seen == set(range(6))


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)])
def test_an_upgrade_killed_at_any_point_is_completed_by_the_next_start(tmp_path: Path, every: bool) -> None:
    def make(number: int) -> LocalStore:
        return frozen_store(numbered(tmp_path, number).directory)

    points = trace_points(create_store, make(-1))
    assert {"CREATE TABLE token_state", "PRAGMA user_version", "COMMIT"} < set(points)
    upgraded, numbers = 0, range(len(points)) if every else distinct(points)
    for number in numbers:
        place = make(number)
        kill_at(points, number, create_store, place)
        connection = sqlite3.connect(place.path)
        version, tables = connection.execute(
            "SELECT user_version, (SELECT count(*) FROM sqlite_schema WHERE type = 'table') FROM pragma_user_version"
        ).fetchone()
        connection.close()
        assert (version, tables) in ((1, 4), (2, 9)), number
        upgraded += version == 2
        store = place.open()
        assert store.next_sequence() == 1
        assert store.create_key(new_key("gone", 1)).name == "gone@1"
        store.close()
    assert 0 < upgraded < len(numbers)


@pytest.mark.parametrize("rounds", [8, pytest.param(100, marks=pytest.mark.long)])
def test_nothing_acknowledged_is_lost_when_writers_are_killed_in_a_storm(tmp_path: Path, rounds: int) -> None:
    place = LocalStore(tmp_path)
    place.open().close()
    lines: list[str] = []
    chance = random.Random(3)
    for _ in range(rounds):
        children = [in_child(lambda report, w=writer: storm(place, w, report)) for writer in range(WRITERS)]  # type: ignore[misc]
        ready, _, _ = select.select([read_end for _, read_end in children], [], [], ANSWER_WAIT_S)
        assert ready
        deadline = time.monotonic() + chance.uniform(0.02, 0.4)
        select.select([], [], [], max(0.0, deadline - time.monotonic()))
        for pid, _ in chance.sample(children, k=WRITERS):
            kill(pid)
        for _, read_end in children:
            lines += read_all(read_end)
        check_acknowledged(place, lines, WRITERS * rounds)
    assert len(lines) > 5 * rounds


def test_of_twenty_processes_that_create_one_key_exactly_one_succeeds(tmp_path: Path) -> None:
    place = LocalStore(tmp_path)
    gate_read, gate_write = os.pipe()

    def race(report: int) -> None:
        os.close(gate_write)
        store = place.open()  # the store itself is made by whoever comes first
        os.read(gate_read, 1)  # until the parent closes the gate
        try:
            version = store.create_key(new_key("k"))
        except KeyExistsError:
            os.write(report, b"exists\n")
        else:
            os.write(report, f"{version.name}\n".encode())
        store.close()

    children = [in_child(race) for _ in range(20)]
    os.close(gate_read)
    os.close(gate_write)
    answers = [line for _, read_end in children for line in read_all(read_end)]
    assert {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid, _ in children} == {0}
    assert sorted(answers) == ["exists"] * 19 + ["k@0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.db", "keys.db.root-key"]


def test_no_writer_of_four_starves(tmp_path: Path) -> None:
    place = LocalStore(tmp_path)
    place.open().close()
    each = 60

    def write(report: int) -> None:
        store = place.open()
        longest = 0.0
        for number in range(each):
            before = time.monotonic()
            store.create_key(new_key(f"{os.getpid()}-{number}"))
            longest = max(longest, time.monotonic() - before)
        os.write(report, f"{longest}\n".encode())
        store.close()

    children = [in_child(write) for _ in range(4)]
    longest = [float(line) for _, read_end in children for line in read_all(read_end)]
    assert {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid, _ in children} == {0}
    assert len(longest) == 4
    assert max(longest) < WRITE_WAIT_S
    store = place.open()
    assert len(store.list_metadata()) == 4 * each
    store.close()


def test_revisions_published_by_racing_processes_are_numbered_without_gap_or_loss(tmp_path: Path) -> None:
    place = LocalStore(tmp_path)
    place.open().close()

    def publish(report: int) -> None:
        store = place.open()
        done = 0
        while done < 10:
            current = store.find_policy()
            try:
                made = store.publish_policy(current.revision if current else 0, b"{}", str(os.getpid()))
            except RevisionConflictError:
                continue
            os.write(report, f"{made.revision}\n".encode())
            done += 1
        store.close()

    children = [in_child(publish) for _ in range(3)]
    revisions = [int(line) for _, read_end in children for line in read_all(read_end)]
    assert {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid, _ in children} == {0}
    assert sorted(revisions) == list(range(1, 31))


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_killed_process_leaves_its_log_and_the_next_start_folds_it_in(tmp_path: Path, suffix: str) -> None:
    place = LocalStore(tmp_path)

    def write(report: int) -> None:
        store = place.open()
        store.create_key(new_key("k"))
        os.write(report, b"k\n")
        signal.pause()

    pid, read_end = in_child(write)
    assert os.read(read_end, 10) == b"k\n"
    kill(pid)
    os.close(read_end)
    side_file = place.path.with_name(place.path.name + suffix)
    assert side_file.exists()
    assert side_file.stat().st_mode & 0o777 == 0o600
    store = place.open()
    assert store.find_key("k") is not None
    store.close()
    assert not side_file.exists()


@pytest.mark.parametrize("die", [True, False])
def test_a_process_that_comes_and_goes_does_not_disturb_those_that_stay(tmp_path: Path, die: bool) -> None:
    place = LocalStore(tmp_path)

    def stay(report: int) -> None:
        store = place.open()
        for number in range(6):
            pid, read_end = in_child(come_and_go)
            assert os.read(read_end, 10) == b"done\n"
            if die:
                kill(pid)
            else:
                os.waitpid(pid, 0)
            os.close(read_end)
            store.create_key(new_key(f"k{number}"))
            assert len(store.list_metadata()) == 2 * (number + 1)
        store.close()
        os.write(report, b"whole\n")

    def come_and_go(report: int) -> None:
        store = place.open()
        store.create_key(new_key(f"other{os.getpid()}"))
        if not die:
            store.close()
        os.write(report, b"done\n")
        if die:
            signal.pause()

    pid, read_end = in_child(stay)
    assert read_all(read_end) == ["whole"]
    os.waitpid(pid, 0)
