"""Flow rules over a log: both orders, the window, and what a log without directions can tell."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_zones.flow_labels import Kind
from ringfence_zones.replay import sessions as module
from ringfence_zones.replay.sessions import ALLOWED, Certainty, Crossing, Sessions, Verdict

READ, WRITE, BOTH = Kind.READ, Kind.WRITE, Kind.BOTH
_EDGES = {("/a", "/b"), ("/b", "/c")}


def _edge(_user: str, source: str, target: str) -> Verdict:
    return ALLOWED if (source, target) in _EDGES else Verdict(Certainty.REFUSED)


def _sessions(window_s: float = 600) -> Sessions:
    return Sessions(window_s, _edge)


def _told(crossings: Sequence[Crossing]) -> list[tuple[str, str, bool]]:
    return [(each.source, each.target, each.is_directed) for each in crossings]


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (("/a", READ), ("/b", WRITE), []),
        (("/b", WRITE), ("/a", READ), []),
        (("/b", READ), ("/a", WRITE), [("/b", "/a", True)]),
        (("/a", WRITE), ("/b", READ), [("/b", "/a", True)]),
        (("/a", READ), ("/b", READ), []),
        (("/a", WRITE), ("/b", WRITE), []),
        (("/a", READ), ("/a", WRITE), []),
        (("/a", READ), ("/b", BOTH), []),
        (("/b", BOTH), ("/a", BOTH), [("/b", "/a", True)]),
        (("/a", READ), ("/c", WRITE), [("/a", "/c", True)]),
    ],
)
def test_both_orders_of_a_copy_are_told(
    first: tuple[str, Kind], second: tuple[str, Kind], told: list[tuple[str, str, bool]]
) -> None:
    sessions = _sessions()
    assert sessions.open("s", "u", *first, 0.0) == ()
    assert _told(sessions.open("s", "u", *second, 1.0)) == told


@pytest.mark.parametrize(("apart_s", "told"), [(10.0, True), (10.1, False)])
def test_a_session_remembers_for_its_window_and_no_longer(apart_s: float, told: bool) -> None:
    sessions = _sessions(10)
    sessions.open("s", "u", "/b", READ, 0.0)
    assert bool(sessions.open("s", "u", "/a", WRITE, apart_s)) is told


def test_each_use_begins_the_window_anew() -> None:
    sessions = _sessions(10)
    for now_s in (0.0, 8.0, 16.0):
        sessions.open("s", "u", "/b", READ, now_s)
    assert sessions.open("s", "u", "/a", WRITE, 24.0)


def test_sessions_know_nothing_of_each_other() -> None:
    sessions = _sessions()
    sessions.open("s", "u", "/b", READ, 0.0)
    assert sessions.open("t", "u", "/a", WRITE, 1.0) == ()


def test_what_is_refused_leaves_no_label_and_is_refused_again() -> None:
    sessions = _sessions()
    sessions.open("s", "u", "/b", READ, 0.0)
    assert sessions.open("s", "u", "/a", WRITE, 1.0)
    assert sessions.open("s", "u", "/a", WRITE, 2.0)
    # Had /a been written, reading /c would cross as well.
    assert sessions.open("s", "u", "/c", READ, 3.0) == ()


def test_without_directions_a_copy_is_possible_once_in_a_session_unless_an_edge_may_have_been_it() -> None:
    sessions = _sessions()
    assert sessions.open("s", "u", "/c", None, 0.0) == ()
    (crossing,) = sessions.open("s", "u", "/a", None, 1.0)
    assert (crossing.source, crossing.target, crossing.is_directed) == ("/a", "/c", False)
    assert crossing.verdict.certainty is Certainty.POSSIBLE
    assert sessions.open("s", "u", "/a", None, 2.0) == ()
    assert sessions.undecided == 0
    assert sessions.open("s", "u", "/b", None, 3.0) == ()
    assert (sessions.undecided, sessions.undirected) == (2, 4)


def test_one_known_direction_leaves_one_way() -> None:
    sessions = _sessions()
    sessions.open("s", "u", "/b", READ, 0.0)
    (crossing,) = sessions.open("s", "u", "/a", None, 1.0)
    assert (crossing.source, crossing.target, crossing.is_directed) == ("/b", "/a", True)
    assert crossing.verdict.certainty is Certainty.POSSIBLE


def test_groups_that_would_allow_it_are_named() -> None:
    def unsure(_user: str, source: str, _target: str) -> Verdict:
        return Verdict(Certainty.POSSIBLE, (f"g-{source[1:]}",))

    sessions = Sessions(600, unsure)
    sessions.open("s", "u", "/a", READ, 0.0)
    (crossing,) = sessions.open("s", "u", "/b", WRITE, 1.0)
    assert crossing.verdict == Verdict(Certainty.POSSIBLE, ("g-a",))
    # It may have been allowed, so it labels the session.
    assert sessions.open("s", "u", "/c", READ, 2.0)


def test_of_too_many_sessions_the_one_that_was_idle_longest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 2)
    sessions = _sessions()
    for at, session in enumerate("abc"):
        sessions.open(session, "u", "/b", READ, at)
    assert sessions.forgotten == 1
    assert sessions.open("a", "u", "/a", WRITE, 3.0) == ()
    assert sessions.open("c", "u", "/a", WRITE, 4.0)


def test_of_one_opening_a_bounded_number_is_told() -> None:
    sessions = Sessions(600, lambda *_: Verdict(Certainty.REFUSED))
    for at in range(40):
        sessions.open("s", "u", f"/z{at}", READ, 0.0)
    assert len(sessions.open("s", "u", "/out", WRITE, 1.0)) == module.MAX_CROSSINGS
    assert sessions.cut == 1


_ZONES = st.sampled_from(["/a", "/b", "/c"])
_KNOWN = st.sampled_from([READ, WRITE, BOTH])


@given(st.lists(st.tuples(_ZONES, _KNOWN), max_size=8))
def test_what_was_granted_never_reads_one_zone_and_writes_another_without_an_edge(
    openings: list[tuple[str, Kind]],
) -> None:
    sessions = _sessions()
    granted = [opening for opening in openings if not sessions.open("s", "u", *opening, 0.0)]
    for (source, read), (target, written) in itertools.product(granted, repeat=2):
        if source != target and READ in read and WRITE in written:
            assert (source, target) in _EDGES


@given(st.permutations([("/a", READ), ("/b", WRITE), ("/b", READ), ("/c", WRITE)]), st.integers(0, 4))
def test_whether_a_set_of_openings_is_granted_as_a_whole_does_not_hang_on_their_order(
    openings: list[tuple[str, Kind]], count: int
) -> None:
    def all_granted(order: Sequence[tuple[str, Kind]]) -> bool:
        sessions = _sessions()
        return all(not sessions.open("s", "u", *opening, 0.0) for opening in order)

    chosen = openings[:count]
    assert all_granted(chosen) == all_granted(sorted(chosen, key=str))


@given(st.lists(st.tuples(_ZONES, _KNOWN), min_size=1, max_size=8))
def test_a_log_without_directions_misses_no_copy_that_no_edge_could_explain(openings: list[tuple[str, Kind]]) -> None:
    exact, blind = _sessions(), _sessions()
    refused = [_told(exact.open("s", "u", *opening, 0.0)) for opening in openings]
    told = [_told(blind.open("s", "u", zone, None, 0.0)) for zone, _ in openings]
    pairs = {frozenset(pair[:2]) for pairs in told for pair in pairs}
    for source, target, _ in itertools.chain.from_iterable(refused):
        if (target, source) not in _EDGES:
            assert frozenset((source, target)) in pairs
