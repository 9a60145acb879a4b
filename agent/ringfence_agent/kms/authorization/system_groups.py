"""The groups that the operating system gives a user, and the difference between "none" and "nobody could be asked".

Asked through NSS, as Hadoop's shell and JNI mappings do, so whatever /etc/nsswitch.conf names answers.
Python's `pwd` and `grp` say KeyError both for a name that is not there and for a directory that is down. Here the C
functions are called: they return an error number for the latter (getpwnam_r(3)), and then nothing is decided. Otherwise
a directory that is down would take everybody out of every group, blacklisted ones included.

What cannot be told: a user of /etc/passwd whose further groups only the directory knows, while it is down;
`getgrouplist` passes over a service that fails.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable

from ringfence_zones.errors import StoreUnavailableError

_FIRST_BUFFER_BYTES = 4096
# A group's entry holds the names of all its members.
_LARGEST_BUFFER_BYTES = 16 * 1024 * 1024


class _Passwd(ctypes.Structure):
    _fields_ = (
        ("pw_name", ctypes.c_char_p),
        ("pw_passwd", ctypes.c_char_p),
        ("pw_uid", ctypes.c_uint),
        ("pw_gid", ctypes.c_uint),
        ("pw_gecos", ctypes.c_char_p),
        ("pw_dir", ctypes.c_char_p),
        ("pw_shell", ctypes.c_char_p),
    )


class _Group(ctypes.Structure):
    _fields_ = (
        ("gr_name", ctypes.c_char_p),
        ("gr_passwd", ctypes.c_char_p),
        ("gr_gid", ctypes.c_uint),
        ("gr_mem", ctypes.c_void_p),
    )


# getpwnam_r and getgrgid_r: key, entry, buffer, its length, where to put a pointer to the entry; an error number.
_Call = Callable[..., int]
_libc = ctypes.CDLL(None)


def look_up_system_groups(user: str) -> frozenset[str]:
    """The names of a user's groups; empty for one the system does not know. May block.

    Raises StoreUnavailableError when the system could not find out.
    """
    name = user.encode("utf-8", "surrogateescape")
    if not name or b"\0" in name:
        return frozenset()
    found = _find_primary_group(name)
    if found is None:
        return frozenset()
    try:
        ids = os.getgrouplist(user, found)
    except (OSError, ValueError) as error:
        raise _unavailable(user) from error
    names = (_find_group_name(group_id) for group_id in ids)
    return frozenset(name for name in names if name is not None)


def _find_primary_group(name: bytes, call: _Call = _libc.getpwnam_r) -> int | None:
    entry = _Passwd()
    return entry.pw_gid if _ask(call, ctypes.c_char_p(name), entry, name.decode("utf-8", "replace")) else None


def _find_group_name(group_id: int, call: _Call = _libc.getgrgid_r) -> str | None:
    entry = _Group()
    # The name points into the buffer, which lives as long as what _ask returns.
    buffer = _ask(call, ctypes.c_uint(group_id), entry, f"group {group_id}")
    return os.fsdecode(entry.gr_name) if buffer is not None else None


def _ask(call: _Call, key: object, entry: ctypes.Structure, what: str) -> object | None:
    """Fills `entry`; the buffer it points into, None when there is no such entry."""
    length = _FIRST_BUFFER_BYTES
    while length <= _LARGEST_BUFFER_BYTES:
        buffer, result = ctypes.create_string_buffer(length), ctypes.c_void_p()
        problem = call(key, ctypes.byref(entry), buffer, ctypes.c_size_t(length), ctypes.byref(result))
        if problem == errno.EINTR:
            continue
        if problem != errno.ERANGE:
            if problem:
                raise _unavailable(what)
            return buffer if result.value else None
        length *= 4
    raise _unavailable(what)


def _unavailable(what: str) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"the system could not look up {what}: a service of /etc/nsswitch.conf does not answer",
        hint=f"see what `getent passwd` and `id {what}` say on this machine" if " " not in what else None,
    )
