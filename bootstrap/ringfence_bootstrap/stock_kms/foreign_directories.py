"""Files in directories that are not root's: what is done there is done as whoever they belong to.

The key store lies in a directory of the KMS's user, who can put a link, a pipe or another directory in the place of
anything in it at any moment. Root would follow a link and read or replace any file of the machine for that user; the
user's own rights are what it may cost. The first directory or link on the way that is not root's decides: what comes
before it nobody else can exchange, what comes after it anybody with its owner's rights can.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence_zones.user_rights import acting_as

_MAX_LINKS = 40
_NOBODY = 65534


@contextmanager
def acting_for(path: Path) -> Iterator[None]:
    """Whose directories lead to `path`, as whom the block is run. Raises OSError; for root alone, changes nothing.

    Of the process, not of a thread.
    """
    uid = _who_decides(path) if os.geteuid() == 0 else 0
    if uid == 0:
        yield
        return
    gid = _group_of(uid)
    with acting_as(uid, gid, [gid]):
        yield


def read_regular(path: Path, limit: int) -> bytes:
    """The first `limit` bytes of a file; never of a pipe or a device, which may have no end. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return stream.read(limit)


def _who_decides(path: Path) -> int:
    place, left, links = Path("/"), list(path.absolute().parts[1:]), 0
    while left:
        here = place / left.pop(0)
        try:
            found = here.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return 0
        is_link = stat.S_ISLNK(found.st_mode)
        if found.st_uid != 0 and (is_link or stat.S_ISDIR(found.st_mode)):
            return found.st_uid
        if not is_link:
            place = here.parent.parent if here.name == ".." else here
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = here.readlink()
        left[:0] = target.parts[1:] if target.is_absolute() else target.parts
        place = Path("/") if target.is_absolute() else place
    return 0


def _group_of(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return _NOBODY
