"""The flow automaton: may this session open an EDEK of this zone in this way, after what it opened before? Pure.

A copy from zone A to zone B by any usual tool makes the KMS open an EDEK of each zone for one session: A's to read the
source, B's to write the target. `fs -cp` opens the source first, DistCp the target first. So both orders are refused
alike, at the second opening, before a byte of data can land. Rules:

1. An opening is a READ or a WRITE of its zone, or BOTH. An EDEK is handed out to one file, so its first opening is the
   creating WRITE and every later one is a READ. What may be either, because it is not known whether the EDEK was opened
   before, counts as BOTH. The session that opened an EDEK first keeps that first label for it for a minute: clients
   send a request again when its answer was lost. (Should it be a read, then of what this session has just written.)
2. What a session was granted labels it, for `WINDOW_S` after its last use. Labels only grow within that time, whatever
   else the session does: reading A, writing T, reading T and writing B needs an edge from A to B, although there may be
   edges from A to T and from T to B.
3. A READ of A is refused while the session is labelled with a WRITE of another zone that no edge leads to from A; a
   WRITE of B while it is labelled with a READ of another zone that has no edge to B. Inside one zone nothing is
   refused. An edge counts when its `who` names the session's user.
4. What was refused was not opened, so it leaves no label.
5. A grant (`grants`) counts as an edge for its session while it is in force.

Rule 3 itself is `flow_labels.find_crossings`, which `ringfence policy replay` reads past openings by as well.

What follows, and is tested as properties: every pair of a READ and a WRITE among a session's labels has its edge,
whatever came in which order; whether a set of openings is granted as a whole does not depend on their order; and who
remembers that something was granted, for less long than the label lasts, allows nothing that a fresh look would refuse.
It has to be one place that decides about what is new, though (`memory`): two views that do not know of each other's
labels would grant a half each. Rules that were tightened are another matter: they hold for what is remembered as well
from when a server knows the new revision, at most the revocation bound after its publication.

A session is a delegation token, wherever it is used, which is one job on YARN; without one, a user (and who acts for
them) at one address.

What this cannot do:

- **Append** opens an old EDEK, as a read does. Counting every open as a possible append would refuse a job that reads
  two zones, so it counts as a READ: appending to a file of B after reading A is not refused.
- **Plain-text targets.** A copy out of encryption makes the one call of a read; local disks, object stores and HDFS
  outside zones never ask the KMS. A zone around them does.
- **Raw copies** below /.reserved/raw make no call at all. Without the xattrs they carry cipher text that nobody can
  open; with them, the file belongs to another zone's key and does not open either.
- **Memory.** A process may keep what it read and write it later, after the window, through a stream that it opened
  before and that stays open for longer, or in another session: from another address, with another token, through a
  service that runs for many. Against somebody who means to, and may read
  A and write B, this is detection. The hard block is not to give one principal both.
- **Through a third zone**, in two sessions: A to T today, T to B tomorrow, along two edges. Labels are the session's
  and not the data's.
- **Long-lived services** (HiveServer2 and its like) that act as themselves are one session for all their users, which
  never ends while it is used: they are refused what none of their users did alone. With doAs each user is a session.
- **One JVM with several users** under simple authentication arrives as the first of them: one session too.
- **Simple authentication**: a user is a claim. Rules are recorded there and refuse nobody, unless the policy says so.
- A file made without its client opening the EDEK, or one whose creator failed before, is written by whoever opens it
  first, as it seems: a READ that counts as a WRITE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ringfence_zones.flow_labels import Crossing, Kind, Zone, find_crossings

WINDOW_S = 600
"""How long a label lasts after the last opening that it stands for (contracts 6)."""
REMEMBERED_S = 60
"""How long a granted opening may be remembered by who does not look at the labels; they last longer by as much."""
CLOCK_ALLOWANCE_S = 60
"""How far the clocks of two servers may be apart without a label ending before its time."""
LABEL_LASTS_MS = 1000 * (WINDOW_S + REMEMBERED_S + CLOCK_ALLOWANCE_S)
SENT_AGAIN_S = 60
"""How long the session that opened an EDEK first keeps that label for it."""

_SINGLE = (Kind.READ, Kind.WRITE)
Label = tuple[Zone, Kind]
"""A zone is known by the name of its key here: that is what the KMS sees."""
Edges = Callable[[Zone, Zone], bool]
"""Whether the session's user may bring data from the first zone to the second, which is another."""


@dataclass(frozen=True, slots=True)
class SessionLabels:
    """A session's labels, each a zone with READ or WRITE, with when it ends in epoch milliseconds."""

    until_ms: Mapping[Label, int] = field(default_factory=lambda: MappingProxyType({}))

    def live(self, now_ms: int) -> list[Label]:
        """Those that have not ended, in order."""
        return sorted(label for label, until_ms in self.until_ms.items() if until_ms > now_ms)


def decide(
    labels: SessionLabels, zone: Zone, kind: Kind, edges: Edges, now_ms: int
) -> tuple[SessionLabels, Crossing | None]:
    """The session's labels after an opening, or the same labels with why it is refused."""
    crossing = find_crossing(labels.live(now_ms), zone, kind, edges)
    if crossing is not None:
        return labels, crossing
    until_ms = now_ms + LABEL_LASTS_MS
    new = {(zone, each): max(until_ms, labels.until_ms.get((zone, each), 0)) for each in _SINGLE if each & kind}
    return SessionLabels(MappingProxyType({**labels.until_ms, **new})), None


def find_crossing(labels: Iterable[Label], zone: Zone, kind: Kind, edges: Edges) -> Crossing | None:
    """What an opening would connect that must not be; None when it may be made."""
    found = (each for other, label in labels for each in find_crossings(zone, kind, other, label))
    return next((each for each in found if not edges(each.source, each.target)), None)
