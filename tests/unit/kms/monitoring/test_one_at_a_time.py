from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ringfence_agent.kms.monitoring.one_at_a_time import OneAtATime


class Slow:
    """Counts what was begun; ends with its count once it may."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()

    async def begin(self) -> int:
        self.begun += 1
        number = self.begun
        await self.may_end.wait()
        if number == 3:
            raise ValueError("the third")
        return number


def with_slow(test: Callable[[Slow, OneAtATime[int]], Awaitable[None]], deadline_s: float) -> None:
    async def run() -> None:
        await test(Slow(), OneAtATime(deadline_s))

    asyncio.run(run())


def test_callers_share_one_call_and_its_result() -> None:
    async def look(slow: Slow, one: OneAtATime[int]) -> None:
        callers = [asyncio.create_task(one.find_ended(slow.begin)) for _ in range(3)]
        await asyncio.sleep(0)
        slow.may_end.set()
        ended = await asyncio.gather(*callers)
        assert [task.result() for task in ended if task is not None] == [1, 1, 1]
        second = await one.find_ended(slow.begin)
        assert second is not None and second.result() == 2
        third = await one.find_ended(slow.begin)
        assert third is not None
        with pytest.raises(ValueError, match="third"):
            third.result()
        fourth = await one.find_ended(slow.begin)
        assert fourth is not None and fourth.result() == 4

    with_slow(look, 60.0)


def test_what_is_overdue_is_waited_for_no_more_and_ends_when_it_ends() -> None:
    async def look(slow: Slow, one: OneAtATime[int]) -> None:
        assert await one.find_ended(slow.begin) is None
        clock = asyncio.get_running_loop().time
        began_s = clock()
        assert [await one.find_ended(slow.begin) for _ in range(20)] == [None] * 20
        assert clock() - began_s < 0.5
        slow.may_end.set()
        for _ in range(3):
            await asyncio.sleep(0)
        ended = await one.find_ended(slow.begin)
        assert ended is not None and (ended.result(), slow.begun) == (1, 1)
        # The next is waited for again.
        again = await one.find_ended(slow.begin)
        assert again is not None and again.result() == 2

    with_slow(look, 0.5)


def test_a_caller_that_is_cancelled_leaves_the_call_to_the_others() -> None:
    async def look(slow: Slow, one: OneAtATime[int]) -> None:
        first, second = (asyncio.create_task(one.find_ended(slow.begin)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        slow.may_end.set()
        ended = await second
        assert ended is not None and ended.result() == 1
        assert first.cancelled()

    with_slow(look, 60.0)
