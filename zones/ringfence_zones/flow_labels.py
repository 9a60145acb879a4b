"""What one session may not have open together: the rule of flows, for the key server and for whoever reads its log.

An opening of an EDEK reads its zone, writes it, or may be either. A session that read one zone and writes another, in
whichever order, may carry data from the first to the second; two reads carry nothing, nor do two writes, and inside one
zone everything is free. How long an opening counts, and what follows, is for who asks.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple

Zone = str
"""A zone, by whatever names it: the KMS knows its key, a NameNode its root."""


class Kind(enum.IntFlag):
    """What an opening does to its zone; BOTH when it may be either."""

    READ = 1
    WRITE = 2
    BOTH = 3

    @property
    def word(self) -> str:
        """In the audit log."""
        return _WORDS[self]


_WORDS = {Kind.READ: "read", Kind.WRITE: "write", Kind.BOTH: "read or write"}
KINDS = (Kind.READ, Kind.WRITE, Kind.BOTH)
"""All of them: iterating over a flag leaves out what is made of others."""


class Crossing(NamedTuple):
    """Two zones that an opening connects, in the direction in which data would go.

    `opened` says which half of it the opening is; the session has the other half already.
    """

    source: Zone
    target: Zone
    opened: Kind


def find_crossings(zone: Zone, kind: Kind, other: Zone, label: Kind) -> Iterator[Crossing]:
    """What an opening of `zone` connects when the same session has opened `other` as `label`."""
    if zone == other:
        return
    if kind & Kind.READ and label & Kind.WRITE:
        yield Crossing(zone, other, Kind.READ)
    if kind & Kind.WRITE and label & Kind.READ:
        yield Crossing(other, zone, Kind.WRITE)
