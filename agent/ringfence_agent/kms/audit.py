"""The audit log: one JSON line for every decision, written before its answer leaves.

Rules:

1. No line, no answer: when the log cannot be written the request is refused (503), whatever was decided. A change is
   not even begun on a log that failed at its last line or whose disk is full (`require_room`).
2. All workers append to one file; a single `write` of an O_APPEND file is never torn apart by another's.
3. Lines name users, keys, addresses and outcomes. They never hold key material, cookies, tokens or queries.
4. The file is synced to disk at most `sync_s` after a line was written.

A line: `{"time", "slot", "op", "key", "user", "identity", "from", "status", "outcome", "revision", ...}`; `identity`
is a word of `ringfence_agent.kms.caller.Identity`: `claimed` under simple authentication, `none` for nobody.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

import msgspec

from ringfence_zones.errors import ConfigError, StoreUnavailableError

_json = msgspec.json.encode
_JSON_LIMIT = 8192
_REMEMBERED_CHARS = 1024
# Far more than the longest line.
_ROOM_BYTES = 64 * 1024


class AuditLog:
    """The log as one worker writes it. `slot` is the worker's; used on the event loop only."""

    def __init__(
        self,
        path: Path,
        slot: int,
        executor: Executor,
        sync_s: float,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._descriptor = _open(path)
        self._slot = slot
        self._executor = executor
        self._sync_s = sync_s
        self._now_s = now_s
        self._sync_due = False
        # Why the last line could not be written, and whether a part of it is in the file.
        self._problem: str | None = None
        self._torn = False
        self._second = -1
        self._second_text = ""
        # JSON text of users, keys and addresses seen, so that a line is put together from bytes.
        self._quoted: dict[str, bytes] = {}

    def record(
        self,
        *,
        op: str,
        key: str | None,
        user: str | None,
        identity: str,
        address: str | None,
        status: int,
        outcome: str,
        revision: int,
        detail: dict[str, object] | None = None,
    ) -> None:
        """Writes one line. Raises StoreUnavailableError when it cannot be written whole."""
        quote = self._quote
        line = (
            b'{"time":"%b","slot":%d,"op":%b,"key":%b,"user":%b,"identity":"%b","from":%b,"status":%d,'
            b'"outcome":"%b","revision":%d%b}\n'
            % (
                self._time(),
                self._slot,
                quote(op),
                quote(key),
                quote(user),
                identity.encode(),
                quote(address),
                status,
                outcome.encode(),
                revision,
                b"," + _json(detail)[1:-1] if detail else b"",
            )
        )
        self._write(line)
        if not self._sync_due:
            self._sync_due = True
            asyncio.get_running_loop().call_later(self._sync_s, self._sync)

    def require_room(self) -> None:
        """Before a change: raises StoreUnavailableError when its line would probably not be written."""
        if self._problem is not None:
            raise self._unwritable(self._problem)
        disk = os.fstatvfs(self._descriptor)
        if disk.f_bavail * disk.f_frsize < _ROOM_BYTES:
            raise self._unwritable("the disk is full")

    def _write(self, line: bytes) -> None:
        if self._torn:
            line = b"\n" + line
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            self._problem = error.strerror or "error"
            raise self._unwritable(self._problem) from error
        if written != len(line):
            self._torn = True
            self._problem = "only a part of a line was taken"
            raise self._unwritable(self._problem)
        self._problem, self._torn = None, False

    def close(self) -> None:
        """Syncs and closes; idempotent."""
        if self._descriptor >= 0:
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _sync(self) -> None:
        self._sync_due = False
        if self._descriptor >= 0:
            # A duplicate, because close() may come before the thread does.
            self._executor.submit(_sync_and_close, os.dup(self._descriptor))

    def _quote(self, text: str | None) -> bytes:
        if text is None:
            return b"null"
        quoted = self._quoted.get(text)
        if quoted is None:
            quoted = _json(text)
            if len(text) <= _REMEMBERED_CHARS:
                if len(self._quoted) >= _JSON_LIMIT:
                    self._quoted.clear()
                self._quoted[text] = quoted
        return quoted

    def _time(self) -> bytes:
        now_s = self._now_s()
        second = int(now_s)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{int((now_s - second) * 1000):03d}Z".encode()

    def _unwritable(self, why: str) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"the audit log cannot be written: {why}", hint=f"see to space and permissions of {self._path}"
        )


def _sync_and_close(descriptor: int) -> None:
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o640)
    except OSError as error:
        raise ConfigError(f"cannot open the audit log {path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(f"the audit log {path} is not a regular file")
    return descriptor
