"""Work for Vault that is given up when its client goes, with the batcher that it waits in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from ringfence_agent.http.request import Peer, Request
from ringfence_agent.kms.while_wanted import give_up_when_gone, while_wanted
from ringfence_agent.promise import Promise
from ringfence_agent.vault import batching
from ringfence_agent.vault.batching import MicroBatcher
from ringfence_agent.vault.transit_wire import ItemFault, OpenItem, Operation, Result, TransitCiphertext, open_row
from ringfence_zones.errors import ProtectorUnavailableError, StoreUnavailableError
from ringfence_zones.secret import Secret

Found = list[Secret | ItemFault]


def request() -> Request:
    return Request(b"POST", b"/kms/v1/keyversion/k@0/_eek", b"", {}, b"", Peer("10.0.0.7"), keep_alive=True)


def item(number: int) -> OpenItem:
    return OpenItem(TransitCiphertext(1, number.to_bytes(44, "big")), b"c" * 32)


class Held:
    """A Vault that answers when it may, and one call at a time to it."""

    def __init__(self) -> None:
        self.seen: list[list[bytes]] = []
        self.may_answer = asyncio.Event()
        self.batch_items = 128
        self.batcher = MicroBatcher(self, calls_at_once=1)

    async def call(self, operation: Operation, key: str, rows: Sequence[bytes], deadline: float) -> list[Result]:
        self.seen.append(list(rows))
        await self.may_answer.wait()
        return [Secret(row) for row in rows]

    def open(self, sent: Request, *numbers: int) -> asyncio.Task[Found]:
        deadline = asyncio.get_running_loop().time() + 10
        work = self.batcher.decrypt("z-1", [item(number) for number in numbers], "etl", deadline)
        return asyncio.create_task(while_wanted(sent, work))

    def promise(self, number: int) -> Promise[Secret | ItemFault]:
        return self.batcher.decrypt_one("z-1", item(number), "etl", asyncio.get_running_loop().time() + 10)

    async def settled(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


def with_vault(test: Callable[[Held], Awaitable[None]]) -> None:
    async def run() -> None:
        held = Held()
        await test(held)
        await held.batcher.close()

    asyncio.run(run())


def rows(*numbers: int) -> list[bytes]:
    return [open_row(item(number)) for number in numbers]


def test_what_a_client_that_left_asked_for_is_not_sent_and_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_MAX_WAITING", 5)

    async def test(held: Held) -> None:
        first = held.open(request(), 0)
        await held.settled()
        leaves, stays = request(), request()
        left, kept = held.open(leaves, 1, 2, 3), held.open(stays, 4)
        await held.settled()
        assert held.batcher.waiting == 5
        with pytest.raises(ProtectorUnavailableError, match="wait for Vault already"):
            await held.open(request(), 5)
        leaves.tell_gone()
        with pytest.raises(StoreUnavailableError, match="closed the connection before Vault answered"):
            await left
        assert held.batcher.waiting == 2
        late = held.open(request(), 6, 7, 8)
        await held.settled()
        assert held.batcher.waiting == 5
        held.may_answer.set()
        assert [found.reveal() for found in await first + await kept + await late if isinstance(found, Secret)] == rows(
            0, 4, 6, 7, 8
        )
        assert held.seen == [rows(0), rows(4, 6, 7, 8)]
        assert held.batcher.waiting == 0

    with_vault(test)


def test_what_was_sent_is_answered_to_nobody_and_takes_the_others_with_it_in_no_way() -> None:
    async def test(held: Held) -> None:
        leaves = request()
        left, kept = held.open(leaves, 1), held.open(request(), 2)
        await held.settled()
        assert held.seen == [rows(1, 2)]
        leaves.tell_gone()
        with pytest.raises(StoreUnavailableError):
            await left
        assert held.batcher.waiting == 1
        held.may_answer.set()
        assert await kept == [Secret(rows(2)[0])]

    with_vault(test)


def test_a_client_that_is_gone_before_is_not_asked_for() -> None:
    async def test(held: Held) -> None:
        gone = request()
        gone.tell_gone()
        with pytest.raises(StoreUnavailableError):
            await held.open(gone, 1)
        await held.settled()
        assert held.seen == [] and held.batcher.waiting == 0

    with_vault(test)


def test_a_client_that_goes_with_its_answer_changes_nothing() -> None:
    async def test(held: Held) -> None:
        sent = request()
        held.may_answer.set()
        assert await held.open(sent, 1) == [Secret(rows(1)[0])]
        assert sent.on_gone is None
        sent.tell_gone()

    with_vault(test)


def test_a_promise_is_given_up_when_its_client_goes_and_is_not_sent() -> None:
    async def test(held: Held) -> None:
        first = held.open(request(), 0)
        await held.settled()
        leaves, seen = request(), list[object]()
        promise = held.promise(1)
        give_up_when_gone(leaves, promise)
        promise.listen(seen.append)
        leaves.tell_gone()
        assert [type(outcome) for outcome in seen] == [StoreUnavailableError]
        held.may_answer.set()
        await first
        await held.settled()
        assert held.seen == [rows(0)] and held.batcher.waiting == 0

    with_vault(test)


def test_a_promise_to_a_client_that_is_gone_before_is_not_sent() -> None:
    async def test(held: Held) -> None:
        gone = request()
        gone.tell_gone()
        with pytest.raises(StoreUnavailableError):
            give_up_when_gone(gone, held.promise(1))
        await held.settled()
        assert held.seen == [] and held.batcher.waiting == 0

    with_vault(test)


def test_a_promise_that_was_kept_is_not_given_up() -> None:
    async def test(held: Held) -> None:
        sent = request()
        held.may_answer.set()
        promise = held.promise(1)
        give_up_when_gone(sent, promise)
        assert await promise == Secret(rows(1)[0])
        sent.tell_gone()

    with_vault(test)


def test_a_server_that_ends_its_task_still_does() -> None:
    async def test(held: Held) -> None:
        sent = request()
        task = held.open(sent, 1)
        await held.settled()
        task.cancel()
        sent.tell_gone()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert held.batcher.waiting == 0

    with_vault(test)
