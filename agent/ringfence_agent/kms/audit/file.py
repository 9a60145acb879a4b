"""One worker's audit file: whole lines appended, kept apart from every other process's, rotated without losing one.

    <directory>/worker-0.lock                            held for the worker's life
    <directory>/worker-0.jsonl                           written now
    <directory>/worker-0.20261122T064501.123Z.jsonl      rotated; the time is when

Rules:

1. A number belongs to one process at a time: it holds a lock on `worker-N.lock`, which the kernel releases however the
   process ends. While a reload replaces a worker, two processes have two numbers.
2. Several lines are appended by one `write`. What could not be written whole is cut off again: a line in the file is a
   line that was accepted. A line torn by a dead machine is ended by a line break and passed over by readers.
3. Files are made with mode 0640 in a directory of 0750, links are not followed, nothing is ever overwritten.

It refuses to know what a line says.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ringfence_zones.errors import ConfigError

DIRECTORY_MODE = 0o750
_FILE_MODE = 0o640
_MAX_NUMBER = 10_000
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Seat:
    """The number that a worker writes under, taken for as long as it lives."""

    def __init__(self, directory: Path) -> None:
        """Takes the lowest free number; makes the directory. Raises ConfigError when neither can be."""
        self.directory = directory
        try:
            directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            self.number, self._lock = _take_number(directory)
        except OSError as error:
            raise ConfigError(
                f"cannot write audit files to {directory}: {error.strerror}",
                hint="give the KMS's user a directory of its own, and name it as audit.directory",
                command=f"install -d -m 0750 {directory}",
            ) from error

    def file(self, suffix: str) -> AuditFile:
        """This number's file with names ending in `suffix`. Raises ConfigError."""
        path = self.directory / f"worker-{self.number}{suffix}"
        try:
            return AuditFile(path, suffix)
        except OSError as error:
            raise ConfigError(f"cannot open the audit file {path}: {error.strerror}") from error

    def leave(self) -> None:
        """Gives the number back; idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _take_number(directory: Path) -> tuple[int, int]:
    for number in range(_MAX_NUMBER):
        lock = os.open(directory / f"worker-{number}.lock", _FLAGS, _FILE_MODE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return number, lock
    raise ConfigError(f"{_MAX_NUMBER} processes write audit files in {directory} already")


class AuditFile:
    """One file, open for appending by this process alone. Methods raise OSError."""

    def __init__(self, path: Path, suffix: str, now_s: Callable[[], float] = time.time) -> None:
        self.path = path
        self.size = 0
        self._suffix = suffix
        self._now_s = now_s
        self._descriptor = -1
        self._torn = False
        self._open()

    def append(self, lines: bytes) -> None:
        """Writes whole lines. On an error nothing of them stays, as far as the disk lets itself be told."""
        data = b"\n" + lines if self._torn else lines
        problem: OSError | None = None
        written = 0
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            problem = error
        if written == len(data):
            self._torn = False
            self.size += written
            return
        if written:
            self._cut_off()
        raise problem or OSError(0, "only a part was taken, as on a full disk")

    def duplicate(self) -> int:
        """A descriptor of the same file for another thread, which closes it."""
        return os.dup(self._descriptor)

    def rotate(self) -> Path | None:
        """Puts the file aside under a name with the time and begins a new one; where it went, None for an empty one.

        The new file is there before this returns; on an error the old one is written on.
        """
        if not self.size:
            return None
        aside = self._name_aside()
        self.path.rename(aside)
        try:
            self._reopen()
        except OSError:
            with suppress(OSError):
                aside.rename(self.path)
            raise
        return aside

    def was_moved(self) -> bool:
        """Whether somebody else, logrotate say, has put another file or none in this one's place."""
        try:
            there = self.path.lstat()
        except FileNotFoundError:
            return True
        ours = os.fstat(self._descriptor)
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)

    def follow(self) -> None:
        """Begins the file anew where somebody else has moved it away."""
        self._reopen()

    def close(self) -> None:
        """Syncs and closes; idempotent."""
        if self._descriptor >= 0:
            os.fdatasync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _reopen(self) -> None:
        old = self._descriptor
        self._open()
        os.close(old)

    def _open(self) -> None:
        descriptor = os.open(self.path, _FLAGS, _FILE_MODE)
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            os.close(descriptor)
            raise OSError(0, "it is not a regular file")
        self._descriptor, self.size = descriptor, state.st_size
        self._torn = state.st_size > 0 and _last_byte(self.path, state.st_size) != b"\n"

    def _cut_off(self) -> None:
        try:
            os.ftruncate(self._descriptor, self.size)
        except OSError:
            self._torn = True
            with suppress(OSError):
                self.size = os.fstat(self._descriptor).st_size

    def _name_aside(self) -> Path:
        milliseconds = int(self._now_s() * 1000)
        while True:
            second, rest = divmod(milliseconds, 1000)
            clock = time.strftime("%Y%m%dT%H%M%S", time.gmtime(second))
            stem = self.path.name.removesuffix(self._suffix)
            aside = self.path.with_name(f"{stem}.{clock}.{rest:03d}Z{self._suffix}")
            if not aside.exists():
                return aside
            milliseconds += 1


def _last_byte(path: Path, size: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(size - 1)
        return stream.read(1)
