"""Who has an SQLite store open, as the kernel knows it: one locked byte for each owner, in a file beside the store.

The file is `<store>-owners`, always empty: locks may lie beyond its end. Each handle locks the byte at its own random
number, through an open file description of its own, so the lock goes with the handle or its process and with nothing
else (a POSIX record lock would go with *any* descriptor of the file that the process closes). Nothing is ever written
or removed there; a backup does not need it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
from pathlib import Path

from ringfence_zones.errors import StoreUnavailableError

# struct flock of Linux on 64-bit machines: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = struct.Struct("@hhqqi4x")


class SqliteOwners:
    """One handle's part in the file."""

    def __init__(self, store: Path) -> None:
        self.owner_id = secrets.randbelow((1 << 62) - 1) + 1
        self._path = store.with_name(store.name + "-owners")
        self._descriptor: int | None = None

    def hold(self) -> None:
        """Locks this owner's byte; idempotent. Raises StoreUnavailableError."""
        if self._descriptor is not None:
            return
        descriptor = self._open()
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_WRLCK, self.owner_id))
        except OSError as exc:
            os.close(descriptor)
            raise self._unavailable(exc) from exc
        self._descriptor = descriptor

    def is_alive(self, owner_id: int) -> bool:
        """Whether any handle holds this number. Raises StoreUnavailableError."""
        descriptor = self._open()  # one's own description would not see one's own lock
        try:
            answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, owner_id))
        except OSError as exc:
            raise self._unavailable(exc) from exc
        finally:
            os.close(descriptor)
        kind: int = _FLOCK.unpack(answer)[0]
        return kind != fcntl.F_UNLCK

    def close(self) -> None:
        """Lets go of the number; idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise self._unavailable(exc) from exc

    def _unavailable(self, exc: OSError) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self._path}, which shows who has the key store open, cannot be used: {exc.strerror}",
            hint="it is an empty file, mode 0600, of the user that the key server runs as; remove it when it is not",
        )


def _lock(kind: int, owner_id: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, owner_id, 1, 0)
