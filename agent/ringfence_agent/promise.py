"""A result that comes later, and who is called the moment it does.

For thousands of requests a second that wait for a few calls which they share. A task and a future for each of them take
three turns of the event loop; here the call that has the results hands them on, one after the other, down to the
answers. What has more than one thing to wait for is a coroutine, as anywhere.

Whoever is given a promise says what becomes of it before it goes back to the event loop: a promise that is kept does
not remember what with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
U = TypeVar("U")


class Promise(Generic[T]):
    """Later a result, or the exception that is there instead of it.

    is_kept  whether it came
    """

    __slots__ = ("_listener", "_steps", "is_kept")

    def __init__(self) -> None:
        self.is_kept = False
        self._steps: list[tuple[Callable[[Any], Any], Callable[[Exception], Any] | None]] = []
        self._listener: Callable[[Any], object] | None = None

    def keep(self, outcome: Any) -> None:
        """Here is what was promised at first, or the exception. The first counts; others are dropped."""
        if self.is_kept:
            return
        self.is_kept = True
        steps, listener = self._steps, self._listener
        self._steps, self._listener = [], None  # they may refer to whoever refers to this
        for on_result, on_error in steps:
            try:
                if not isinstance(outcome, Exception):
                    outcome = on_result(outcome)
                elif on_error is not None:
                    outcome = on_error(outcome)
            except Exception as error:  # noqa: BLE001 - handed on to whoever is next
                outcome = error
        if listener is not None:
            listener(outcome)

    def then(self, on_result: Callable[[T], U], on_error: Callable[[Exception], U] | None = None) -> Promise[U]:
        """This promise, now for what becomes of the result; of an exception, by `on_error`, else it stays. What either
        raises is there instead.
        """
        assert not self.is_kept, "it came before anybody asked"
        self._steps.append((on_result, on_error))
        return cast("Promise[U]", self)

    def listen(self, listener: Callable[[T | Exception], object]) -> None:
        """Has it called at the end, once. For one listener, which must not raise."""
        assert not self.is_kept and self._listener is None, "it came before, or somebody listens"
        self._listener = listener

    def __await__(self) -> Generator[object, None, T]:
        """For coroutines. Raises the exception."""
        future: asyncio.Future[T | Exception] = asyncio.get_running_loop().create_future()

        def wake(outcome: T | Exception) -> None:
            if not future.done():  # the coroutine may have been cancelled
                future.set_result(outcome)

        self.listen(wake)
        outcome = yield from future.__await__()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome
