"""How the kernel says this machine's clock is kept: adjtimex(2), Linux. Asked by each doctor."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.named_checks import NotChecked, finding

_THIS = "this machine"
# <sys/timex.h>
_STA_UNSYNC = 0x0040
_TIMEX_BYTES = 256
_STATUS_OFFSET = 40  # modes (4, padded to 8), offset, freq, maxerror, esterror: then status
_MAX_ERROR_OFFSET = 24
_MAX_ERROR_US = 1_000_000


def find_clock_problems() -> Iterator[Finding]:
    """What is wrong with the way the clock is kept. Raises NotChecked where the kernel does not say."""
    unsynchronised, error_us = read_clock()
    hint = "run chrony or systemd-timesyncd: tickets, cookies, tokens and certificates all go by the clock"
    if unsynchronised:
        message = "no time service has set this machine's clock: Kerberos refuses what is five minutes off"
        yield finding(Severity.WARN, Rule.CLOCK_UNSYNCHRONISED, _THIS, message, hint, "timedatectl timesync-status")
    elif error_us > _MAX_ERROR_US:
        message = f"the clock may be off by {error_us / 1e6:.1f} s, says its own time service"
        yield finding(Severity.WARN, Rule.CLOCK_UNSYNCHRONISED, _THIS, message, hint, "chronyc tracking")


def read_clock() -> tuple[bool, int]:
    """Whether the kernel's clock is unsynchronised, and its largest possible error in microseconds."""
    state = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: read only
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(state) < 0:
        raise NotChecked("the kernel does not say how its clock is kept (adjtimex)")
    status = ctypes.c_int.from_buffer(state, _STATUS_OFFSET).value
    return bool(status & _STA_UNSYNC), ctypes.c_long.from_buffer(state, _MAX_ERROR_OFFSET).value
