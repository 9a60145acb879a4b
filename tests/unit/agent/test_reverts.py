"""Whether a renamed zone root goes back: by hand for each rule, and over everything that can be the case."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_agent.reverts import (
    MAX_REVERTS,
    REVERT_WINDOW_S,
    Back,
    Case,
    CaseState,
    Facts,
    Leave,
    MovedRoot,
    Revert,
    Rules,
    Wait,
    count_recent,
    decide_revert,
)
from ringfence_zones.hdfs_interface import Entry

CASE = Case(
    txid=7,
    rule="zone_root",
    source="/data/pii",
    target="/gone",
    renamed_s=1000.0,
    roots=(MovedRoot("/data/pii", "/gone", "k-pii", 42),),
    inode=42,
)
ANCESTOR = Case(
    txid=8,
    rule="zone_root_ancestor",
    source="/data",
    target="/other",
    renamed_s=1000.0,
    roots=(MovedRoot("/data/a", "/other/a", "ka", 43), MovedRoot("/data/b", "/other/b", "kb", 44)),
    inode=41,
)
RULES = Rules(
    enforce=True,
    revert=True,
    my_turn=True,
    policy_roots=frozenset({"/data/pii", "/data/a", "/data/b"}),
    recent_reverts=0,
)


def _entry(path: str, inode: int) -> Entry:
    return Entry(path, inode, is_directory=True, is_encrypted=True)


def _facts(places: dict[str, int], case: Case = CASE) -> Facts:
    entries = {path: _entry(path, inode) for path, inode in places.items()}
    named = {place for root in case.roots for place in (root.home, root.path)}
    return Facts(entries.get(case.source), entries.get(case.target), {path: entries.get(path) for path in named})


MOVED = _facts({"/gone": 42})
MOVED_ANCESTOR = _facts({"/other": 41, "/other/a": 43, "/other/b": 44}, ANCESTOR)


def test_a_root_that_was_renamed_goes_back_by_its_inode() -> None:
    assert decide_revert(CASE, MOVED, RULES) == Revert(42, "/data/pii")


def test_a_directory_above_roots_goes_back_as_one() -> None:
    assert decide_revert(ANCESTOR, MOVED_ANCESTOR, RULES) == Revert(41, "/data")


@pytest.mark.parametrize(
    ("places", "why"),
    [
        ({"/gone": 42, "/data/pii": 99}, "there is something at /data/pii again"),
        ({}, "nothing is at /gone any more"),
        ({"/gone": 99}, "something else is at /gone by now"),
    ],
)
def test_what_changed_since_is_left(places: dict[str, int], why: str) -> None:
    assert decide_revert(CASE, _facts(places), RULES) == Leave(why)


def test_a_root_that_is_not_below_the_directory_any_more_is_left() -> None:
    facts = _facts({"/other": 41, "/other/a": 43, "/other/b": 99}, ANCESTOR)
    assert decide_revert(ANCESTOR, facts, RULES) == Leave("the zone root /data/b is not at /other/b any more")


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"enforce": False}, Leave("the policy says mode: observe")),
        ({"revert": False}, Leave("the policy says revert_zone_root_renames: false")),
        ({"policy_roots": frozenset({"/x"})}, Leave("no zone that moved is in the policy")),
        ({"policy_roots": None}, Wait("there is no policy yet")),
        ({"my_turn": False}, Wait("it is the other agent's turn to act")),
        ({"recent_reverts": MAX_REVERTS}, Leave("it was renamed away 4 times within an hour")),
    ],
)
def test_without_the_right_to_it_nothing_is_renamed(change: dict[str, object], verdict: object) -> None:
    assert decide_revert(CASE, MOVED, replace(RULES, **change)) == verdict  # type: ignore[arg-type]


def test_a_root_that_is_at_home_ends_the_case_whatever_the_rules_say() -> None:
    forbidden = Rules(enforce=False, revert=False, my_turn=False, policy_roots=None, recent_reverts=9)
    assert decide_revert(CASE, _facts({"/data/pii": 42}), forbidden) == Back()


def test_an_inode_nobody_has_seen_yet_is_waited_for() -> None:
    unseen = replace(CASE, roots=(replace(CASE.roots[0], inode=None),), inode=None)
    assert isinstance(decide_revert(unseen, MOVED, RULES), Wait)


def test_only_what_ended_lately_counts() -> None:
    now_s = 10_000.0
    ended = [
        replace(CASE, state=CaseState.REVERTED, ended_s=now_s - 1),
        replace(CASE, state=CaseState.RESTORED, ended_s=now_s - REVERT_WINDOW_S),
        replace(CASE, state=CaseState.REVERTED, ended_s=now_s - REVERT_WINDOW_S - 1),
        replace(CASE, state=CaseState.LEFT, ended_s=now_s - 1),
        replace(ANCESTOR, state=CaseState.REVERTED, ended_s=now_s - 1),
        CASE,
    ]
    assert count_recent(ended, "/data/pii", now_s) == 2


_INODES = st.one_of(st.none(), st.sampled_from([41, 42, 43, 44, 99]))


@given(
    is_ancestor=st.booleans(),
    places=st.dictionaries(
        st.sampled_from(["/gone", "/data/pii", "/data", "/data/a", "/data/b", "/other", "/other/a", "/other/b"]),
        _INODES,
    ),
    enforce=st.booleans(),
    revert=st.booleans(),
    my_turn=st.booleans(),
    in_policy=st.one_of(st.none(), st.frozensets(st.sampled_from(["/data/pii", "/data/a", "/data/b", "/x"]))),
    recent=st.integers(0, 5),
)
def test_nothing_is_renamed_unless_everything_is_as_it_must_be(
    *,
    is_ancestor: bool,
    places: dict[str, int | None],
    enforce: bool,
    revert: bool,
    my_turn: bool,
    in_policy: frozenset[str] | None,
    recent: int,
) -> None:
    """Told anew from the facts themselves, not by the decision's own steps."""
    case = ANCESTOR if is_ancestor else CASE
    there = {path: inode for path, inode in places.items() if inode is not None}
    rules = Rules(enforce=enforce, revert=revert, my_turn=my_turn, policy_roots=in_policy, recent_reverts=recent)
    verdict = decide_revert(case, _facts(there, case), rules)
    is_home = all(there.get(root.home) == root.inode for root in case.roots)
    may = (
        enforce
        and revert
        and my_turn
        and recent < MAX_REVERTS
        and in_policy is not None
        and any(root.home in in_policy for root in case.roots)
        and case.source not in there
        and there.get(case.target) == case.inode
        and all(there.get(root.path) == root.inode for root in case.roots)
    )
    assert isinstance(verdict, Back) == is_home
    assert isinstance(verdict, Revert) == (may and not is_home)
    if isinstance(verdict, Revert):
        assert verdict == Revert(case.inode or 0, case.source)
