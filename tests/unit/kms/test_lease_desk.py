"""The lease book in a thread: opened when it is needed, and waited for no longer than anybody should."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ringfence_agent.kms.lease_desk import LeaseDesk
from ringfence_agent.leases.book import LeaseBook
from ringfence_zones.errors import LeaseHeldError, StoreUnavailableError


class FakeBook:
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Bench:
    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.book = FakeBook()
        self.opened = 0
        self.error: Exception | None = None
        self.desk = LeaseDesk(self.open, executor, patience_s=0.05)

    def open(self) -> LeaseBook:
        self.opened += 1
        if self.error is not None:
            raise self.error
        return self.book  # type: ignore[return-value]


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ThreadPoolExecutor(1) as executor:
        yield Bench(executor)


def test_the_book_is_opened_when_it_is_first_asked_and_once(bench: Bench) -> None:
    async def run() -> None:
        await bench.desk.close()
        assert (bench.opened, bench.book.closed) == (0, 0)
        for _ in range(3):
            assert await bench.desk.ask(lambda book: book) is bench.book
        await bench.desk.close()

    asyncio.run(run())
    assert (bench.opened, bench.book.closed) == (1, 1)


def test_one_that_does_not_open_is_tried_again(bench: Bench) -> None:
    async def run() -> None:
        bench.error = StoreUnavailableError("away")
        with pytest.raises(StoreUnavailableError, match="away"):
            await bench.desk.ask(lambda _book: None)
        bench.error = None
        await bench.desk.ask(lambda _book: None)

    asyncio.run(run())
    assert bench.opened == 2


def test_what_the_book_raises_is_the_answer(bench: Bench) -> None:
    def held(_book: LeaseBook) -> None:
        raise LeaseHeldError("agent", "two", 1.0)

    async def run() -> None:
        with pytest.raises(LeaseHeldError):
            await bench.desk.ask(held)
        await bench.desk.ask(lambda _book: None)

    asyncio.run(run())


def test_while_it_is_stuck_everybody_is_refused_and_what_has_not_begun_is_never_done(bench: Bench) -> None:
    may_go, done = threading.Event(), []

    async def run() -> None:
        stuck = asyncio.create_task(bench.desk.ask(lambda _book: may_go.wait(10)))
        behind = asyncio.create_task(bench.desk.ask(lambda _book: done.append("behind")))
        for waiting in (stuck, behind):
            with pytest.raises(StoreUnavailableError, match=r"did not answer within 0\.05 s"):
                await waiting
        with pytest.raises(StoreUnavailableError, match="did not answer"):
            await bench.desk.ask(lambda _book: done.append("later"))
        may_go.set()
        while True:
            try:
                await bench.desk.ask(lambda _book: done.append("again"))
                break
            except StoreUnavailableError:
                await asyncio.sleep(0.01)

    try:
        asyncio.run(run())
    finally:
        may_go.set()
    assert done == ["again"]
