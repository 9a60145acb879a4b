"""Where data of a zone can end: every pair of places, by the shortest way, along edges and through people.

A step leads from one place to another by

    flow      an edge of `flows`
    keys      somebody who holds DECRYPT_EEK on both zones' keys, and whom the rights that policy puts on the target's
              root let write there
    outside   an entry of `outside`, into a clear-text place
    clear     a writer of the target, who can fetch what lies in a clear-text place

A path is *declared* when the policy itself leads from its first place to its last: by an edge of `flows` (every pair of
zones where there is no such key) or an entry of `outside`. Any other path is a finding. Rules:

1. Exhaustive over pairs: each place that data of each zone can reach is found, by a breadth-first search from every
   zone; its shortest path is shown, and how many pairs were left out is always said. Between two named places every
   path without a loop is shown, shortest first (Yen's algorithm).
2. Fast by words, not by steps: the places that one step reaches are the bits of one integer, so a search ORs at most
   one integer for each zone, whatever the number of edges and names.
3. Names are taken as they are written. Two groups may have a member in common: who is in which is told by
   `Memberships`.
4. Holding both keys without the right to write at the target is no step unless `keys_alone` says so: HDFS refuses the
   write. The KMS cannot tell it from a read, so how many pairs only HDFS keeps apart is always said.
5. Whoever reads can write what it reads into any clear-text place, and no rule of a policy prevents that. It is said
   once, and is no path.

It asks no cluster and knows no HDFS rights but those that the policy sets.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.memberships import Memberships
from ringfence_zones.policy import Policy
from ringfence_zones.policy_document import EVERYONE
from ringfence_zones.rights import directory_writers

_SHOWN_NAMES = 8
_MAX_NAMES = 50


@dataclass(frozen=True, slots=True)
class Way:
    """One way to take a step: `flow`, `keys`, `outside` or `clear`, and who takes it. `*` is everybody.

    `who` has the first `_MAX_NAMES` of them, `more` counts the others.
    """

    by: str
    who: tuple[str, ...]
    more: int = 0

    @classmethod
    def of(cls, by: str, who: Iterable[str]) -> Way:
        """For everybody in `who`."""
        names = sorted(who)
        return cls(by, tuple(names[:_MAX_NAMES]), max(0, len(names) - _MAX_NAMES))

    def __str__(self) -> str:
        names = ", ".join(self.who[:_SHOWN_NAMES])
        left_out = len(self.who) + self.more - _SHOWN_NAMES
        more = f" and {left_out} more" if left_out > 0 else ""
        people = "everybody" if self.who == (EVERYONE,) else f"{names}{more}"
        match self.by:
            case "flow":
                return f"flow for {people}"
            case "keys":
                return f"both keys: {people}"
            case "outside":
                return "outside"
            case _:
                return f"out of clear text, by {people}"


@dataclass(frozen=True, slots=True)
class Step:
    """From one place to the next, by every way there is."""

    source: str
    target: str
    ways: tuple[Way, ...]

    def to_json(self) -> dict[str, Any]:
        """`{"from", "to", "ways": [{"by", "who", "more"}]}`."""
        ways = [{"by": way.by, "who": list(way.who), "more": way.more} for way in self.ways]
        return {"from": self.source, "to": self.target, "ways": ways}


@dataclass(frozen=True, slots=True)
class ReachPath:
    """How data gets from the first place to the last. `declared`: the policy leads there from the first directly."""

    steps: tuple[Step, ...]
    declared: bool

    @property
    def source(self) -> str:
        """The zone whose data it is."""
        return self.steps[0].source

    @property
    def target(self) -> str:
        """Where it ends."""
        return self.steps[-1].target

    @property
    def places(self) -> tuple[str, ...]:
        """Every place on the way."""
        return (self.source, *(step.target for step in self.steps))

    def to_json(self) -> dict[str, Any]:
        """`{"from", "to", "declared", "steps": [...]}`."""
        steps = [step.to_json() for step in self.steps]
        return {"from": self.source, "to": self.target, "declared": self.declared, "steps": steps}

    def to_finding(self) -> Finding:
        """A path that the policy does not declare."""
        told = "".join(f" -> {step.target} ({'; '.join(map(str, step.ways))})" for step in self.steps)
        return Finding(
            severity=Severity.ERROR,
            rule=Rule.UNDECLARED_PATH,
            path=self.source,
            message=f"data of {self.source} can end in {self.target}: {self.source}{told}",
            hint=self._hint,
        )

    @property
    def _hint(self) -> str:
        declare = f"an edge from {self.source} to {self.target}, if it is meant"
        if len(self.steps) > 1:
            return f"take one of the steps away; or declare {declare}"
        return f"give the two keys to different users and groups; or declare {declare}"


@dataclass(frozen=True, slots=True)
class ReachReport:
    """What was found. `undeclared` counts pairs of places (paths, between two named places), shown or not.

    `more` is True when there are further paths that were not counted. `key_pairs` counts pairs of zones whose keys
    somebody holds together, and which only HDFS's rights keep apart; `read_zones` the zones that anybody may read.
    """

    paths: tuple[ReachPath, ...]
    undeclared: int
    declared: int
    more: bool
    key_pairs: int
    read_zones: int

    @property
    def left_out(self) -> int:
        """Undeclared ones that are not in `paths`."""
        return self.undeclared - sum(not path.declared for path in self.paths)


class ReachGraph:
    """The places of a policy, and the steps between them. Zones come first, in the policy's order, then `outside`."""

    def __init__(self, policy: Policy, memberships: Memberships | None = None, *, keys_alone: bool = False) -> None:
        self._policy = policy
        self.zones = [zone.path for zone in policy.zones]
        self.clear_places = sorted(policy.outside or ())
        self._places = [*self.zones, *self.clear_places]
        self._number = {place: number for number, place in enumerate(self._places)}
        self._all_zones = (1 << len(self.zones)) - 1
        holders = [zone.all_readers for zone in policy.zones]
        writers = holders if keys_alone else [directory_writers(zone) for zone in policy.zones]
        self._carriers = _Carriers(holders, writers, memberships or {})
        self._by_keys_alone = _Carriers(holders, holders, memberships or {}).steps()
        self._by_keys = self._carriers.steps()
        self._flows = [0] * len(self._places)
        for flow in policy.flows or ():
            self._flows[self._number[flow.source]] |= 1 << self._number[flow.target]
        for place, sources in (policy.outside or {}).items():
            for source in sources:
                self._flows[self._number[source]] |= 1 << self._number[place]
        written = _mask(number for number, names in enumerate(writers) if names)
        self._next = [
            (self._flows[number] | self._by_keys[number]) & ~(1 << number) if number < len(self.zones) else written
            for number in range(len(self._places))
        ]

    def report(
        self, sources: Sequence[str] | None = None, targets: Sequence[str] | None = None, *, limit: int
    ) -> ReachReport:
        """The paths from `sources` to `targets`, everything where None; at most `limit`, the shortest first.

        Both are places of this graph.
        """
        starts = range(len(self.zones)) if sources is None else [self._number[place] for place in sources]
        ends = (1 << len(self._places)) - 1 if targets is None else _mask(self._number[place] for place in targets)
        if len(starts) == 1 and ends.bit_count() == 1:
            return self._between(starts[0], ends.bit_length() - 1, limit)
        found: dict[int, list[tuple[int, int]]] = {}
        declared = 0
        for start in starts:
            for length, level in enumerate(self._levels(start)[1:], start=1):
                reached = level & ends
                declared += (reached & self._declared(start)).bit_count()
                if reached & ~self._declared(start):
                    found.setdefault(length, []).append((start, reached & ~self._declared(start)))
        undeclared = sum(mask.bit_count() for pairs in found.values() for _, mask in pairs)
        paths = tuple(self._shortest_paths(found, limit))
        return ReachReport(paths, undeclared, declared, False, self._key_pairs(), self._read_zones())

    def _between(self, start: int, end: int, limit: int) -> ReachReport:
        paths: list[ReachPath] = []
        more = False
        for places in self._paths(start, end):
            if len(paths) == limit:
                more = True
                break
            paths.append(self._path(places))
        undeclared = sum(not path.declared for path in paths)
        return ReachReport(
            tuple(paths), undeclared, len(paths) - undeclared, more, self._key_pairs(), self._read_zones()
        )

    def _declared(self, start: int) -> int:
        """The places to which the policy itself leads from here."""
        return self._flows[start] | (self._all_zones if self._policy.flows is None else 0)

    def _key_pairs(self) -> int:
        apart = (
            self._by_keys_alone[start] & ~self._by_keys[start] & ~self._declared(start) & ~(1 << start)
            for start in range(len(self.zones))
        )
        return sum(mask.bit_count() for mask in apart)

    def _read_zones(self) -> int:
        return sum(bool(zone.all_readers) for zone in self._policy.zones)

    def _levels(self, start: int, removed: int = 0, first: int | None = None) -> list[int]:
        """The places at distance 0, 1, 2, ... as bits; not through `removed`, and at first only to one of `first`."""
        seen, level = removed | 1 << start, 1 << start
        levels = [level]
        everywhere = (1 << len(self._places)) - 1
        while level and seen != everywhere:
            reached = 0
            for place in _bits(level):
                reached |= self._next[place] if first is None else first
            first = None
            level = reached & ~seen
            seen |= level
            if level:
                levels.append(level)
        return levels

    def _shortest_paths(self, found: Mapping[int, list[tuple[int, int]]], limit: int) -> Iterator[ReachPath]:
        for length in sorted(found):
            for start, ends in found[length]:
                levels = self._levels(start)
                for end in _bits(ends):
                    if limit <= 0:
                        return
                    limit -= 1
                    yield self._path(self._back(levels, length, end))

    def _back(self, levels: Sequence[int], length: int, end: int) -> tuple[int, ...]:
        """A path of that many steps to `end`: of several the one whose last places come first."""
        places = [end]
        for level in reversed(levels[:length]):
            places.append(next(place for place in _bits(level) if self._next[place] >> places[-1] & 1))
        return tuple(reversed(places))

    def _paths(self, start: int, end: int) -> Iterator[tuple[int, ...]]:
        """Every path without a loop, shortest first: J. Y. Yen, 1971."""
        waiting: list[tuple[int, tuple[int, ...]]] = []
        known: set[tuple[int, ...]] = set()
        given: list[tuple[int, ...]] = []

        def consider(root: tuple[int, ...], taken: int) -> None:
            found = self._shortest(root[-1], end, _mask(root), self._next[root[-1]] & ~taken)
            if found is not None and (*root[:-1], *found) not in known:
                known.add((*root[:-1], *found))
                heapq.heappush(waiting, (len(root) + len(found), (*root[:-1], *found)))

        consider((start,), 0)
        while waiting:
            _, path = heapq.heappop(waiting)
            yield path
            given.append(path)
            for length in range(1, len(path)):
                root = path[:length]
                consider(root, _mask(other[length] for other in given if other[:length] == root))

    def _shortest(self, start: int, end: int, removed: int, first: int) -> tuple[int, ...] | None:
        levels = self._levels(start, removed, first)
        length = next((number for number, level in enumerate(levels) if level >> end & 1), None)
        if not length:
            return None
        places = [end]
        for level in reversed(levels[1:length]):
            places.append(next(place for place in _bits(level) if self._next[place] >> places[-1] & 1))
        return (start, *reversed(places))

    def _path(self, places: tuple[int, ...]) -> ReachPath:
        steps = tuple(self._step(source, target) for source, target in pairwise(places))
        return ReachPath(steps, bool(self._declared(places[0]) >> places[-1] & 1))

    def _step(self, source: int, target: int) -> Step:
        ways: list[Way] = []
        source_place, target_place = self._places[source], self._places[target]
        if source >= len(self.zones):
            ways.append(Way.of("clear", self._carriers.writers_of(target)))
        elif target >= len(self.zones):
            ways.append(Way("outside", ()))
        else:
            edges = [
                flow for flow in self._policy.flows or () if (flow.source, flow.target) == (source_place, target_place)
            ]
            if edges:
                ways.append(Way.of("flow", {name for flow in edges for name in flow.who}))
            carriers = self._carriers.between(source, target)
            if carriers:
                ways.append(Way.of("keys", carriers))
        return Step(source_place, target_place, tuple(ways))


class _Carriers:
    """Who reads which zone and writes which: for each name the zones, as bits."""

    def __init__(
        self, readers: Sequence[frozenset[str]], writers: Sequence[frozenset[str]], memberships: Memberships
    ) -> None:
        self._memberships = memberships
        self._count = len(readers)
        self._reads, self._writes = _by_name(readers), _by_name(writers)
        # What everybody reads or writes.
        self._read_by_all, self._written_by_all = self._reads.pop(EVERYONE, 0), self._writes.pop(EVERYONE, 0)
        for user, groups in memberships.items():
            for masks in (self._reads, self._writes):
                for group in groups:
                    masks[user] = masks.get(user, 0) | masks.get(f"@{group}", 0)
        self._names = sorted(self._reads.keys() | self._writes.keys())

    def steps(self) -> list[int]:
        """For each zone those into which somebody who reads it writes."""
        out = [0] * self._count
        anywhere = self._written_by_all
        for name in self._names:
            written = self._writes.get(name, 0) | self._written_by_all
            anywhere |= written
            for zone in _bits(self._reads.get(name, 0)):
                out[zone] |= written
        for zone in _bits(self._read_by_all):
            out[zone] |= anywhere
        return out

    def between(self, source: int, target: int) -> set[str]:
        """Who reads the one and writes the other; users who do so as members of a group that is named are left out."""
        all_read, all_write = self._read_by_all >> source & 1, self._written_by_all >> target & 1
        if all_read and all_write:
            return {EVERYONE}
        found = {
            name
            for name in self._names
            if (all_read or self._reads.get(name, 0) >> source & 1)
            and (all_write or self._writes.get(name, 0) >> target & 1)
        }
        return self._without_members(found)

    def writers_of(self, zone: int) -> set[str]:
        """Who writes there."""
        if self._written_by_all >> zone & 1:
            return {EVERYONE}
        return self._without_members({name for name in self._names if self._writes.get(name, 0) >> zone & 1})

    def _without_members(self, names: set[str]) -> set[str]:
        member = {
            user for user in names if any(f"@{group}" in names for group in self._memberships.get(user, frozenset()))
        }
        return names - member


def _by_name(zones: Sequence[frozenset[str]]) -> dict[str, int]:
    masks: dict[str, int] = {}
    for number, names in enumerate(zones):
        for name in names:
            masks[name] = masks.get(name, 0) | 1 << number
    return masks


def _mask(numbers: Iterator[int] | Sequence[int]) -> int:
    out = 0
    for number in numbers:
        out |= 1 << number
    return out


def _bits(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
