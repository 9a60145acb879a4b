"""The lease book on each engine: one holder, whoever asks and however many, by the place's own time."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from databases import DatabaseServer, database_of
from sql_places import SqlPlace
from sqlalchemy import Connection

from ringfence_agent.keystore.beside import beside
from ringfence_agent.leases import book as book_module
from ringfence_agent.leases.book import LeaseBook
from ringfence_agent.leases.place import SUFFIX, open_lease_book
from ringfence_agent.leases.terms import MARGIN_MS, Instant
from ringfence_zones.errors import InputError, LeaseHeldError, StoreTamperedError, UnsupportedByStoreError

TAKERS = 20
TTL_MS = 60_000


@pytest.fixture
def open_book(sql_place: SqlPlace) -> Iterator[Callable[[], LeaseBook]]:
    opened: list[LeaseBook] = []

    def open_one() -> LeaseBook:
        opened.append(open_lease_book(sql_place.uri, sql_place.password_file))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.fixture
def book(open_book: Callable[[], LeaseBook]) -> LeaseBook:
    return open_book()


def test_of_many_that_ask_at_once_one_gets_it(open_book: Callable[[], LeaseBook]) -> None:
    # Nobody made the book before: whoever comes first makes it, and the others use the same.
    barrier = threading.Barrier(TAKERS)
    taken: list[str] = []
    told: list[str] = []
    failed: list[BaseException] = []

    def run(holder: str) -> None:
        barrier.wait()
        try:
            book = open_book()
            barrier.wait()
            taken.append(book.take("agent", holder, TTL_MS).holder)
        except LeaseHeldError as error:
            told.append(error.holder)
        except BaseException as error:  # noqa: BLE001 -- told below
            failed.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(f"taker-{number}",)) for number in range(TAKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(taken) == 1
    assert told == taken * (TAKERS - 1)


def test_its_holder_renews_it_through_whichever_server(book: LeaseBook, open_book: Callable[[], LeaseBook]) -> None:
    first = book.take("agent", "one", TTL_MS)
    assert open_book().take("agent", "one", TTL_MS).epoch == first.epoch
    with pytest.raises(LeaseHeldError) as caught:
        open_book().take("agent", "two", TTL_MS)
    assert (caught.value.holder, caught.value.lease_name) == ("one", "agent")
    assert 0 < caught.value.left_s <= (TTL_MS + MARGIN_MS) / 1000
    assert book.take("other", "two", TTL_MS).holder == "two"


def test_it_is_given_back_by_its_holder_alone(book: LeaseBook) -> None:
    assert book.give_back("agent", "one") is None
    first = book.take("agent", "one", TTL_MS)
    with pytest.raises(LeaseHeldError):
        book.give_back("agent", "two")
    book.give_back("agent", "one")
    found = book.find("agent")
    assert found is not None
    assert (found[0].holder, found[1]) == ("", 0)
    assert book.take("agent", "two", TTL_MS).epoch == first.epoch + 1


def test_when_its_time_is_over_somebody_else_gets_it(book: LeaseBook) -> None:
    asked_s = time.monotonic()
    first = book.take("agent", "one", 300)
    taken_s = time.monotonic()
    while True:
        try:
            second = book.take("agent", "two", TTL_MS)
            break
        except LeaseHeldError as error:
            assert time.monotonic() < taken_s + 60
            time.sleep(max(error.left_s, 0.01))
    assert time.monotonic() - asked_s >= (300 + MARGIN_MS) / 1000
    assert second.epoch == first.epoch + 1
    with pytest.raises(LeaseHeldError):
        book.take("agent", "one", 300)


def test_it_outlives_whoever_has_the_book_open(sql_place: SqlPlace) -> None:
    for holder, is_taken in (("one", True), ("two", False)):
        book = open_lease_book(sql_place.uri, sql_place.password_file)
        try:
            if is_taken:
                book.take("agent", holder, TTL_MS)
            else:
                with pytest.raises(LeaseHeldError):
                    book.take("agent", holder, TTL_MS)
        finally:
            book.close()


def test_where_the_place_has_another_clock_the_holder_gets_its_time_again(
    book: LeaseBook, open_book: Callable[[], LeaseBook]
) -> None:
    book.take("agent", "one", 5_000)
    later = open_book()
    # As after a restart of the machine: the clock begins anew.
    later._clock = lambda _connection: Instant(b"another", 7)
    with pytest.raises(LeaseHeldError) as caught:
        later.take("agent", "two", 5_000)
    assert caught.value.left_s == (5_000 + MARGIN_MS) / 1000
    later._clock = lambda _connection: Instant(b"another", 7 + 5_000 + MARGIN_MS)
    assert later.take("agent", "two", 5_000).holder == "two"


def test_the_places_clock_is_one_for_all_and_goes_on(book: LeaseBook, open_book: Callable[[], LeaseBook]) -> None:
    def now(of: LeaseBook) -> Instant:
        read: list[Instant] = []

        def keep(connection: Connection) -> Instant:
            read.append(clock(connection))
            return read[-1]

        clock, of._clock = of._clock, keep
        of.take("agent", "one", TTL_MS)
        of._clock = clock
        return read[0]

    before, after = now(book), now(open_book())
    assert before.clock == after.clock
    assert 0 <= after.ms - before.ms < 60_000


def test_only_so_many_are_kept(book: LeaseBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "MAX_LEASES", 2)
    book.take("one", "x", TTL_MS)
    book.take("two", "x", TTL_MS)
    with pytest.raises(InputError, match="2 leases already"):
        book.take("three", "x", TTL_MS)
    assert book.take("two", "x", TTL_MS).holder == "x"


def test_a_book_that_somebody_emptied_gives_no_lease(
    sql_place: SqlPlace, book: LeaseBook, request: pytest.FixtureRequest
) -> None:
    book.take("agent", "one", TTL_MS)
    if sql_place.uri.startswith("sqlite"):
        with closing(sqlite3.connect(beside(Path(sql_place.uri.removeprefix("sqlite://")), SUFFIX))) as other, other:
            other.execute("DELETE FROM lease_turn")
    else:
        kind = "postgresql" if sql_place.uri.startswith("postgresql") else "mariadb"
        server: DatabaseServer = request.getfixturevalue(kind)
        prefix = "ringfence_lease." if kind == "postgresql" else ""
        server.sql(f"DELETE FROM {prefix}lease_turn", database_of(sql_place.uri))
    with pytest.raises(StoreTamperedError, match="lost its first row"):
        book.take("agent", "two", TTL_MS)


def test_a_store_in_vault_keeps_none() -> None:
    with pytest.raises(UnsupportedByStoreError, match="keeps no leases"):
        open_lease_book("vault://kv/ringfence", None)
