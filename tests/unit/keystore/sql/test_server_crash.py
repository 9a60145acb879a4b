"""kill -9 of key servers and of the database server under load: nothing acknowledged is lost, and all goes on."""

from __future__ import annotations

import os
import random
import select
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from databases import DatabaseServer, running_mariadb, running_postgresql
from local_stores import in_child, kill, new_key, read_all
from lockbox import Lockbox, LockboxProtector
from shared_store import SharedStore
from store_storm import WRITERS, check_acknowledged, move_to_and_fro, storm, stubborn_storm

from ringfence_agent.keystore.open import open_protected
from ringfence_agent.keystore.protector import Protectors
from ringfence_agent.keystore.sql.store import SqlKeyStore
from ringfence_zones.errors import KeyExistsError

KINDS = ["postgresql", pytest.param("mariadb", marks=pytest.mark.long)]
ANSWER_WAIT_S = 30.0


@pytest.fixture(scope="module", params=KINDS)
def own_server(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    """A server that a test may kill."""
    with {"postgresql": running_postgresql, "mariadb": running_mariadb}[request.param]() as running:
        yield running


@pytest.fixture
def shared(own_server: DatabaseServer, tmp_path: Path) -> Iterator[SharedStore]:
    uri = own_server.new_database()
    place = SharedStore(own_server, uri, tmp_path)
    place.open(init=True).close()
    yield place
    own_server.recycle(uri)


def wait_s(seconds: float) -> None:
    select.select([], [], [], seconds)


@pytest.mark.parametrize("rounds", [3, pytest.param(30, marks=pytest.mark.long)])
def test_nothing_acknowledged_is_lost_when_key_servers_are_killed(shared: SharedStore, rounds: int) -> None:
    lines: list[str] = []
    chance = random.Random(5)
    for _ in range(rounds):
        children = [in_child(lambda report, w=writer: storm(shared, w, report)) for writer in range(WRITERS)]  # type: ignore[misc]
        silent = {read_end for _, read_end in children}
        while silent:  # each has had something acknowledged, however busy the machine is
            spoke = select.select(list(silent), [], [], ANSWER_WAIT_S)[0]
            assert spoke
            silent -= set(spoke)
        wait_s(chance.uniform(0.05, 0.5))
        for pid, _ in chance.sample(children, k=WRITERS):
            kill(pid)
        for _, read_end in children:
            lines += read_all(read_end)
        check_acknowledged(shared, lines, WRITERS * rounds)
    assert len(lines) >= WRITERS * rounds


@dataclass
class MovingStore:
    """A shared store whose handles have a lockbox as well."""

    shared: SharedStore
    box: Lockbox

    @property
    def root_key(self) -> Path:
        return self.shared.root_key

    def open(self) -> SqlKeyStore:
        protectors = Protectors(others=(LockboxProtector(self.box),))
        return open_protected(self.shared.uri, self.root_key, False, self.shared.server.password_file, protectors)


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.long)])
def test_a_store_moves_to_and_fro_under_killed_writers_and_movers(shared: SharedStore, rounds: int) -> None:
    place = MovingStore(shared, Lockbox(key=b"k" * 32))
    box = LockboxProtector(place.box)
    lines: list[str] = []
    for number in range(rounds):
        writers = [in_child(lambda report, w=writer: storm(place, w, report)) for writer in range(2)]  # type: ignore[misc]
        mover = in_child(lambda report, n=number: move_to_and_fro(place, box, report, first=n % 2 == 0))  # type: ignore[misc]
        silent = {read_end for _, read_end in (mover, *writers)}
        while silent:
            spoke = select.select(list(silent), [], [], ANSWER_WAIT_S)[0]
            assert spoke
            silent -= set(spoke)
        wait_s(0.3)
        for pid, _ in (mover, *writers):
            kill(pid)
        os.close(mover[1])
        for _, read_end in writers:
            lines += read_all(read_end)
        check_acknowledged(place, lines, 2 * (number + 1))
    store = place.open()
    store.slots.protect_with(box)
    store.slots.rewrap()
    assert [use.versions > 0 for use in store.slots.describe()] == [False, True]
    store.close()
    check_acknowledged(place, lines, 2 * rounds)


@pytest.mark.parametrize("rounds", [2, pytest.param(10, marks=pytest.mark.long)])
def test_nothing_acknowledged_is_lost_when_the_database_is_killed_and_writers_go_on(
    shared: SharedStore, rounds: int
) -> None:
    children = [in_child(lambda report, w=writer: stubborn_storm(shared, w, report)) for writer in range(WRITERS)]  # type: ignore[misc]
    try:
        for _, read_end in children:
            os.set_blocking(read_end, False)
        text = {read_end: b"" for _, read_end in children}
        for _ in range(rounds):
            gather(text, until=b"live")
            shared.server.kill()
            gather(text, until=b"unavailable")
            shared.server.start()
            gather(text, until=b"live")
    finally:
        for pid, _ in children:
            kill(pid)
    for read_end in text:
        os.set_blocking(read_end, True)
    lines = [line for read_end in text for line in (text[read_end].decode() + "\n".join(rest(read_end))).split("\n")]
    acknowledged = [line for line in lines if line.count(" ") == 2]
    unavailable = lines.count("unavailable")
    assert unavailable >= WRITERS * rounds
    check_acknowledged(shared, acknowledged, unavailable + WRITERS)


def rest(read_end: int) -> list[str]:
    return [*read_all(read_end), ""]


def gather(text: dict[int, bytes], until: bytes) -> None:
    """Reads on until every writer has said a new line with this word."""
    start = {read_end: len(said) for read_end, said in text.items()}
    deadline = time.monotonic() + ANSWER_WAIT_S
    while any(until not in said[start[read_end] :] for read_end, said in text.items()):
        assert time.monotonic() < deadline, f"no writer said {until!r}"
        for read_end in select.select(list(text), [], [], 0.5)[0]:
            text[read_end] += os.read(read_end, 1 << 16)


def test_of_twenty_processes_that_create_one_key_exactly_one_succeeds(shared: SharedStore) -> None:
    gate_read, gate_write = os.pipe()

    def race(report: int) -> None:
        os.close(gate_write)
        store = shared.open()
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
