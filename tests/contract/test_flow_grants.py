"""Grants in a flow memory on each engine: who may, until when, whoever wrote what into the table."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flow_memories import STORE_ID, Clock, Open, ask, issue, opening, settle
from sql_places import SqlPlace

from ringfence_agent.flow import grants as grants_module
from ringfence_agent.flow.grants import DELETED, KEPT_MS, FlowGrant
from ringfence_agent.flow.memory import FlowMemory
from ringfence_agent.flow.place import open_flow_memory
from ringfence_agent.flow.sessions import client_session, session_digest, token_session
from ringfence_zones.flow_labels import Crossing, Kind
from ringfence_zones.grants import Grant
from ringfence_zones.secret import Secret

HOUR_MS = 3_600_000
ALICE = session_digest(client_session("alice", None, "10.0.0.7"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_memory(sql_place: SqlPlace, clock: Clock) -> Iterator[Open]:
    with opening(sql_place.uri, sql_place.password_file, clock) as open_one:
        yield open_one


@pytest.fixture
def memory(open_memory: Open) -> FlowMemory:
    return open_memory()


def grant_of(clock: Clock, **changes: Any) -> FlowGrant:
    keys = {name: changes.pop(name, name[0]) for name in ("source", "target")}
    made = Grant(
        id="g", user="alice", source="/data/s", target="/data/t", token=None, address="10.0.0.7", real_user=None,
        purpose="p", approver="a", granted_by="uid 0", created_ms=clock.ms, not_after_ms=clock.ms + HOUR_MS,
    )  # fmt: skip
    return FlowGrant(replace(made, **changes), keys["source"], keys["target"])


def read(memory: FlowMemory, zone: str, session: bytes = ALICE, user: str = "alice") -> object:
    """What comes of a read, with the grants that it took."""
    (answer,) = settle(memory, ask(memory, zone, None, session, user=user))
    return answer.crossing or (answer.admitted.ids if answer.admitted else ())


def write(memory: FlowMemory, zone: str, session: bytes = ALICE, user: str = "alice") -> object:
    (iv,) = issue(memory, zone)
    (answer,) = settle(memory, ask(memory, zone, iv, session, user=user))
    assert answer.kind is Kind.WRITE
    return answer.crossing or (answer.admitted.ids if answer.admitted else ())


@pytest.mark.parametrize("order", ["source first", "target first"])
def test_it_admits_its_session_in_either_order(memory: FlowMemory, open_memory: Open, clock: Clock, order: str) -> None:
    memory.grants.create(grant_of(clock))
    other = open_memory()
    if order == "source first":
        assert (read(memory, "s"), write(other, "t")) == ((), ("g",))
    else:
        assert (write(memory, "t"), read(other, "s")) == ((), ("g",))


def test_it_admits_nobody_else_nothing_else_and_not_back(memory: FlowMemory, clock: Clock) -> None:
    memory.grants.create(grant_of(clock))
    elsewhere = session_digest(client_session("alice", None, "10.0.0.8"))
    through = session_digest(client_session("alice", "oozie", "10.0.0.7"))
    for session, user in ((elsewhere, "alice"), (through, "alice"), (ALICE, "bob")):
        assert read(memory, "s", session, user) == ()
        assert write(memory, "t", session, user) == Crossing("s", "t", Kind.WRITE)
    assert write(memory, "u") == Crossing("s", "u", Kind.WRITE)
    assert write(memory, "t") == ("g",)
    assert read(memory, "t") == ()
    assert write(memory, "s") == Crossing("t", "s", Kind.WRITE)


def test_every_pair_of_labels_needs_its_own_grant(memory: FlowMemory, clock: Clock) -> None:
    memory.grants.create(grant_of(clock))
    assert (read(memory, "s"), read(memory, "x")) == ((), ())
    assert write(memory, "t") == Crossing("x", "t", Kind.WRITE)
    memory.grants.create(grant_of(clock, id="h", source="x"))
    assert write(memory, "t") == ("g", "h")


def test_one_for_a_token_is_for_that_token(memory: FlowMemory, clock: Clock) -> None:
    memory.grants.create(grant_of(clock, token=7, address=None))
    mine, other = (session_digest(token_session(number)) for number in (7, 8))
    for session in (mine, other):
        assert read(memory, "s", session) == ()
    assert write(memory, "t", mine) == ("g",)
    assert write(memory, "t", other) == Crossing("s", "t", Kind.WRITE)
    assert memory.grants.live_tokens() == {7}


def test_ended_it_admits_nothing_and_its_labels_hold(memory: FlowMemory, open_memory: Open, clock: Clock) -> None:
    memory.grants.create(grant_of(clock))
    assert (read(memory, "s"), write(memory, "t")) == ((), ("g",))
    ended = open_memory().grants.end("g", DELETED)
    assert ended is not None
    assert (ended.grant.ended_ms, ended.grant.ended_by) == (clock.ms, "deleted")
    assert read(memory, "s") == Crossing("s", "t", Kind.READ)
    assert write(memory, "t") == Crossing("s", "t", Kind.WRITE)
    assert memory.grants.end("g", DELETED) == ended
    assert memory.grants.create(grant_of(clock)) == ended
    assert memory.grants.end("never", DELETED) is None


def test_its_time_ends_it_whether_anybody_wrote_that_down_or_not(memory: FlowMemory, clock: Clock) -> None:
    memory.grants.create(grant_of(clock))
    assert read(memory, "s") == ()
    clock.ms += HOUR_MS - 1
    assert read(memory, "s") == ()
    assert write(memory, "t") == ("g",)
    assert memory.grants.end_due(()) == []
    clock.ms += 1
    assert write(memory, "t") == Crossing("s", "t", Kind.WRITE)
    (ended,) = memory.grants.end_due(())
    assert ended.grant.ended_by == "time"
    assert memory.grants.end_due(()) == []


def test_of_those_who_look_at_once_one_ends_it(open_memory: Open, clock: Clock) -> None:
    open_memory().grants.create(grant_of(clock, token=7, address=None))
    memories = [open_memory() for _ in range(4)]
    barrier, found = threading.Barrier(4), []

    def run(memory: FlowMemory) -> None:
        barrier.wait()
        found.extend(memory.grants.end_due({7}))

    threads = [threading.Thread(target=run, args=(memory,)) for memory in memories]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.grant.ended_by for each in found] == ["token"]


def test_one_that_this_store_did_not_write_admits_nothing(
    sql_place: SqlPlace, memory: FlowMemory, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    forger = open_flow_memory(sql_place.uri, sql_place.password_file, STORE_ID, Secret(b"f" * 32), clock)
    try:
        forger.grants.create(grant_of(clock))
    finally:
        forger.close()
    assert read(memory, "s") == ()
    assert write(memory, "t") == Crossing("s", "t", Kind.WRITE)
    assert memory.grants.list_kept() == []
    assert "not one that this key store wrote" in caplog.text


def test_one_whose_columns_were_changed_admits_no_other_session(memory: FlowMemory, clock: Clock) -> None:
    memory.grants.create(grant_of(clock))
    memory.grants.end("g", DELETED)
    bob = session_digest(client_session("alice", None, "10.0.0.8"))
    table = memory.grants._table
    with memory._session.transaction(memory._sql.lock) as transaction:
        transaction.connection.execute(table.update().values(ended_ms=0))
    assert read(memory, "s") == ()
    assert write(memory, "t") == Crossing("s", "t", Kind.WRITE)
    memory.grants.create(grant_of(clock, id="h"))
    with memory._session.transaction(memory._sql.lock) as transaction:
        transaction.connection.execute(table.update().values(session=bob))
    assert read(memory, "s", bob) == ()
    assert write(memory, "t", bob) == Crossing("s", "t", Kind.WRITE)


def test_only_so_many_are_kept_and_old_ones_are_forgotten(
    memory: FlowMemory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants_module, "MAX_GRANTS", 2)
    for name in ("one", "two"):
        assert memory.grants.create(grant_of(clock, id=name)) is not None
    assert memory.grants.create(grant_of(clock, id="three")) is None
    memory.grants.end("one", DELETED)
    assert memory.grants.create(grant_of(clock, id="three")) is None
    clock.ms += KEPT_MS + 1
    assert memory.grants.create(grant_of(clock, id="three")) is not None
    assert [each.grant.id for each in memory.grants.list_kept()] == ["three", "two"]
