"""A lease: who may act now, of several that could. Taken and renewed through the KMS (`kms_admin`).

It lasts for `ttl_s` and no longer, whatever else happens. Its holder knows when by a clock of its own machine, which
nobody sets and which goes on while the machine sleeps (`clock_s`), counted from *before* it asked: so it ends for its
holder before anybody else can get it, and a holder that cannot reach the KMS stops in time all the same.

`epoch` grows with every new holding of a lease, also by the same holder after a gap. Who acts under a lease can write
the number into what it does, so that something done late under an earlier epoch can be told.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ringfence_zones.errors import InputError

MIN_TTL_S = 1.0
MAX_TTL_S = 300.0
AGENT_TTL_S = 15.0
"""What the agents of a cluster take theirs for (contracts 3)."""


def clock_s() -> float:
    """Seconds since this machine started: never set, and not stopped by suspending."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that was taken or renewed by whoever has this. `ends_s` is by `clock_s` of this machine."""

    name: str
    holder: str
    epoch: int
    ttl_s: float
    ends_s: float

    def left_s(self) -> float:
        """How long it lasts from now; 0 when it is over."""
        return max(0.0, self.ends_s - clock_s())


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """What the KMS says of a lease. `holder` is None when nobody has it; `left_s` is until it can be taken."""

    name: str
    holder: str | None
    epoch: int
    left_s: float


def check_ttl(ttl_s: float) -> float:
    """Raises InputError for what no lease lasts."""
    if not MIN_TTL_S <= ttl_s <= MAX_TTL_S:
        raise InputError(f"a lease lasts {MIN_TTL_S:g} to {MAX_TTL_S:g} seconds")
    return ttl_s
