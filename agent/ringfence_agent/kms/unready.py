"""How a handler says that it needs something from off the event loop before it can decide.

Handlers are plain functions: they read what is in memory and answer at once. What is not in memory (a key, a user's
groups, the published policy) is fetched by raising `Unready`; the application awaits the load and calls the handler
again from its beginning. So a handler must not change anything before it has everything it needs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable


class Unready(Exception):  # noqa: N818 - control flow, as StopIteration: not an error, and never seen outside
    """`load` fetches what is missing; it raises only errors of the RingfenceError family."""

    def __init__(self, load: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self.load = load
