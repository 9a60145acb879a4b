"""Answers that leave only once what they say is on record.

An application that must not answer before something is written (the key server and its audit log) gives a `commit`
beside itself (`Recorded`). Then, in each turn of the event loop:

1. Every answer that becomes ready, on whatever connection, is held; so are the server's own (400, 408, ...), which must
   not overtake the answers before them.
2. `commit()` is called once for all of them, on the event loop, whether or not their clients are still there.
3. Only then are they written, in the order in which they became ready, so in order on each connection.

`commit` returns None when everything is on record. What it returns instead replaces each held answer that came from
the application; if it raises, they are replaced by a bland 500. The server's own answers leave either way: they tell
nothing. So one `write` of the log serves every request of a turn, and no byte of an answer leaves before it.

A turn that ends early: when a client closes its side of the connection, what is held is committed and written at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ringfence_agent.http.response import Application, Response

Commit = Callable[[], "Response | None"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """An application whose answers wait for `commit`. See the module for when that is called and what it may return.

    `on_serving` is told, once connections are about to be taken, how to ask how many are open.

    The replacement is shared by many answers: whether a connection stays open was decided before, so its `close` is
    not looked at.
    """

    application: Application
    commit: Commit
    on_serving: Callable[[Callable[[], int]], None] | None = None


class Recipient(Protocol):
    """A connection, as the outbox sees it."""

    def write_held(self, response: Response, keep_alive: bool, to_head: bool) -> None:
        """Writes one answer, unless the client is gone; called once for each answer held, in their order."""

    def abort(self) -> None:
        """Closes at once."""


class Outbox:
    """One per worker. `on_failure` makes the answer that replaces others when `commit` raises."""

    __slots__ = ("_commit", "_held", "_on_failure", "_scheduled")

    def __init__(self, commit: Commit, on_failure: Callable[[BaseException], Response]) -> None:
        self._commit = commit
        self._on_failure = on_failure
        self._held: list[tuple[Recipient, Response, bool, bool, bool]] = []
        self._scheduled = False

    def hold(
        self, connection: Recipient, response: Response, keep_alive: bool, to_head: bool, replaceable: bool
    ) -> None:
        """Keeps one answer until the end of this turn. `replaceable` when it came from the application."""
        self._held.append((connection, response, keep_alive, to_head, replaceable))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Commits and writes what is held now; does nothing when nothing is. Raises nothing."""
        held = self._held
        if not held:
            return
        self._held = []
        try:
            replacement = self._commit()
        except Exception as error:  # noqa: BLE001 - the edge: what is not on record must not be answered
            replacement = self._on_failure(error)
        for connection, response, keep_alive, to_head, replaceable in held:
            answer = response if replacement is None or not replaceable else replacement
            try:
                connection.write_held(answer, keep_alive, to_head)
            except Exception as error:  # noqa: BLE001 - one bad answer must not take the others with it
                self._on_failure(error)
                connection.abort()
