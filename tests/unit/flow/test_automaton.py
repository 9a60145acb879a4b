"""The flow automaton: what it claims of any history, and each rule once by name."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_agent.flow.automaton import (
    CLOCK_ALLOWANCE_S,
    LABEL_LASTS_MS,
    REMEMBERED_S,
    WINDOW_S,
    SessionLabels,
    decide,
)
from ringfence_zones.flow_labels import KINDS, Crossing, Kind, Zone
from ringfence_zones.replay.sessions import ALLOWED, Certainty, Sessions, Verdict

ZONES = ("a", "b", "c", "t")
PAIRS = [pair for pair in itertools.product(ZONES, ZONES) if pair[0] != pair[1]]
EDGES = st.frozensets(st.sampled_from(PAIRS))
OPENINGS = st.tuples(st.sampled_from(ZONES), st.sampled_from(KINDS))
NONE: frozenset[tuple[Zone, Zone]] = frozenset()


@dataclass
class Session:
    """One session under constant rules, with a clock."""

    edges: frozenset[tuple[Zone, Zone]]
    labels: SessionLabels = field(default_factory=SessionLabels)
    now_ms: int = 0

    def allows(self, source: Zone, target: Zone) -> bool:
        return (source, target) in self.edges

    def open(self, zone: Zone, kind: Kind) -> Crossing | None:
        self.labels, crossing = decide(self.labels, zone, kind, self.allows, self.now_ms)
        return crossing

    def live(self) -> list[tuple[Zone, Kind]]:
        return self.labels.live(self.now_ms)


def singles(kind: Kind) -> list[Kind]:
    return [each for each in (Kind.READ, Kind.WRITE) if each & kind]


def all_granted(edges: frozenset[tuple[Zone, Zone]], openings: Sequence[tuple[Zone, Kind]]) -> bool:
    session = Session(edges)
    return all(session.open(*opening) is None for opening in openings)


@given(EDGES, st.lists(st.tuples(OPENINGS, st.integers(0, 500_000)), max_size=30))
def test_every_pair_of_a_read_and_a_write_among_the_live_labels_has_its_edge(
    edges: frozenset[tuple[Zone, Zone]], history: list[tuple[tuple[Zone, Kind], int]]
) -> None:
    session = Session(edges)
    for (zone, kind), later_ms in history:
        session.now_ms += later_ms
        session.open(zone, kind)
        live = session.live()
        for (read, first), (written, second) in itertools.product(live, live):
            if first is Kind.READ and second is Kind.WRITE and read != written:
                assert (read, written) in edges


@given(EDGES, st.lists(OPENINGS, max_size=5).flatmap(lambda each: st.tuples(st.just(each), st.permutations(each))))
def test_whether_all_of_it_is_granted_does_not_depend_on_the_order(
    edges: frozenset[tuple[Zone, Zone]], orders: tuple[list[tuple[Zone, Kind]], list[tuple[Zone, Kind]]]
) -> None:
    one, other = orders
    assert all_granted(edges, one) == all_granted(edges, other)
    reads = {zone for zone, kind in one if kind & Kind.READ}
    written = {zone for zone, kind in one if kind & Kind.WRITE}
    assert all_granted(edges, one) == all(
        pair in edges for pair in itertools.product(reads, written) if pair[0] != pair[1]
    )


@given(EDGES, st.lists(st.tuples(OPENINGS, st.integers(0, LABEL_LASTS_MS // 4)), max_size=30))
def test_labels_only_grow_within_the_window_of_their_last_use(
    edges: frozenset[tuple[Zone, Zone]], history: list[tuple[tuple[Zone, Kind], int]]
) -> None:
    session, used_ms = Session(edges), dict[tuple[Zone, Kind], int]()
    for (zone, kind), later_ms in history:
        session.now_ms += later_ms
        before = dict(session.labels.until_ms)
        granted = session.open(zone, kind) is None
        after = session.labels.until_ms
        assert all(after[label] >= until_ms for label, until_ms in before.items())
        if granted:
            used_ms |= {(zone, each): session.now_ms for each in singles(kind)}
        still = {label for label, last_ms in used_ms.items() if session.now_ms - last_ms <= WINDOW_S * 1000}
        assert still <= set(session.live())


@given(
    EDGES,
    st.lists(st.tuples(st.integers(0, 2), OPENINGS, st.integers(0, 90_000)), max_size=60),
    st.lists(st.integers(-CLOCK_ALLOWANCE_S * 500, CLOCK_ALLOWANCE_S * 500), min_size=3, max_size=3),
)
def test_who_remembers_what_was_granted_allows_nothing_that_a_fresh_look_refuses(
    edges: frozenset[tuple[Zone, Zone]], history: list[tuple[int, tuple[Zone, Kind], int]], skews_ms: list[int]
) -> None:
    """Three servers whose clocks differ by what is allowed; each remembers for itself, and one place decides."""
    session, true_ms = Session(edges), 0
    remembered: list[dict[tuple[Zone, Kind], int]] = [{}, {}, {}]
    for server, (zone, kind), later_ms in history:
        true_ms += later_ms
        session.now_ms = true_ms + skews_ms[server]
        fresh, _ = decide(session.labels, zone, kind, session.allows, session.now_ms)
        if all(remembered[server].get((zone, each), -1) > true_ms for each in singles(kind)):
            # Allowed from memory: a fresh look would have agreed, by the clock of any of them.
            for skew_ms in skews_ms:
                assert decide(session.labels, zone, kind, session.allows, true_ms + skew_ms)[1] is None
        elif session.open(zone, kind) is None:
            remembered[server] |= {(zone, each): true_ms + REMEMBERED_S * 1000 for each in singles(kind)}
        else:
            assert fresh == session.labels


@given(EDGES, st.lists(st.tuples(OPENINGS, st.integers(0, LABEL_LASTS_MS // 2000)), max_size=30))
def test_a_replay_of_its_log_tells_the_same(
    edges: frozenset[tuple[Zone, Zone]], history: list[tuple[tuple[Zone, Kind], int]]
) -> None:
    def find_edge(_user: str, source: str, target: str) -> Verdict:
        return ALLOWED if (source, target) in edges else Verdict(Certainty.REFUSED)

    # Whole seconds: a label has ended when its time is up, and to a replay, whose window is coarse, just after.
    session, replayed = Session(edges), Sessions(LABEL_LASTS_MS / 1000 - 0.5, find_edge)
    for (zone, kind), later_s in history:
        session.now_ms += later_s * 1000
        crossing = session.open(zone, kind)
        told = {(each.source, each.target) for each in replayed.open("s", "u", zone, kind, session.now_ms / 1000)}
        assert bool(told) == (crossing is not None)
        assert crossing is None or (crossing.source, crossing.target) in told


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")], ids=["fs -cp: source first", "DistCp: target first"])
def test_a_copy_without_an_edge_is_refused_at_its_second_opening_in_either_order(order: tuple[Zone, Zone]) -> None:
    kinds = {"a": Kind.READ, "b": Kind.WRITE}
    session = Session(NONE)
    assert session.open(order[0], kinds[order[0]]) is None
    crossing = session.open(order[1], kinds[order[1]])
    assert crossing == Crossing("a", "b", kinds[order[1]])
    assert session.live() == [(order[0], kinds[order[0]])]
    assert all_granted(frozenset({("a", "b")}), [(zone, kinds[zone]) for zone in order])


def test_an_edge_leads_one_way() -> None:
    session = Session(frozenset({("a", "b")}))
    assert session.open("b", Kind.READ) is None
    assert session.open("a", Kind.WRITE) == Crossing("b", "a", Kind.WRITE)


def test_reading_two_zones_and_writing_two_zones_is_no_copy() -> None:
    assert all_granted(NONE, [("a", Kind.READ), ("b", Kind.READ), ("c", Kind.READ)])
    assert all_granted(NONE, [("a", Kind.WRITE), ("b", Kind.WRITE)])
    assert all_granted(NONE, [("a", Kind.BOTH), ("a", Kind.READ), ("a", Kind.WRITE)])


def test_laundering_through_a_third_zone_is_refused_within_the_window_and_not_after_it() -> None:
    session = Session(frozenset({("a", "t"), ("t", "b")}))
    for step in (("a", Kind.READ), ("t", Kind.WRITE), ("t", Kind.READ)):
        assert session.open(*step) is None
    session.now_ms += WINDOW_S * 1000
    assert session.open("b", Kind.WRITE) == Crossing("a", "b", Kind.WRITE)
    session.now_ms += LABEL_LASTS_MS
    assert session.open("b", Kind.WRITE) is None


def test_what_may_be_either_needs_the_edges_of_both() -> None:
    for edges, granted in (
        (NONE, False),
        ({("a", "b")}, False),
        ({("b", "a")}, False),
        ({("a", "b"), ("b", "a")}, True),
    ):
        for order in itertools.permutations([("a", Kind.BOTH), ("b", Kind.BOTH)]):
            assert all_granted(frozenset(edges), order) is granted


def test_what_was_refused_leaves_no_label() -> None:
    session = Session(frozenset({("c", "b")}))
    assert session.open("a", Kind.READ) is None
    assert session.open("b", Kind.WRITE) is not None
    assert session.open("c", Kind.READ) is None  # a write of b would stand against nothing here, one of c would
    session.now_ms += LABEL_LASTS_MS
    assert session.live() == []
