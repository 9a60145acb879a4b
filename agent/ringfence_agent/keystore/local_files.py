"""What a store asks of the file system before it trusts it.

Refuses: a directory others can write to (they could replace the store), symbolic links, files of other owners or
with rights for others, and network file systems (SQLite's write-ahead log needs memory shared between processes of
one machine and locks that work).
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence_zones.errors import ConfigError, StoreUnavailableError

# As mountinfo spells them.
_NETWORK_FILE_SYSTEMS = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4"}
    | {"smb3", "smbfs", "fuse.ceph", "fuse.davfs2", "fuse.glusterfs", "fuse.goofys", "fuse.mount-s3"}
    | {"fuse.rclone", "fuse.s3fs", "fuse.sshfs"}
)
MOUNTS = Path("/proc/self/mountinfo")
_LOCK_WAIT_S = 10.0
_LOCK_POLL_S = 0.01


def check_directory(directory: Path, what: str) -> None:
    """Raises ConfigError when `directory` cannot safely hold `what` ("key store", "root key file")."""
    try:
        found = directory.stat()
    except FileNotFoundError:
        raise ConfigError(
            f"directory {directory} for the {what} does not exist",
            hint="make it first, private to the service's user",
            command=f"install -d -m 700 {directory}",
        ) from None
    except OSError as exc:
        raise ConfigError(f"directory {directory} for the {what} cannot be reached: {exc.strerror}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{directory}, which should hold the {what}, is not a directory")
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"directory {directory} of the {what} belongs to uid {found.st_uid}, who could replace the {what}",
            hint=f"use a directory of uid {os.geteuid()}, the user this process runs as",
        )
    if stat.S_IMODE(found.st_mode) & 0o022:
        raise ConfigError(
            f"directory {directory} of the {what} has mode {stat.S_IMODE(found.st_mode):04o}:"
            f" others can write there and could replace the {what}",
            hint="use a private directory, or take the rights away",
            command=f"chmod go-w {directory}",
        )


def check_writable(directory: Path) -> None:
    """Raises StoreUnavailableError on a read-only file system or without write permission."""
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        raise StoreUnavailableError(
            f"key store directory {directory} is on a read-only file system",
            hint="mount it read-write, or move the store: it records every change before acknowledging it",
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        raise StoreUnavailableError(
            f"key store directory {directory} is not writable by uid {os.geteuid()}",
            hint="run as the directory's owner: SQLite keeps its log beside the store",
        )


def check_local(directory: Path, mounts: Path = MOUNTS) -> None:
    """Raises ConfigError when `directory` is on a network file system, as `mounts` (proc(5) mountinfo) has it."""
    kind = file_system_of(directory, mounts)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise ConfigError(
            f"key store directory {directory} is on a network file system ({kind}), which SQLite cannot use safely",
            hint="keep the store on a local disk; back it up to the network instead",
        )


def file_system_of(directory: Path, mounts: Path = MOUNTS) -> str | None:
    """The type of the file system that holds `directory`; None when the mount table cannot be read."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    target = os.path.realpath(directory)
    best: tuple[int, str] | None = None
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = _unescape(fields[4])
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and (best is None or len(point) >= best[0]):  # a later mount of the same point covers the earlier
            best = len(point), right.split(" ")[0]
    return best[1] if best else None


def _unescape(field: str) -> str:
    """mountinfo writes space, tab, newline and backslash as three octal digits."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def check_store_file(path: Path) -> None:
    """Raises ConfigError when the store file is not a regular file private to this user."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise ConfigError(f"key store {path} is a symbolic link, which is refused", hint="give the path of the file")
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"key store {path} is not a regular file", hint="give the path of a file")
    if found.st_uid != os.geteuid():
        raise ConfigError(
            f"key store {path} belongs to uid {found.st_uid}, but this process runs as uid {os.geteuid()}",
            hint="run as the store's owner",
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(
            f"key store {path} has mode {stat.S_IMODE(found.st_mode):04o}: others than its owner can reach it",
            hint="make it private; its keys are sealed, its names and policy are not",
            command=f"chmod 600 {path}",
        )


@contextmanager
def directory_locked(directory: Path) -> Iterator[None]:
    """Holds the advisory lock of a directory, so that one process at a time creates a store in it.

    The kernel lets go of it when the process dies. Raises StoreUnavailableError after 10 s.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreUnavailableError(
                        f"another process has held the lock of {directory} for {_LOCK_WAIT_S:.0f} s",
                        hint="see which with: fuser -v " + str(directory),
                    ) from None
                time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)
