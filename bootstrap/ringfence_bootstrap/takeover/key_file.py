"""Exchanges the stock KMS's key store for a new one, and puts the old one back.

Hadoop's local file system keeps checksums beside a file (`.NAME.crc`) and refuses a file that does not match them, so
they go where their file goes.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ringfence_zones.errors import InstallError


def beside(path: Path, suffix: str) -> Path:
    """A name in the same directory, so that a rename is one step."""
    return path.with_name(f"{path.name}.{suffix}")


def put_in_place(new: Path, target: Path, backup: Path) -> None:
    """`target` becomes `new`, with the owner and mode it had; what it was stays as `backup`. One that was not there
    gets the directory's owner, who is the stock KMS's user, and there is no backup. Raises InstallError.
    """
    try:
        if target.exists():
            like = target.stat()
            _give(new, like, like.st_mode & 0o777)
            os.link(target, backup)
            if _checksums(target).exists():
                _checksums(target).rename(_checksums(backup))
        else:
            _give(new, target.parent.stat(), 0o600)
        new.replace(target)
        _sync(target.parent)
    except OSError as error:
        raise InstallError(f"cannot put the keys into {target}: {error.strerror}") from error


def _give(new: Path, like: os.stat_result, mode: int) -> None:
    """Gives our new file another's owner, and a mode, by its descriptor: the directory is the stock KMS's user's, who
    could have put a link to any file of the system in its place. Raises OSError and InstallError.
    """
    descriptor = os.open(new, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid not in (os.geteuid(), like.st_uid):
            raise InstallError(f"{new} is not the file that was made for the keys: somebody else is at work there")
        os.fchown(descriptor, like.st_uid, like.st_gid)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def put_back(target: Path, backup: Path, *, is_new: bool = False) -> None:
    """`target` is `backup` again, when there is one; else nothing had happened. With `is_new` there was none before,
    and there is none again. Raises InstallError.
    """
    try:
        if is_new:
            _checksums(target).unlink(missing_ok=True)
            target.unlink(missing_ok=True)
            return
        if not backup.exists():
            return
        if _checksums(backup).exists():
            _checksums(backup).replace(_checksums(target))
        else:
            _checksums(target).unlink(missing_ok=True)
        backup.replace(target)
        backup.unlink(missing_ok=True)  # a rename between two names of one file does nothing
        _sync(target.parent)
    except OSError as error:
        raise InstallError(f"cannot put {backup} back as {target}: {error.strerror}") from error


def _checksums(path: Path) -> Path:
    return path.with_name(f".{path.name}.crc")


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
