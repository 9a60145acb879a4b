"""Who has the store open: the kernel says it of this machine, a document of others.

A handle binds an abstract Unix socket that has its number for a name, so that the name goes with the handle or its
process and with nothing else. The upper half of a number is a digest of the machine: its boot, and the network name
space, within which such names are seen.

Of another machine nothing is known but what it writes: handles count up once a minute in the document `owners`. One
that has not for three minutes, by the clock of whoever looks, is gone. What hangs on it is three seconds that a request
sent again is kept waiting (0018).

Any user of this machine can bind a name that is free, and so make a handle that is gone look alive.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ringfence_agent.keystore.vault_kv.documents import VaultDocuments
from ringfence_agent.keystore.vault_kv.rows import OWNERS
from ringfence_zones.errors import KeyStoreError, StoreUnavailableError

_RANDOM_BITS = 32
_MACHINE_BITS = 30
_COUNT_EVERY_S = 60.0
_GONE_AFTER_S = 180.0
_ATTEMPTS = 5


class VaultOwners:
    """One handle's number, and what it knows of others."""

    def __init__(
        self,
        documents: VaultDocuments,
        clock: Callable[[], float] = time.monotonic,
        machine: Callable[[], int] | None = None,
    ) -> None:
        self._documents = documents
        self._clock = clock
        self._machine = (machine or _machine)()
        self.owner_id = (self._machine << _RANDOM_BITS) | (secrets.randbits(_RANDOM_BITS) or 1)
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._counted_at_s: float | None = None
        # Of handles elsewhere: the count that was seen, and when it was seen first.
        self._counts: dict[int, tuple[int, float]] = {}

    def hold(self) -> int:
        """The number, alive to all on this machine from here until `close`. No I/O beyond it."""
        with self._lock:
            if self._socket is None:
                made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                try:
                    made.bind(self._name(self.owner_id))
                except OSError as error:
                    made.close()
                    raise StoreUnavailableError(
                        f"key store {self._documents.label} cannot show that it is open here: {error.strerror}"
                    ) from None
                self._socket = made
        return self.owner_id

    def count_up(self) -> None:
        """Lets other machines see that this handle is open, if it was held; called all the time."""
        now_s = self._clock()
        if self._socket is None or (self._counted_at_s is not None and now_s < self._counted_at_s + _COUNT_EVERY_S):
            return
        self._counted_at_s = now_s
        try:
            self._write(self.owner_id, is_open=True)
        except KeyStoreError:
            self._counted_at_s = None  # the next look tries again

    def is_alive(self, owner_id: int) -> bool:
        """Whether a handle is open anywhere."""
        self._documents.check_usable()
        if owner_id >> _RANDOM_BITS == self._machine:
            return self._is_bound(owner_id)
        document = self._documents.find(OWNERS)
        count = None if document is None else document.body["open"].get(str(owner_id))
        if count is None:
            return False
        now_s = self._clock()
        seen, since_s = self._counts.get(owner_id, (None, now_s))
        if seen != count:
            self._counts[owner_id] = count, now_s
            return True
        return now_s < since_s + _GONE_AFTER_S

    def close(self) -> None:
        """Lets go of the number; idempotent. Before the documents are closed."""
        with self._lock:
            held, self._socket = self._socket, None
        if held is None:
            return
        held.close()
        if self._counted_at_s is not None:
            try:
                self._write(self.owner_id, is_open=False)
            except KeyStoreError:
                pass  # others find out by themselves

    def _write(self, owner_id: int, *, is_open: bool) -> None:
        """This handle's line, without those of handles that are known to be gone."""
        for _ in range(_ATTEMPTS):
            document = self._documents.find(OWNERS)
            lines: dict[str, int] = {} if document is None else dict(document.body["open"])
            count = lines.pop(str(owner_id), 0)
            lines = {line: seen for line, seen in lines.items() if not self._is_known_gone(int(line), seen)}
            if is_open:
                lines[str(owner_id)] = count + 1
            if self._documents.write(OWNERS, {"open": lines}, 0 if document is None else document.version):
                return

    def _is_known_gone(self, owner_id: int, count: int) -> bool:
        if owner_id >> _RANDOM_BITS == self._machine:
            return not self._is_bound(owner_id)
        now_s = self._clock()
        seen, since_s = self._counts.setdefault(owner_id, (count, now_s))
        if seen != count:
            self._counts[owner_id] = count, now_s
            return False
        return now_s >= since_s + _GONE_AFTER_S

    def _is_bound(self, owner_id: int) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(self._name(owner_id))
            except OSError as error:
                return error.errno != errno.ECONNREFUSED
        return True

    def _name(self, owner_id: int) -> str:
        return f"\0ringfence-store-owner-{owner_id:x}"


def _machine() -> int:
    """A digest of what abstract sockets are seen in: this boot of this machine, and this network name space."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    name_space = os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116 - a link to no file
    digest = hashlib.sha256(boot + str(name_space).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> (32 - _MACHINE_BITS) or 1
