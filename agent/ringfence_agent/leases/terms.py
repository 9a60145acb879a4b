"""What becomes of a lease that somebody asks for: a pure function of what was written of it and what time it is.

Rules:

1. Whoever has it keeps it for the time that it was taken for, counted from when the book wrote that down. Nobody else
   gets it before that and `MARGIN_MS` are over: the holder counts by another clock, and no two run alike.
2. Time is the book's (`Instant`), never an instance's, and means something only beside a time of the same clock. When
   the book's clock is another one than the lease was written by (the machine or the database server was started again,
   or another node took over), or has gone back, nobody knows how much is left: the holder is given its whole time
   again from now.
3. The epoch grows with every holding. Its holder keeps it by renewing in time, and only so: after a gap, or a time
   that nobody knows, the same holder begins a new one, because somebody else might have had it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MARGIN_MS = 1000
NOBODY = ""


@dataclass(frozen=True, slots=True)
class Instant:
    """A time by one clock: milliseconds, and what tells this clock from others."""

    clock: bytes
    ms: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What is written of a lease. `holder` is NOBODY when it was given back."""

    holder: str
    epoch: int
    ttl_ms: int
    renewed: Instant

    def passed_ms(self, now: Instant) -> int | None:
        """How long ago it was renewed, None when nobody knows."""
        if now.clock != self.renewed.clock or now.ms < self.renewed.ms:
            return None
        return now.ms - self.renewed.ms

    def left_ms(self, now: Instant) -> int:
        """How long until somebody else can have it."""
        if self.holder == NOBODY:
            return 0
        return max(0, self.ttl_ms + MARGIN_MS - (self.passed_ms(now) or 0))


@dataclass(frozen=True, slots=True)
class Outcome:
    """`terms` is what to write; the asker has the lease when `is_taken`."""

    terms: Terms
    is_taken: bool


def take(found: Terms | None, holder: str, ttl_ms: int, now: Instant, first_epoch: int) -> Outcome:
    """`found` is what is written, None for a lease that nobody ever had; that begins with `first_epoch`."""
    if found is None:
        return Outcome(Terms(holder, first_epoch, ttl_ms, now), is_taken=True)
    passed_ms = found.passed_ms(now)
    if found.holder == holder and passed_ms is not None and passed_ms < found.ttl_ms:
        return Outcome(Terms(holder, found.epoch, ttl_ms, now), is_taken=True)
    if found.holder == holder or found.left_ms(now) == 0:
        return Outcome(Terms(holder, found.epoch + 1, ttl_ms, now), is_taken=True)
    return Outcome(found if passed_ms is not None else replace(found, renewed=now), is_taken=False)


def give_back(found: Terms) -> Terms:
    """The same lease, held by nobody."""
    return replace(found, holder=NOBODY)
