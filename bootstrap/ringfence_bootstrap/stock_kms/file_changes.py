"""Files that a hardening makes or changes, each one step of a journal.

A file that was there is kept as a copy in the state directory, with its owner and mode, before it is changed: Hadoop's
files may hold passwords, and a journal holds none. Undoing puts the copy back, byte by byte, or removes what was made.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ringfence_bootstrap.journal import Step, Undo
from ringfence_bootstrap.stock_kms.foreign_directories import acting_for, read_regular
from ringfence_zones.durable_file import replace_file, sync
from ringfence_zones.errors import ConfigError, InstallError

# Of a key store, which is the largest.
MAX_FILE_BYTES = 64 * 1024 * 1024

Make = Callable[[bytes | None], bytes]
"""A file's new content from the old one, None when there is none. Gives the same each time it is asked."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who a file belongs to."""

    uid: int
    gid: int

    @classmethod
    def of(cls, path: Path) -> Owner:
        """Of an existing file or directory. Raises ConfigError."""
        try:
            found = path.stat()
        except OSError as error:
            raise ConfigError(f"cannot look at {path}: {error.strerror}") from error
        return cls(found.st_uid, found.st_gid)


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file. `mode` and `owner` are for a file that is not there yet, or, with `forced`, for any."""

    path: Path
    make: Make
    mode: int
    owner: Owner
    forced: bool = False

    def step(self, name: str, title: str, state: Path) -> Step:
        """The change as a step."""
        return Step(name, title, self._write, restore, lambda: self._keep(name, state))

    def _keep(self, name: str, state: Path) -> Undo:
        old = read_if_there(self.path)
        new = hashlib.sha256(self.make(old)).hexdigest()
        if old is None:
            return {"path": str(self.path), "kept": None, "written": new}
        kept = kept_copy(name, state)
        found = self.path.stat()
        try:
            replace_file(kept, old)
        except OSError as error:
            raise InstallError(f"cannot keep a copy of {self.path} in {state}: {error.strerror}") from error
        return {
            "path": str(self.path),
            "kept": str(kept),
            "written": new,
            "mode": stat.S_IMODE(found.st_mode),
            "uid": found.st_uid,
            "gid": found.st_gid,
        }

    def _write(self) -> None:
        old = read_if_there(self.path)
        mode, owner = self.mode, self.owner
        if old is not None and not self.forced:
            found = self.path.stat()
            mode, owner = stat.S_IMODE(found.st_mode), Owner(found.st_uid, found.st_gid)
        put(self.path, self.make(old), mode, owner)


def kept_copy(name: str, state: Path) -> Path:
    """Where the file that a step of this name changes is kept."""
    return state / f"before-{name}"


def put(path: Path, content: bytes, mode: int, owner: Owner) -> None:
    """Gives a file this content, owner and mode in one step; a link stays one. Raises InstallError."""
    try:
        with acting_for(path):
            target = path.resolve()
            draft = target.with_name(f".{target.name}.ringfence")
            draft.unlink(missing_ok=True)  # of a process that died
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                if os.geteuid() == 0:
                    os.fchown(descriptor, owner.uid, owner.gid)
                stream.write(content)
                stream.flush()
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            with acting_for(path):
                draft.replace(target)
                sync(target.parent)
        except BaseException:
            with acting_for(path):
                draft.unlink(missing_ok=True)  # it may hold half a secret
            raise
    except OSError as error:
        raise InstallError(f"cannot write {path}: {error.strerror}") from error


def restore(undo: Undo) -> None:
    """What a step's `prepare` noted is true again. Raises InstallError."""
    path = Path(undo["path"])
    try:
        if undo["kept"] is None:
            with acting_for(path):
                path.unlink(missing_ok=True)
            return
        put(path, Path(undo["kept"]).read_bytes(), int(undo["mode"]), Owner(int(undo["uid"]), int(undo["gid"])))
    except OSError as error:
        raise InstallError(f"cannot put {path} back: {error.strerror}") from error


def is_as_written(undo: Undo) -> bool:
    """Whether nobody changed the file since."""
    content = read_if_there(Path(undo["path"]))
    return content is not None and hashlib.sha256(content).hexdigest() == undo["written"]


def read_if_there(path: Path) -> bytes | None:
    """A configuration file, None when there is none. Raises ConfigError."""
    try:
        with acting_for(path):
            content = read_regular(path, MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    return content
