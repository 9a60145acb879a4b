"""The master's signals: noted by a handler that does nothing else, and read by the loop that they wake."""

from __future__ import annotations

import os
import selectors
import signal
from contextlib import suppress
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)

_DRAIN_BYTES = 65536


class SignalInbox:
    """What has been asked for since it was last looked at. `open` and `close` from the main thread."""

    def __init__(self) -> None:
        self._stops = 0
        self._reload = False
        self._reopen = False
        self._wake_read = self._wake_write = -1
        self._previous_handlers: dict[int, object] = {}

    def open(self, selector: selectors.BaseSelector) -> None:
        """Takes the signals; each makes the selector's wait end."""
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        selector.register(self._wake_read, selectors.EVENT_READ)
        for number in SIGNALS:
            self._previous_handlers[number] = signal.signal(number, self._on_signal)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def close(self) -> None:
        """Gives the signals back to whom they belonged."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal itself returned
        self._previous_handlers.clear()
        self.close_in_child()

    def close_in_child(self) -> None:
        """In a worker, which has signals of its own: the pipe alone."""
        for descriptor in (self._wake_read, self._wake_write):
            if descriptor >= 0:
                os.close(descriptor)
        self._wake_read = self._wake_write = -1

    def is_woken_by(self, descriptor: int) -> bool:
        """Whether a signal made this descriptor readable, which it then no longer is."""
        if descriptor != self._wake_read:
            return False
        with suppress(BlockingIOError):
            os.read(self._wake_read, _DRAIN_BYTES)
        return True

    def take_stops(self) -> int:
        """How many SIGTERM and SIGINT have come."""
        stops, self._stops = self._stops, 0
        return stops

    def take_reopen(self) -> bool:
        """Whether SIGUSR1 has come."""
        reopen, self._reopen = self._reopen, False
        return reopen

    @property
    def wants_reload(self) -> bool:
        """Whether SIGHUP has come, until `reload_begun`."""
        return self._reload

    def reload_begun(self) -> None:
        """A SIGHUP from now on asks for another reload."""
        self._reload = False

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stops += 1
        elif number == signal.SIGHUP:
            self._reload = True
        elif number == signal.SIGUSR1:
            self._reopen = True
