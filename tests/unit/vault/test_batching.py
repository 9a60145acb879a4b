"""Many requests as few calls: how many are under way, who goes together, whose turn it is, who is not waited for."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from ringfence_agent.promise import Promise
from ringfence_agent.vault import batching
from ringfence_agent.vault.batching import MicroBatcher
from ringfence_agent.vault.transit_wire import (
    EncryptItem,
    ItemFault,
    OpenItem,
    Operation,
    Result,
    RewrapItem,
    TransitCiphertext,
    open_row,
)
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError, RingfenceError
from ringfence_zones.secret import Secret

CONTEXT = b"c" * 32
DEADLINE_S = 10.0


def sealed(number: int) -> OpenItem:
    return OpenItem(TransitCiphertext(1, number.to_bytes(44, "big")), CONTEXT)


class Calls:
    """A Transit whose calls end when the test says so: `go` lets one go, `free` all from now on."""

    def __init__(self, batch_items: int = 128) -> None:
        self.batch_items = batch_items
        self.seen: list[tuple[Operation, str, list[bytes]]] = []
        self.deadlines: list[float] = []
        self.under_way = self.most = 0
        self.free = False
        self.answer: Callable[[bytes], Result] = Secret
        self.error: BaseException | None = None
        self._gate = asyncio.Semaphore(0)

    def go(self, count: int = 1) -> None:
        for _ in range(count):
            self._gate.release()

    async def call(self, operation: Operation, key: str, rows: Sequence[bytes], deadline: float) -> list[Result]:
        self.seen.append((operation, key, list(rows)))
        self.deadlines.append(deadline)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if not self.free:
                await self._gate.acquire()
            if self.error is not None:
                raise self.error
            return [self.answer(row) for row in rows]
        finally:
            self.under_way -= 1

    @property
    def sizes(self) -> list[int]:
        return [len(rows) for _, _, rows in self.seen]


class Bench:
    """A batcher over calls that the test holds."""

    def __init__(self, calls: Calls, calls_at_once: int) -> None:
        self.calls = calls
        self.batcher = MicroBatcher(calls, calls_at_once)

    def decrypt(
        self, number: int, caller: str = "etl", key: str = "z-1", patience_s: float = DEADLINE_S
    ) -> asyncio.Future[list[Secret | ItemFault]]:
        deadline = asyncio.get_running_loop().time() + patience_s
        return asyncio.ensure_future(self.batcher.decrypt(key, [sealed(number)], caller, deadline))

    def promise(self, number: int, patience_s: float = DEADLINE_S) -> Promise[Secret | ItemFault]:
        deadline = asyncio.get_running_loop().time() + patience_s
        return self.batcher.decrypt_one("z-1", sealed(number), "etl", deadline)

    def decrypt_many(
        self, numbers: Sequence[int], caller: str = "etl"
    ) -> list[asyncio.Future[list[Secret | ItemFault]]]:
        return [self.decrypt(number, caller) for number in numbers]


@asynccontextmanager
async def bench(calls_at_once: int = 1, batch_items: int = 128) -> AsyncIterator[Bench]:
    made = Bench(Calls(batch_items), calls_at_once)
    yield made
    await made.batcher.close()


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.001)


def row(number: int) -> bytes:
    return open_row(sealed(number))


def soon() -> float:
    return asyncio.get_running_loop().time() + DEADLINE_S


def test_an_idle_server_is_asked_at_once() -> None:
    async def test() -> None:
        async with bench() as b:
            b.calls.free = True
            for number in range(3):
                assert await b.decrypt(number) == [Secret(row(number))]
            assert b.calls.sizes == [1, 1, 1]

    asyncio.run(test())


def test_what_comes_while_a_call_is_under_way_goes_together() -> None:
    async def test() -> None:
        async with bench() as b:
            first = b.decrypt(0)
            await until(lambda: b.calls.sizes == [1])
            rest = b.decrypt_many(range(1, 100))
            await asyncio.sleep(0.02)
            assert b.calls.sizes == [1]
            b.calls.go(2)
            assert await first == [Secret(row(0))]
            assert [await each for each in rest] == [[Secret(row(number))] for number in range(1, 100)]
            assert b.calls.sizes == [1, 99]

    asyncio.run(test())


def test_what_one_turn_of_the_loop_brings_goes_together() -> None:
    async def test() -> None:
        async with bench() as b:
            b.calls.free = True
            await asyncio.gather(*b.decrypt_many(range(64)))
            assert b.calls.sizes == [64]

    asyncio.run(test())


@pytest.mark.parametrize("calls_at_once", [1, 2, 4])
def test_no_more_calls_are_under_way_than_the_server_has_cores(calls_at_once: int) -> None:
    async def test() -> None:
        async with bench(calls_at_once) as b:
            waiting = [b.decrypt(number, key=f"z-{number % 5}") for number in range(1000)]
            await until(lambda: b.calls.under_way == calls_at_once)
            while not all(each.done() for each in waiting):
                b.calls.go(b.calls.under_way)
                await asyncio.sleep(0)
            assert b.calls.most == calls_at_once
            assert len(b.calls.seen) == 10

    asyncio.run(test())


def test_a_call_carries_no_more_than_the_server_takes() -> None:
    async def test() -> None:
        async with bench(batch_items=10) as b:
            b.calls.free = True
            await asyncio.gather(*b.decrypt_many(range(25)))
            assert b.calls.sizes == [10, 10, 5]

    asyncio.run(test())


def test_each_key_and_operation_has_its_own_calls_and_they_take_turns() -> None:
    async def test() -> None:
        async with bench(batch_items=4) as b:
            first = b.decrypt(0)
            await until(lambda: b.calls.sizes == [1])
            bulk = asyncio.ensure_future(
                b.batcher.rewrap("z-1", [RewrapItem(*sealed(n), 1) for n in range(12)], "hdfs", soon())
            )
            made = asyncio.ensure_future(
                b.batcher.encrypt("z-1", [EncryptItem(Secret(b"d" * 16), CONTEXT, 1)], "hdfs", soon())
            )
            other = b.decrypt(1, key="z-2")
            await asyncio.sleep(0)
            b.calls.answer = lambda row: TransitCiphertext(1, bytes(44)) if b"plaintext" in row else Secret(row)
            b.calls.free = True
            b.calls.go()
            await asyncio.gather(first, bulk, made, other)
            assert [(operation.value, key) for operation, key, _ in b.calls.seen] == [
                ("decrypt", "z-1"),
                ("rewrap", "z-1"),
                ("encrypt", "z-1"),
                ("decrypt", "z-2"),
                ("rewrap", "z-1"),
                ("rewrap", "z-1"),
            ]

    asyncio.run(test())


def test_one_callers_flood_does_not_hold_up_another() -> None:
    async def test() -> None:
        async with bench() as b:
            first = b.decrypt(0)
            await until(lambda: b.calls.sizes == [1])
            flood = b.decrypt_many(range(1000, 2000), "job")
            one = b.decrypt(1, "analyst")
            two = b.decrypt(2, "auditor")
            await asyncio.sleep(0)
            b.calls.go(2)
            await first
            assert await one == [Secret(row(1))]
            assert await two == [Secret(row(2))]
            assert b.calls.sizes[1] == 128
            b.calls.free = True
            b.calls.go()
            await asyncio.gather(*flood)

    asyncio.run(test())


def test_callers_share_a_call_evenly() -> None:
    async def test() -> None:
        async with bench(batch_items=12) as b:
            first = b.decrypt(0)
            await until(lambda: b.calls.sizes == [1])
            everybody = [*b.decrypt_many(range(100, 120), "a"), *b.decrypt_many(range(200, 220), "b")]
            everybody += b.decrypt_many(range(300, 302), "c")
            await asyncio.sleep(0)
            b.calls.go(2)
            await first
            await until(lambda: len(b.calls.seen) == 3)
            shares = [
                sum(row(n) in b.calls.seen[1][2] for n in span)
                for span in (range(100, 120), range(200, 220), range(300, 302))
            ]
            assert shares == [5, 5, 2]
            b.calls.free = True
            b.calls.go()
            await asyncio.gather(*everybody)

    asyncio.run(test())


def test_a_second_call_departs_with_as_many_as_the_first_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_HOLD_S", DEADLINE_S)

    async def test() -> None:
        async with bench(2) as b:
            first = b.decrypt_many(range(5))
            await until(lambda: b.calls.sizes == [5])
            fewer = b.decrypt_many(range(10, 14))
            other = b.decrypt(20, key="z-2")
            await asyncio.sleep(0.02)
            assert b.calls.sizes == [5]
            enough = b.decrypt(14)
            await until(lambda: b.calls.sizes == [5, 5])
            assert b.calls.seen[1][2] == [row(number) for number in range(10, 15)]
            b.calls.free = True
            b.calls.go(2)
            await asyncio.gather(*first, *fewer, other, enough)
            assert b.calls.sizes == [5, 5, 1]

    asyncio.run(test())


def test_a_second_call_departs_when_the_first_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_HOLD_S", 0.05)

    async def test() -> None:
        async with bench(2) as b:
            first = b.decrypt_many(range(5))
            await until(lambda: b.calls.sizes == [5])
            began = time.monotonic()
            late = b.decrypt(10)
            await until(lambda: b.calls.sizes == [5, 1])
            assert time.monotonic() - began > 0.04
            b.calls.free = True
            b.calls.go(2)
            await asyncio.gather(*first, late)

    asyncio.run(test())


def test_one_keys_flood_does_not_hold_up_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_HOLD_S", DEADLINE_S)

    async def test() -> None:
        async with bench(2, batch_items=4) as b:
            flood = b.decrypt_many(range(100, 140))
            await until(lambda: b.calls.sizes == [4, 4])
            other = b.decrypt(1, key="z-2")
            await asyncio.sleep(0)
            b.calls.go(2)
            await until(lambda: len(b.calls.seen) == 4)
            assert "z-2" in [key for _, key, _ in b.calls.seen[2:]]
            b.calls.free = True
            b.calls.go(2)
            await asyncio.gather(*flood, other)

    asyncio.run(test())


def test_the_next_call_departs_before_results_are_handed_out() -> None:
    async def test() -> None:
        async with bench() as b:
            sent_before: list[int] = []
            promise = b.promise(0)
            promise.listen(lambda _: sent_before.append(len(b.calls.seen)))
            await until(lambda: b.calls.sizes == [1])
            following = b.decrypt(1)
            await asyncio.sleep(0)
            b.calls.go(2)
            await following
            assert sent_before == [2]

    asyncio.run(test())


# -- those who do not wait, and those who cannot


def test_a_promise_is_kept_with_what_its_item_becomes() -> None:
    async def test() -> None:
        async with bench() as b:
            b.calls.free = True
            b.calls.answer = lambda each: ItemFault.CORRUPT if each == row(3) else Secret(each)
            assert await b.promise(1) == Secret(row(1))
            assert await b.promise(3) is ItemFault.CORRUPT
            b.calls.error = ProtectorUnavailableError("sealed", reason="sealed")
            promises = [b.promise(number) for number in range(2)]
            errors: list[object] = []
            for promise in promises:
                promise.listen(errors.append)
            await until(lambda: len(errors) == 2)
            assert [str(error) for error in errors] == ["sealed"] * 2 and errors[0] is not errors[1]
            b.calls.free = False
            with pytest.raises(ProtectorUnavailableError, match="in time"):
                await b.promise(4, patience_s=0.05)
            assert b.batcher.waiting == 0

    asyncio.run(test())


def test_a_promise_that_was_kept_by_another_is_not_sent_and_takes_no_room() -> None:
    async def test() -> None:
        async with bench() as b:
            first = b.decrypt(0)
            await until(lambda: b.calls.sizes == [1])
            seen: list[object] = []
            gone, stays = b.promise(1), b.promise(2)
            gone.listen(seen.append)
            gone.keep(error := ProtectorUnavailableError("gone"))
            assert seen == [error] and b.batcher.waiting == 2
            b.calls.go(2)
            assert await stays == Secret(row(2))
            await first
            assert b.calls.seen[1][2] == [row(2)] and b.batcher.waiting == 0

    asyncio.run(test())


def test_a_promise_is_refused_when_too_many_wait_and_when_the_server_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_MAX_WAITING", 1)

    async def test() -> None:
        async with bench() as b:
            stopped: list[object] = []
            b.promise(0).listen(stopped.append)
            with pytest.raises(ProtectorUnavailableError, match="1 requests wait for Vault"):
                b.promise(1)
            await b.batcher.close()
            assert "stopping" in str(stopped)
            with pytest.raises(ProtectorUnavailableError, match="stopping"):
                b.promise(2)

    asyncio.run(test())


def test_a_caller_who_left_before_the_call_is_not_sent() -> None:
    async def test() -> None:
        async with bench() as b:
            first = b.decrypt(0)
            await until(lambda: b.calls.sizes == [1])
            gone, stays = b.decrypt(1), b.decrypt(2)
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.sleep(0)
            b.calls.go(2)
            await asyncio.gather(first, stays)
            assert b.calls.seen[1][2] == [row(2)]

    asyncio.run(test())


def test_a_caller_who_leaves_during_the_call_spoils_it_for_nobody() -> None:
    async def test() -> None:
        async with bench() as b:
            gone, stays = b.decrypt(1), b.decrypt(2)
            await until(lambda: b.calls.sizes == [2])
            gone.cancel()
            b.calls.go()
            assert await stays == [Secret(row(2))]
            assert gone.cancelled()

    asyncio.run(test())


def test_when_everybody_left_the_next_call_is_not_held_up() -> None:
    async def test() -> None:
        async with bench() as b:
            first = b.decrypt(0)
            await until(lambda: b.calls.sizes == [1])
            gone = b.decrypt_many(range(1, 5))
            await asyncio.sleep(0)
            for each in gone:
                each.cancel()
            b.calls.go(2)
            await first
            assert await b.decrypt(9) == [Secret(row(9))]
            assert b.calls.sizes == [1, 1]

    asyncio.run(test())


def test_every_item_has_its_own_deadline_and_the_call_the_latest() -> None:
    async def test() -> None:
        async with bench() as b:
            hurried, patient = b.decrypt(1, patience_s=0.1), b.decrypt(2, patience_s=5)
            began = time.monotonic()
            with pytest.raises(ProtectorUnavailableError, match="in time"):
                await hurried
            assert 0.09 < time.monotonic() - began < 2
            assert not patient.done()
            b.calls.go()
            assert await patient == [Secret(row(2))]
            assert b.calls.deadlines[0] > asyncio.get_running_loop().time() + 2

    asyncio.run(test())


def test_an_item_whose_time_is_up_while_it_waits_is_not_sent() -> None:
    async def test() -> None:
        async with bench() as b:
            first = b.decrypt(0)
            await until(lambda: b.calls.sizes == [1])
            hurried, patient = b.decrypt(1, patience_s=0.05), b.decrypt(2)
            with pytest.raises(ProtectorUnavailableError, match="in time"):
                await hurried
            b.calls.go(2)
            await asyncio.gather(first, patient)
            assert b.calls.seen[1][2] == [row(2)]

    asyncio.run(test())


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_MAX_WAITING", 10)

    async def test() -> None:
        async with bench() as b:
            waiting = b.decrypt_many(range(10))
            await until(lambda: b.calls.sizes == [10])
            with pytest.raises(ProtectorUnavailableError, match="10 requests wait for Vault"):
                await b.decrypt(10)
            b.calls.free = True
            b.calls.go()
            await asyncio.gather(*waiting)
            assert await b.decrypt(11) == [Secret(row(11))]

    asyncio.run(test())


# -- faults


def test_an_item_that_fails_fails_alone() -> None:
    async def test() -> None:
        async with bench() as b:
            b.calls.free = True
            b.calls.answer = lambda each: ItemFault.CORRUPT if each == row(3) else Secret(each)
            found = await asyncio.gather(*b.decrypt_many(range(5)))
            assert found[3] == [ItemFault.CORRUPT]
            assert [found[number] for number in (0, 1, 2, 4)] == [[Secret(row(number))] for number in (0, 1, 2, 4)]

    asyncio.run(test())


@pytest.mark.parametrize(
    "error",
    [ProtectorUnavailableError("sealed", hint="h", reason="sealed"), ProtectorRefusedError("no", reason="policy")],
    ids=["unavailable", "refused"],
)
def test_a_call_that_fails_fails_for_each_with_an_error_of_its_own(error: RingfenceError) -> None:
    async def test() -> None:
        async with bench() as b:
            b.calls.free, b.calls.error = True, error
            found = await asyncio.gather(*b.decrypt_many(range(3)), return_exceptions=True)
            assert {type(each) for each in found} == {type(error)}
            assert len({id(each) for each in found}) == 3
            assert all(isinstance(each, RingfenceError) and each.__dict__ == error.__dict__ for each in found)
            b.calls.error = None
            assert await b.decrypt(4) == [Secret(row(4))]

    asyncio.run(test())


def test_a_bug_leaves_nobody_waiting_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with bench() as b:
            b.calls.free, b.calls.error = True, ZeroDivisionError("planted")
            found = await asyncio.gather(*b.decrypt_many(range(3)), return_exceptions=True)
            assert {type(each) for each in found} == {ProtectorUnavailableError}
            b.calls.error = None
            assert await b.decrypt(4) == [Secret(row(4))]

    asyncio.run(test())
    assert caplog.text.count("planted") == 1


def test_a_list_that_fails_leaves_no_error_unseen() -> None:
    async def test() -> None:
        complaints: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with bench() as b:
            b.calls.free, b.calls.error = True, ProtectorUnavailableError("sealed")
            with contextlib.suppress(ProtectorUnavailableError):
                await b.batcher.decrypt("z-1", [sealed(number) for number in range(5)], "etl", soon())
            b.calls.error = None  # its traceback leads to every item
        gc.collect()  # an error that nobody looked at is complained of when its future goes
        assert not complaints

    asyncio.run(test())


def test_a_version_that_a_standby_does_not_know_yet_is_tried_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "LAG_S", 0.02)

    async def test() -> None:
        async with bench() as b:
            b.calls.free = True
            knows = False
            b.calls.answer = lambda each: Secret(each) if knows or each != row(1) else ItemFault.VERSION_AHEAD
            ahead, known = b.decrypt(1), b.decrypt(2)
            assert await known == [Secret(row(2))]
            assert not ahead.done()  # and nobody waits for it
            knows = True
            assert await ahead == [Secret(row(1))]
            knows = False
            assert await b.decrypt(1) == [ItemFault.VERSION_AHEAD]
            assert b.calls.sizes == [2, 1, 1, 1]
            assert await b.decrypt(1, patience_s=0.01) == [ItemFault.VERSION_AHEAD]
            assert b.calls.sizes == [2, 1, 1, 1, 1]

    asyncio.run(test())


def test_closing_answers_everybody() -> None:
    async def test() -> None:
        async with bench() as b:
            flying = b.decrypt(0)
            await until(lambda: b.calls.sizes == [1])
            queued = b.decrypt(1)
            await asyncio.sleep(0)
            await b.batcher.close()
            for each in (flying, queued, b.decrypt(2)):
                with pytest.raises(ProtectorUnavailableError, match="stopping"):
                    await each

    asyncio.run(test())


def test_an_empty_list_asks_nobody() -> None:
    async def test() -> None:
        async with bench() as b:
            assert await b.batcher.rewrap("z-1", [], "hdfs", soon()) == []
            assert not b.calls.seen

    asyncio.run(test())
