"""What all connections of one worker share: the application, the limits, a coarse clock and the books.

The clock is read on every request, so it is a plain attribute that the server's timer refreshes once a second, with
the end of the response head (Date and Connection) rendered along with it.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from email.utils import formatdate
from itertools import islice
from typing import Protocol

from ringfence_agent.http.known_heads import KnownHeads
from ringfence_agent.http.limits import Limits
from ringfence_agent.http.outbox import Outbox, Recorded
from ringfence_agent.http.response import Application, ErrorRenderer, Response, plain_error
from ringfence_agent.promise import Promise

_log = logging.getLogger(__name__)

# The clock is coarse: what has been idle for less may have been answered this instant.
_LEAST_IDLE_S = 1.0
# Finding whom to let go looks at every connection; one in so many goes each time.
_LET_GO_SHARE = 32


class Connection(Protocol):
    """What the server needs of a connection."""

    def expire(self, now: float) -> None:
        """Ends what has lasted too long."""

    def retire(self, now: float, quiet_s: float) -> None:
        """While draining: closes the connection if it has been idle for `quiet_s`."""

    def waiting_since(self) -> tuple[bool, float] | None:
        """Whether it has ever been answered, and since when it waits for its client; None while it owes an answer."""

    def is_closing(self) -> bool:
        """Whether it is on its way out."""

    def let_go(self) -> None:
        """Closes a connection that waits, to make room."""

    def abort(self) -> None:
        """Closes at once; what was not sent is dropped."""


class HttpService:
    """One per worker process and event loop. Attributes are read directly on the hot path."""

    __slots__ = (
        "application",
        "awaited",
        "close_tail",
        "connections",
        "draining",
        "held_body_bytes",
        "keep_alive_tail",
        "known_heads",
        "limits",
        "now",
        "outbox",
        "render_error",
    )

    def __init__(
        self,
        application: Application | Recorded,
        limits: Limits | None = None,
        render_error: ErrorRenderer = plain_error,
    ) -> None:
        self.limits = limits or Limits()
        self.render_error = render_error
        # None: answers are written as soon as they are there.
        self.outbox: Outbox | None = None
        if isinstance(application, Recorded):
            self.outbox = Outbox(application.commit, self.failure_response)
            application = application.application
        self.application: Application = application
        # In the order in which they came; a dictionary because a set has no order.
        self.connections: dict[Connection, None] = {}
        # Answers that are not there yet. Strong references: the event loop keeps only weak ones to its tasks.
        self.awaited: set[asyncio.Task[None] | Promise[Response]] = set()
        self.draining = False
        self.held_body_bytes = 0
        self.known_heads = KnownHeads()
        self.now = 0.0
        self.keep_alive_tail = self.close_tail = b""

    def tick(self, now: float, wall_time_s: float) -> None:
        """Sets the coarse clock: `now` in the event loop's time, `wall_time_s` since the epoch for Date."""
        self.now = now
        date = formatdate(wall_time_s, usegmt=True).encode("ascii")
        keep_alive = b"Connection: keep-alive\r\nKeep-Alive: timeout=%d\r\n" % self.limits.idle_timeout_s
        self.keep_alive_tail = b"Date: %b\r\n%bContent-Length: " % (date, keep_alive)
        self.close_tail = b"Date: %b\r\nConnection: close\r\nContent-Length: " % date

    def make_room(self) -> bool:
        """Called for each new connection, when it is in the books: lets others go when there are too many.

        First those that came longest ago and never finished a request, however short a time ago that was; only then
        those that were answered and have been idle longest. Returns False when the new one must go instead.
        """
        limit = self.limits.connections
        if len(self.connections) <= limit:
            return True
        # The last one is the new one.
        others = [one for one in islice(self.connections, len(self.connections) - 1) if not one.is_closing()]
        if len(others) < limit:
            return True
        waiting = [(since, one) for one in others if (since := one.waiting_since()) is not None]
        letting_go = [one for (answered, _), one in waiting if not answered]
        if not letting_go:
            idle = sorted(
                (since_s, id(one), one) for (_, since_s), one in waiting if self.now - since_s >= _LEAST_IDLE_S
            )
            letting_go = [one for _, _, one in idle]
        for one in letting_go[: max(1, limit // _LET_GO_SHARE)]:
            one.let_go()
        return bool(letting_go)

    def error_response(self, status: int, sentence: str) -> Response:
        """Renders an error of the server's own. A renderer that fails itself is replaced by plain text."""
        try:
            return self.render_error(status, sentence)
        except Exception as error:  # noqa: BLE001 - the edge: whatever a renderer raises, the client gets an answer
            self.report_bug(error)
            return plain_error(status, sentence)

    def failure_response(self, error: BaseException) -> Response:
        """A bland 500 for an exception that the application let through."""
        self.report_bug(error)
        return self.error_response(500, "the server failed to handle this request; its log says where")

    def report_bug(self, error: BaseException) -> None:
        """Logs the kind and the places of an exception, never its message: that may quote a request or a key."""
        frames = traceback.extract_tb(error.__traceback__)
        places = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames[-8:]))
        _log.error("unhandled %s at %s", type(error).__name__, places or "an unknown place")
