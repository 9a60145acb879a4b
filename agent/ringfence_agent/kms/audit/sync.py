"""Brings audit files to disk off the event loop: soon after something was written, never twice at a time, and no more
often than it must. Each sync costs as much as hundreds of requests, and holds up those of the moment.

A sync that fails may have lost what was written since the last one that did not (fsync(2) reports it once and calls
the pages clean): it is logged, counts as a problem, and another is tried until one succeeds.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path

from ringfence_agent.kms.audit.file import AuditFile

_log = logging.getLogger(__name__)


class DiskSync:
    """Syncs `files` of one directory within `sync_s` of `note`. Used on the event loop; work happens in `executor`."""

    def __init__(
        self,
        files: Sequence[AuditFile],
        directory: Path,
        executor: Executor,
        sync_s: float,
        before: Callable[[], object],
    ) -> None:
        """`before` is called on the event loop before each sync by the timer: it writes what is still in memory."""
        self._files = files
        self._directory = directory
        self._executor = executor
        self._sync_s = sync_s
        self._before = before
        # When the oldest record was made that no sync has begun to cover, and the oldest that one is covering.
        self._waiting_since_s: float | None = None
        # When the next sync begins, in the event loop's time.
        self._due_s = 0.0
        self._running_since_s: float | None = None
        self._running = False
        self._closed = False
        self.problem: str | None = None
        self.completed = 0

    def note(self, now_s: float) -> None:
        """Something was recorded: it is on disk within `sync_s`, and the time that a sync takes."""
        if self._waiting_since_s is None:
            self._waiting_since_s = now_s
            self._due_s = asyncio.get_running_loop().time() + self._sync_s
            if not self._running:  # else the end of the sync under way sets the timer
                self._set_timer()

    async def run(self) -> None:
        """Returns when everything written before the call is on disk, or `problem` says why it is not."""
        descriptors = [file.duplicate() for file in self._files]
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, _sync, descriptors, None)
        except OSError as error:
            self._failed(error)
        else:
            self.completed += 1

    def sync_aside(self, descriptors: list[int]) -> None:
        """Syncs and closes files just put aside, and the directory that has new names in it."""
        self._start(descriptors, self._directory)

    def oldest_unsynced_s(self) -> float | None:
        """When the oldest record was made that may not be on disk; None when all are."""
        times = [time_s for time_s in (self._waiting_since_s, self._running_since_s) if time_s is not None]
        return min(times, default=None)

    def close(self) -> None:
        """Starts nothing any more."""
        self._closed = True

    def _set_timer(self) -> None:
        asyncio.get_running_loop().call_at(self._due_s, self._on_timer)

    def _on_timer(self) -> None:
        if self._closed:
            return
        self._before()
        self._running = True
        self._running_since_s, self._waiting_since_s = self._waiting_since_s, None
        self._start([file.duplicate() for file in self._files], None)

    def _start(self, descriptors: list[int], directory: Path | None) -> None:
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, _sync, descriptors, directory)
        future.add_done_callback(self._ended if directory is None else self._aside_ended)

    def _ended(self, future: asyncio.Future[None]) -> None:
        self._running = False
        error = future.exception()
        if isinstance(error, OSError):
            self._failed(error)
            self._waiting_since_s = self._running_since_s
            self._due_s = asyncio.get_running_loop().time() + self._sync_s
        else:
            self.completed += 1
            self.problem = None
        self._running_since_s = None
        # Past its time already where the disk is slower than the interval.
        if self._waiting_since_s is not None and not self._closed:
            self._set_timer()

    def _aside_ended(self, future: asyncio.Future[None]) -> None:
        error = future.exception()
        if isinstance(error, OSError):
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        self.problem = f"it does not reach the disk ({error.strerror or 'error'})"
        _log.error("the audit log in %s: %s; the last records may be lost", self._directory, self.problem)


def _sync(descriptors: list[int], directory: Path | None) -> None:
    """Syncs and closes all, whatever fails; raises the first OSError."""
    problem: OSError | None = None
    if directory is not None:
        descriptors = [*descriptors, os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    for descriptor in descriptors:
        try:
            (os.fdatasync if directory is None else os.fsync)(descriptor)
        except OSError as error:
            problem = problem or error
        finally:
            os.close(descriptor)
    if problem is not None:
        raise problem
