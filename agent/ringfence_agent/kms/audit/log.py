"""The audit log: one record for every decision, in the file before its answer leaves.

Rules:

1. `record` only remembers. `commit`, which the HTTP core calls once per turn of the event loop before it lets any
   answer of that turn go, appends everything remembered by one write. So whatever ends the process, no client has an
   answer that is not on record, and the kernel has the record already.
2. No record, no answer: when the write fails, `commit` says so and every answer of the turn is replaced by a refusal
   (`required`, the default). Otherwise the loss is counted, said once, and the answers go.
3. A change is on record, and on disk, before it is begun (`begin`): none is ever committed that the log does not know.
4. A record is on disk at most `sync_s` after its answer left; that is what a power cut can take. A disk that fails to
   sync counts as a log that cannot be written until a sync succeeds.
5. Each worker has files of its own (`audit_file`); readers merge them. Nothing is merged into counts.

Used on the event loop only; syncing and deleting old files happens in the thread it is given.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ringfence_agent.kms.audit.config import AuditFormat, AuditSettings
from ringfence_agent.kms.audit.file import AuditFile, Seat
from ringfence_agent.kms.audit.hadoop_format import HadoopLines
from ringfence_agent.kms.audit.reader import HADOOP_SUFFIX, JSON_SUFFIX, find_rotated, last_sequence
from ringfence_agent.kms.audit.record import BEGUN, Decision, Details, JsonLines, LineFormat
from ringfence_agent.kms.audit.sync import DiskSync
from ringfence_zones.errors import StoreUnavailableError

_log = logging.getLogger(__name__)

# Far more than the longest line.
_ROOM_BYTES = 64 * 1024


@dataclass(slots=True)
class _Output:
    """One format, its file, and the lines that are not yet in it."""

    format: LineFormat
    file: AuditFile
    pending: list[bytes]


@dataclass(frozen=True, slots=True)
class AuditState:
    """How the log is, for `status` and metrics. `unsynced_s` is the age of the oldest record that is not on disk."""

    directory: Path
    format: str
    required: bool
    problem: str | None
    lost: int
    unsynced_s: float
    written_bytes: int
    syncs: int


class AuditLog:
    """The log as one worker writes it. Raises ConfigError when it cannot be begun. `slot` is the worker's."""

    def __init__(
        self, settings: AuditSettings, slot: int, executor: Executor, now_s: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._executor = executor
        self._now_s = now_s
        self._seat = Seat(settings.directory)
        self._outputs = _open_outputs(settings.format, self._seat, slot)
        self._sequence = last_sequence(settings.directory, self._seat.number)
        # The sequence of the last record that is in the files.
        self._written = self._sequence
        # When the first record since the last `commit` was made. The others of that turn are given the same time: an
        # answer leaves after `commit`, so what anybody does because of it has a later one, whichever worker does it.
        self._turn_s = 0.0
        self._begun_s = now_s()
        # Why the last write failed, and how many records there are not.
        self._write_problem: str | None = None
        self._lost = 0
        self._written_bytes = 0
        self._closed = False
        files = [output.file for output in self._outputs]
        self._sync = DiskSync(files, settings.directory, executor, settings.sync_s, before=self.commit)

    def record(self, decision: Decision, details: Details | None = None) -> None:
        """Remembers one record until `commit`."""
        if self._sequence == self._written:
            self._turn_s = self._now_s()
            self._sync.note(self._turn_s)
        self._sequence += 1
        for output in self._outputs:
            output.pending.append(output.format.line(self._turn_s, self._sequence, decision, details))

    def commit(self) -> StoreUnavailableError | None:
        """Writes what was recorded. Returns the refusal that must take the answers' place when it cannot, None else."""
        if self._sequence == self._written:
            return None  # nothing was decided in this turn
        try:
            for output in self._outputs:
                if output.pending:
                    lines = b"".join(output.pending)
                    output.file.append(lines)
                    self._written_bytes += len(lines)
            self._written = self._sequence
            self._write_problem = None
        except OSError as error:
            self._forget_pending(error)
        for output in self._outputs:
            output.pending.clear()
            if output.file.size >= self._settings.rotate_bytes:
                self.rotate()
        return self._refusal()

    async def begin(self, decision: Decision, details: Details | None = None) -> None:
        """Before a change: records that it is about to be made, and returns when that is on disk.

        Raises StoreUnavailableError when the change must not be begun.
        """
        self._require_room()
        self.record(decision._replace(outcome=BEGUN, status=None), details)
        refusal = self.commit()
        if refusal is None:
            await self._sync.run()
            refusal = self._refusal()
        if refusal is not None:
            raise refusal

    def require_writable(self) -> None:
        """Raises StoreUnavailableError when the last write or sync failed and records are required."""
        refusal = self._refusal()
        if refusal is not None:
            raise refusal

    @property
    def state(self) -> AuditState:
        """How the log is."""
        since_s = self._sync.oldest_unsynced_s()
        return AuditState(
            directory=self._settings.directory,
            format=self._settings.format.value,
            required=self._settings.required,
            problem=self._write_problem or self._sync.problem,
            lost=self._lost,
            unsynced_s=0.0 if since_s is None else max(0.0, self._now_s() - since_s),
            written_bytes=self._written_bytes,
            syncs=self._sync.completed,
        )

    # -- rotation

    def rotate(self) -> None:
        """Puts the files aside and begins new ones; on an error goes on with the old ones."""
        self._change_files(AuditFile.rotate)

    def reopen(self) -> None:
        """On a signal: follows files that somebody moved away, and rotates those that nobody did."""
        self._change_files(lambda file: file.follow() if file.was_moved() else file.rotate())

    def tick(self) -> None:
        """About once a second: rotates what is old enough and writes what was recorded for clients who have gone."""
        self.commit()
        rotate_s = self._settings.rotate_s
        if rotate_s is not None and self._now_s() - self._begun_s >= rotate_s:
            self.rotate()

    def close(self) -> None:
        """Writes, syncs and closes; idempotent."""
        if not self._closed:
            self._closed = True
            self.commit()
            self._sync.close()
            for output in self._outputs:
                output.file.close()
            self._seat.leave()

    # -- inside

    def _refusal(self) -> StoreUnavailableError | None:
        problem = self._write_problem or self._sync.problem
        return None if problem is None or not self._settings.required else self._unwritable(problem)

    def _unwritable(self, problem: str) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"the audit log cannot be written: {problem}",
            hint=f"see to space and permissions of {self._settings.directory}",
        )

    def _require_room(self) -> None:
        """What becomes of a change has to be written too, or its answer would be a refusal although it was made."""
        try:
            disk = os.statvfs(self._settings.directory)
        except OSError:
            return  # the write that follows says what is wrong
        if self._settings.required and disk.f_bavail * disk.f_frsize < _ROOM_BYTES:
            raise self._unwritable("the disk is full")

    def _forget_pending(self, error: OSError) -> None:
        problem = error.strerror or "error"
        if self._write_problem is None:
            what = "requests are refused" if self._settings.required else "requests are served without a record"
            _log.error("the audit log in %s cannot be written: %s; %s", self._settings.directory, problem, what)
        self._write_problem = problem
        self._lost += self._sequence - self._written
        self._sequence = self._written

    def _change_files(self, change: Callable[[AuditFile], object]) -> None:
        if self._closed:
            return
        settings = self._settings
        # What was written to the old files still has to reach the disk.
        old = [output.file.duplicate() for output in self._outputs]
        try:
            for output in self._outputs:
                change(output.file)
        except OSError as error:
            _log.error("an audit file in %s cannot be put aside: %s", settings.directory, error.strerror)
        self._begun_s = self._now_s()
        self._sync.sync_aside(old)
        self._executor.submit(_drop_old, settings)


def _open_outputs(wanted: AuditFormat, seat: Seat, slot: int) -> list[_Output]:
    outputs = []
    if wanted is not AuditFormat.HADOOP:
        outputs.append(_Output(JsonLines(slot), seat.file(JSON_SUFFIX), []))
    if wanted is not AuditFormat.JSON:
        lines = HadoopLines(writes_begun=wanted is AuditFormat.HADOOP)
        outputs.append(_Output(lines, seat.file(HADOOP_SUFFIX), []))
    return outputs


def _drop_old(settings: AuditSettings) -> None:
    """Deletes what `keep_age` and `keep_files` say; nothing when neither says anything."""
    if settings.keep_s is None and settings.keep_files is None:
        return
    dated = []
    for path in find_rotated(settings.directory):
        with suppress(OSError):  # another worker was faster
            dated.append((path.stat().st_mtime, path))
    dated.sort(reverse=True)
    oldest_s = time.time() - settings.keep_s if settings.keep_s is not None else 0.0
    kept = len(dated) if settings.keep_files is None else settings.keep_files
    for number, (modified_s, path) in enumerate(dated):
        if number >= kept or modified_s < oldest_s:
            with suppress(OSError):
                path.unlink()
