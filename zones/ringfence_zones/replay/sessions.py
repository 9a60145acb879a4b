"""What each session opened, and which two zones it may not have together: the KMS's flow rules over a log.

A session that read A and writes B, or wrote B and reads A, needs an edge from A to B that names its user; both orders
occur. Rules:

1. What was opened labels the session for a window after its last use. An opening that is refused for certain leaves no
   label, as in the KMS.
2. A log that does not say whether an opening read or wrote tells two directions at once. An edge in either may have
   been the one: then nothing is said, and `undecided` counts it. Without an edge in both a copy is possible, or there
   was none and both zones were read.
3. A zone that is opened again in the same way within the window is not judged again: it was, with each label that came.
4. Bounded: sessions end with their window. When there are too many all the same, the one that was idle longest goes,
   and `forgotten` counts it. Of one opening at most `MAX_CROSSINGS` are told; `cut` counts openings with more.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeAlias

from ringfence_zones.flow_labels import Kind, find_crossings

MAX_SESSIONS = 100_000
MAX_CROSSINGS = 16


class Certainty(enum.Enum):
    """How sure a verdict is. POSSIBLE: it hangs on what the log or the policy does not tell."""

    ALLOWED = enum.auto()
    POSSIBLE = enum.auto()
    REFUSED = enum.auto()


class Verdict(NamedTuple):
    """What the policy says. `unless` names the groups that would make a POSSIBLE refusal an allowed access."""

    certainty: Certainty
    unless: tuple[str, ...] = ()


ALLOWED = Verdict(Certainty.ALLOWED)
_Label: TypeAlias = tuple[str, Kind | None]
_Labels: TypeAlias = dict[_Label, float]


@dataclass(frozen=True, slots=True)
class Crossing:
    """Two zones that one session had together. `is_directed`: the log tells that data could go from source to target.

    Otherwise it could go either way, and they are in the order of their names.
    """

    source: str
    target: str
    is_directed: bool
    verdict: Verdict


class Sessions:
    """See the module. `find_edge` says whether a user may bring data from one zone's root to another's."""

    def __init__(self, window_s: float, find_edge: Callable[[str, str, str], Verdict]) -> None:
        self._window_s = window_s
        self._find_edge = find_edge
        self._labels: OrderedDict[Hashable, tuple[float, _Labels]] = OrderedDict()
        self._now_s = 0.0
        self.undirected = 0
        self.undecided = 0
        self.forgotten = 0
        self.cut = 0

    def open(self, session: Hashable, user: str, zone: str, opened: Kind | None, now_s: float) -> tuple[Crossing, ...]:
        """What an opening brings together that must not be, or may not have been, together."""
        self._now_s = max(self._now_s, now_s)
        _, labels = self._labels.pop(session, (0.0, {}))
        self._end_idle()
        self._labels[session] = (self._now_s, labels)
        self.undirected += opened is None
        wanted: list[_Label] = [(zone, opened)] if opened is None else [(zone, each) for each in opened]
        if all(self._is_live(labels.get(label), now_s) for label in wanted):
            labels.update(dict.fromkeys(wanted, now_s))
            return ()
        found = (
            crossing
            for label in wanted
            for other, last_s in labels.items()
            if self._is_live(last_s, now_s)
            for crossing in self._judge(user, label, other)
        )
        crossings = tuple(islice(found, MAX_CROSSINGS))
        self.cut += next(found, None) is not None
        if not any(each.is_directed and each.verdict.certainty is Certainty.REFUSED for each in crossings):
            labels.update(dict.fromkeys(wanted, now_s))
            self._drop_old(labels, now_s)
        return crossings

    def _drop_old(self, labels: _Labels, now_s: float) -> None:
        # Looked through when it has doubled: labels that live are as many as zones, at most.
        if len(labels) & (len(labels) - 1) == 0:
            for old in [label for label, last_s in labels.items() if not self._is_live(last_s, now_s)]:
                del labels[old]

    def _judge(self, user: str, new: _Label, old: _Label) -> Iterator[Crossing]:
        (zone, opened), (other, label) = new, old
        ways = [way[:2] for way in find_crossings(zone, opened or Kind.BOTH, other, label or Kind.BOTH)]
        verdicts = [(source, target, self._find_edge(user, source, target)) for source, target in ways]
        if opened is not None and label is not None:
            for source, target, verdict in verdicts:
                if verdict.certainty is not Certainty.ALLOWED:
                    yield Crossing(source, target, True, verdict)
        elif any(verdict.certainty is Certainty.ALLOWED for _, _, verdict in verdicts):
            self.undecided += 1
        elif verdicts:
            unless = tuple(sorted({group for _, _, verdict in verdicts for group in verdict.unless}))
            source, target = ways[0] if len(ways) == 1 else sorted((zone, other))
            yield Crossing(source, target, len(ways) == 1, Verdict(Certainty.POSSIBLE, unless))

    def _is_live(self, last_s: float | None, now_s: float) -> bool:
        # Lines of several files, and of one user's merged openings, are not quite in order.
        return last_s is not None and abs(now_s - last_s) <= self._window_s

    def _end_idle(self) -> None:
        while self._labels:
            session, (last_s, _) = next(iter(self._labels.items()))
            if self._now_s - last_s <= self._window_s:
                if len(self._labels) < MAX_SESSIONS:
                    return
                self.forgotten += 1
            del self._labels[session]
