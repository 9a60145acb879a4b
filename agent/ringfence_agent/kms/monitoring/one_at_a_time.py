"""Asking something that may never answer, without asking it twice at once and without everybody waiting for it.

What is begun goes on, and stays the one call, until it ends. Callers wait for it together; once one of them has waited
for as long as the deadline says, nobody waits for it any more until it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class OneAtATime(Generic[T]):
    """Used on one event loop."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._task: asyncio.Task[T] | None = None
        self._is_overdue = False

    async def find_ended(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T] | None:
        """The call that was under way, else the one that `begin` makes, when it has ended; None while it is overdue."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(begin())
            self._is_overdue = False
        task = self._task
        if not self._is_overdue:
            await asyncio.wait({task}, timeout=self._deadline_s)
        if not task.done():
            self._is_overdue = True
            return None
        if self._task is task:
            self._task = None
        return task
