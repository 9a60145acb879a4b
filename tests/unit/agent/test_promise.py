"""A promise: what becomes of it, who is told, and that whoever is told first is told alone."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from ringfence_agent.promise import Promise


def test_steps_are_taken_in_their_order_and_the_listener_is_told_at_once() -> None:
    promise: Promise[int] = Promise()
    seen: list[object] = []
    promise.then(lambda number: number + 1).then(lambda number: f"<{number}>").listen(seen.append)
    assert not promise.is_kept and seen == []
    promise.keep(1)
    assert promise.is_kept and seen == ["<2>"]


def test_the_first_outcome_counts() -> None:
    promise: Promise[int] = Promise()
    seen: list[object] = []
    promise.listen(seen.append)
    promise.keep(1)
    promise.keep(2)
    promise.keep(ValueError())
    assert seen == [1]


def test_an_exception_passes_by_to_whoever_takes_exceptions() -> None:
    promise: Promise[int] = Promise()
    seen: list[object] = []
    steps: list[object] = []
    promise.then(steps.append).then(lambda _: "result", lambda error: type(error).__name__).listen(seen.append)
    promise.keep(ValueError("told"))
    assert seen == ["ValueError"] and steps == []


def test_what_a_step_raises_is_the_outcome() -> None:
    for taken in (1, ValueError("told")):
        promise: Promise[int] = Promise()
        seen: list[object] = []
        promise.then(lambda number: 1 // (number - number), lambda error: error.args[5]).listen(seen.append)
        promise.keep(taken)
        assert [type(each) for each in seen] == [ZeroDivisionError if taken == 1 else IndexError]


def test_a_coroutine_may_wait_for_it() -> None:
    async def test() -> None:
        for outcome in (1, ValueError("told")):
            promise: Promise[int] = Promise()
            asyncio.get_running_loop().call_soon(promise.keep, outcome)
            if outcome == 1:
                assert await promise.then(lambda number: number + 1) == 2
            else:
                with pytest.raises(ValueError, match="told"):
                    await promise

    asyncio.run(test())


def test_a_coroutine_that_is_given_up_misses_nothing() -> None:
    async def test() -> None:
        promise: Promise[int] = Promise()

        async def wait() -> int:
            return await promise

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        promise.keep(1)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(test())


def test_nobody_asks_when_it_is_too_late_or_twice() -> None:
    promise: Promise[int] = Promise()
    promise.listen(lambda _: None)
    with pytest.raises(AssertionError):
        promise.listen(lambda _: None)
    promise.keep(1)
    with pytest.raises(AssertionError):
        promise.then(lambda number: number)
    with pytest.raises(AssertionError):
        promise.listen(lambda _: None)


def test_one_that_was_kept_holds_on_to_nothing() -> None:
    class Owner:
        def __init__(self) -> None:
            self.promise: Promise[int] = Promise()
            self.promise.then(lambda number: (self, number)).listen(lambda _: self)

    owner = Owner()
    promise, seen = owner.promise, weakref.ref(owner)
    gc.disable()  # no cycle is left that it would have to find
    try:
        del owner
        assert seen() is not None
        promise.keep(1)
        assert seen() is None
    finally:
        gc.enable()
