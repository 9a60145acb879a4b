"""Stores on disk for tests: making them, filling them, and acting on them in a child process that can be killed."""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ringfence_agent.keystore.held import TransitVersion
from ringfence_agent.keystore.interface import NewKey, OpenStore
from ringfence_agent.keystore.open import open_keystore
from ringfence_zones.keys import DEFAULT_CIPHER, version_name
from ringfence_zones.secret import Secret


@dataclass(frozen=True)
class LocalStore:
    """Where a store and its root key are."""

    directory: Path

    @property
    def path(self) -> Path:
        return self.directory / "keys.db"

    @property
    def root_key(self) -> Path:
        return self.directory / "keys.db.root-key"

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.path}"

    def open(self) -> OpenStore:
        return open_keystore(self.uri, None, init=False)


def material_of(name: str, version: int, length_bits: int = 256) -> Secret:
    """Material that a test can predict."""
    return Secret(hashlib.sha256(version_name(name, version).encode()).digest()[: length_bits // 8])


def new_key(name: str, version: int = 0) -> NewKey:
    """A 256-bit key with the material `material_of` predicts."""
    return NewKey(name, DEFAULT_CIPHER, 256, material_of(name, version), None, {})


TRANSIT_KEY = "z-" + "h" * 26


def held_key(name: str) -> NewKey:
    """A key that Vault holds, in version 1 of TRANSIT_KEY."""
    return NewKey(name, DEFAULT_CIPHER, 256, TransitVersion(TRANSIT_KEY, 1), None, {"ringfence.custody": "transit"})


def in_child(action: Callable[[int], None]) -> tuple[int, int]:
    """Runs `action(write_end)` in a forked child; gives its pid and the read end of the pipe it reports through.

    The child exits 0, or 1 with its traceback on stderr. No store may be open when this is called.
    """
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write_end)
        return pid, read_end
    status = 1
    try:
        os.close(read_end)
        gc.freeze()  # else the first collection copies all that the parent has
        action(write_end)
        status = 0
    except BaseException:  # noqa: BLE001 -- the child must not run on into the test suite
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(status)


def read_all(descriptor: int) -> list[str]:
    """Every whole line until the other end is closed; a line cut off by a kill was not acknowledged."""
    with os.fdopen(descriptor, "rb") as stream:
        text = stream.read().decode()
    return text.split("\n")[:-1]


def kill(pid: int) -> None:
    """SIGKILL, and the child's remains."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@contextmanager
def tmpfs(directory: Path, size: str) -> Iterator[None]:
    """A file system of `size` (mount's spelling) on an empty directory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", directory], check=True)
    try:
        yield
    finally:
        # Lazily: a process that was killed a moment ago may still hold it, and the name must be free.
        subprocess.run(["umount", "--lazy", directory], check=True)


def can_mount() -> bool:
    """Root with the right to mount; else the size limit stands in, as it does for every developer."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode == 0
