"""What a process that holds keys tells the kernel about itself. Linux only.

A core file, `/proc/PID/mem` and ptrace would hand the keys to whoever may read them; these calls close those ways for
everybody but root. They are inherited by forked children.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal

from ringfence_zones.errors import RingfenceError

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_OPEN_FILES_WANTED = 65536


def forbid_core_dumps() -> None:
    """No core file, no ptrace by other processes of the same user. Raises RingfenceError when the kernel refuses."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)
    if _prctl(_PR_GET_DUMPABLE, 0) != 0:
        raise RingfenceError("the kernel left this process dumpable: a core file could hold keys")


def die_with_parent(parent_pid: int) -> None:
    """Called by a forked child: the kernel kills it when its parent ends, however that ends.

    SIGKILL, so that nothing keeps serving with keys in memory while its supervisor is gone: what was acknowledged is
    durable already. Exits at once if the parent died before the call.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def raise_open_files_limit() -> int:
    """Raises the soft limit of open files towards the hard one, and returns what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def _prctl(option: int, argument: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    outcome = int(libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0))
    if outcome < 0:
        number = ctypes.get_errno()
        raise RingfenceError(f"the kernel refused prctl option {option}: {os.strerror(number)}")
    return outcome
