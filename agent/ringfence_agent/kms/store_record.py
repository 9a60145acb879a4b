"""What all workers of this server know together of how their store is kept: backed up when, found genuine when.

It is anonymous memory, made before the fork. Whoever does a piece of work writes down what came of it, and every worker
acts on that and tells it. Work is done by one of them at a time: who does it holds the record's lock, which the kernel
takes from a process that dies.

Times are epoch milliseconds, 0 for never; due times are of the monotonic clock, which all processes share.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ringfence_zones.errors import StoreUnavailableError

_CELLS = (
    *("check_due_ms", "checked_ms", "distrusted_ms", "missing_changes"),
    *("backup_due_ms", "backup_number", "backup_ms", "backup_failed_ms", "behind_since_ms"),
)
_TEXTS = ("distrust", "backup_place", "backup_problem")
_TEXT_BYTES = 2048
_LENGTH = struct.Struct("<H")
_PLACES = {name: index for index, name in enumerate(_CELLS)}
_DISTRUSTED = _PLACES["distrusted_ms"]
_CELL_BYTES = 8
_LOCK_WAIT_S = 60.0
_LOCK_POLL_S = 0.02


class StoreRecord:
    """See the module."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._memory = mmap.mmap(-1, len(_CELLS) * _CELL_BYTES + len(_TEXTS) * _TEXT_BYTES)
        self._cells = memoryview(self._memory)[: len(_CELLS) * _CELL_BYTES].cast("Q")
        # Nothing is ever in it: a lock belongs to a process and this file.
        self._lock = os.memfd_create("ringfence-store-record", os.MFD_CLOEXEC)

    @contextmanager
    def held(self) -> Iterator[None]:
        """One process at a time; called in one thread of each. Raises StoreUnavailableError when it takes too long."""
        deadline_s = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise StoreUnavailableError("another worker has been busy with the key store's backup") from None
                time.sleep(_LOCK_POLL_S)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    # -- is the store genuine

    def note_opened(self, now_ms: int, every_s: float) -> None:
        """A worker opened the store, which verifies all of it; the first one counts."""
        if not self.checked_ms:
            self._set("checked_ms", now_ms)
            self.retry_check_in(every_s)

    def take_check(self, every_s: float) -> bool:
        """Whether the store is to be verified now, by the caller."""
        return self._take("check_due_ms", every_s)

    def note_genuine(self, now_ms: int) -> None:
        """All of the store was verified."""
        self._set("checked_ms", now_ms)
        self._set("distrusted_ms", 0)

    def note_distrust(self, why: str, now_ms: int) -> None:
        """The store is not what this server wrote."""
        self._set_text("distrust", why)
        self._set("distrusted_ms", self._get("distrusted_ms") or now_ms)

    def retry_check_in(self, after_s: float) -> None:
        """When the store is to be verified again."""
        self._set("check_due_ms", int((self._clock() + after_s) * 1000))

    @property
    def checked_ms(self) -> int:
        """When all of the store was last found genuine."""
        return self._get("checked_ms")

    @property
    def distrusted_ms(self) -> int:
        """Since when the store is known not to be genuine; 0: it is not known."""
        return self._get("distrusted_ms")

    def find_distrust(self) -> str | None:
        """What is wrong with the store, None when nothing is known to be. Cheap enough for each request."""
        return self._get_text("distrust") if self._cells[_DISTRUSTED] else None

    def note_missing(self, changes: int) -> None:
        """So many changes less are in the store than were seen of it before it was opened; 0 when it is not so."""
        self._set("missing_changes", changes)

    @property
    def missing_changes(self) -> int:
        """See `note_missing`."""
        return self._get("missing_changes")

    # -- backups

    def take_backup(self, every_s: float) -> bool:
        """Whether somebody has to see whether a backup is due, and that is the caller."""
        return self._take("backup_due_ms", every_s)

    def retry_backup_in(self, after_s: float) -> None:
        """When that is to be seen to again."""
        self._set("backup_due_ms", int((self._clock() + after_s) * 1000))

    def note_change(self, now_ms: int) -> None:
        """Something was committed that no backup holds yet."""
        if not self._get("behind_since_ms"):
            self._set("behind_since_ms", now_ms)

    def note_backup(self, number: int, made_ms: int | None, where: str) -> None:
        """A backup holds everything up to this change number; `made_ms` is None when somebody else made it."""
        self._set("backup_number", number)
        self._set("behind_since_ms", 0)
        self._set("backup_failed_ms", 0)
        self._set_text("backup_place", where)
        if made_ms is not None:
            self._set("backup_ms", made_ms)

    def note_backup_failed(self, why: str, now_ms: int) -> None:
        """A backup could not be made."""
        self._set_text("backup_problem", why)
        self._set("backup_failed_ms", now_ms)

    @property
    def backup_number(self) -> int:
        """The change number that the newest known backup holds."""
        return self._get("backup_number")

    @property
    def backup_ms(self) -> int:
        """When this server last made one."""
        return self._get("backup_ms")

    @property
    def behind_since_ms(self) -> int:
        """Since when there is a change that no backup holds; 0: there is none."""
        return self._get("behind_since_ms")

    @property
    def backup_place(self) -> str:
        """The newest known backup."""
        return self._get_text("backup_place")

    def find_backup_problem(self) -> str | None:
        """Why the last try failed; None when it did not."""
        return self._get_text("backup_problem") if self._get("backup_failed_ms") else None

    # --

    def _take(self, name: str, every_s: float) -> bool:
        """Two who come at the same moment may both be told so, which costs a second look and nothing else."""
        now_ms = int(self._clock() * 1000)
        if now_ms < self._get(name):
            return False
        self._set(name, now_ms + int(every_s * 1000))
        return True

    def _get(self, name: str) -> int:
        return self._cells[_PLACES[name]]

    def _set(self, name: str, value: int) -> None:
        self._cells[_PLACES[name]] = value

    def _get_text(self, name: str) -> str:
        place = self._text_place(name)
        (length,) = _LENGTH.unpack_from(self._memory, place)
        return self._memory[place + _LENGTH.size : place + _LENGTH.size + length].decode(errors="replace")

    def _set_text(self, name: str, text: str) -> None:
        encoded = text.encode(errors="replace")[: _TEXT_BYTES - _LENGTH.size]
        place = self._text_place(name)
        _LENGTH.pack_into(self._memory, place, 0)
        self._memory[place + _LENGTH.size : place + _LENGTH.size + len(encoded)] = encoded
        _LENGTH.pack_into(self._memory, place, len(encoded))

    def _text_place(self, name: str) -> int:
        return len(_CELLS) * _CELL_BYTES + _TEXTS.index(name) * _TEXT_BYTES
