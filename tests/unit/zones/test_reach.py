"""Where data can end: against a plain search through every copy that anybody could make, and on small policies."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_zones.errors import InputError, PolicyError
from ringfence_zones.memberships import load_memberships
from ringfence_zones.policy import Policy, load_policy, policy_from_json
from ringfence_zones.reach import ReachGraph, ReachReport

EXAMPLE = Path(__file__).parents[3] / "zones" / "example.yaml"
EVERYTHING = 1_000_000


def _policy(zones: Mapping[str, Mapping[str, Any]], **top: Any) -> Policy:
    listed = [{"path": path, **block} for path, block in zones.items()]
    return policy_from_json({"version": 1, "cluster": "c", "zones": listed, **top})


def _report(policy: Policy, limit: int = EVERYTHING, **graph: Any) -> ReachReport:
    return ReachGraph(policy, **graph).report(limit=limit)


def _told(report: ReachReport) -> list[str]:
    return [" ".join(path.places) for path in report.paths]


def _ways(report: ReachReport) -> list[list[str]]:
    return [[str(way) for step in path.steps for way in step.ways] for path in report.paths]


def test_the_shortest_undeclared_path_comes_first_and_names_who_takes_each_step() -> None:
    policy = _policy(
        {
            "/a": {"readers": ["ann", "bob"]},
            "/b": {"readers": ["bob"], "writers": ["ann"]},
            "/c": {"writers": ["bob"]},
            "/d": {"readers": ["bob"], "writers": ["carl"]},
        },
        flows=[{"from": "/a", "to": "/b", "who": ["ann"]}],
    )
    report = _report(policy)
    assert _told(report) == ["/a /c", "/b /c", "/d /c"]
    assert _ways(report) == [["both keys: bob"]] * 3
    assert (report.undeclared, report.declared, report.left_out) == (3, 1, 0)


def test_two_declared_steps_make_an_undeclared_path() -> None:
    policy = _policy(
        {"/a": {"readers": ["x"]}, "/b": {"readers": ["y"], "writers": ["x"]}, "/c": {"writers": ["y"]}},
        flows=[{"from": "/a", "to": "/b", "who": ["x"]}, {"from": "/b", "to": "/c", "who": ["y"]}],
    )
    report = _report(policy)
    assert _told(report) == ["/a /b /c"]
    assert _ways(report) == [["flow for x", "both keys: x", "flow for y", "both keys: y"]]
    finding = report.paths[0].to_finding()
    assert finding.path == "/a"
    assert finding.message == (
        "data of /a can end in /c: /a -> /b (flow for x; both keys: x) -> /c (flow for y; both keys: y)"
    )
    assert "take one of the steps away" in finding.hint


def test_clear_text_is_reached_through_outside_and_comes_back_with_a_writer() -> None:
    policy = _policy(
        {"/a": {"readers": ["x"]}, "/b": {"readers": ["y"], "writers": ["x"]}, "/c": {"writers": ["z"]}},
        flows=[{"from": "/a", "to": "/b", "who": ["x"]}],
        outside={"/out": {"from": ["/b"]}},
    )
    report = _report(policy)
    assert _told(report) == ["/a /b /out", "/b /out /c", "/a /b /out /c"]
    assert _ways(report)[1] == ["outside", "out of clear text, by z"]
    graph = ReachGraph(policy)
    assert _told(graph.report(["/a"], graph.clear_places, limit=9)) == ["/a /b /out"]


def test_without_flows_every_zone_is_declared_to_every_other_but_not_to_clear_text() -> None:
    zones = {"/a": {"readers": ["x"]}, "/b": {"writers": ["x"]}}
    assert _told(_report(_policy(zones))) == []
    assert _report(_policy(zones)).declared == 1
    assert _told(_report(_policy(zones, flows=[]))) == ["/a /b"]
    assert _told(_report(_policy(zones, outside={"/out": {"from": ["/b"]}}))) == ["/a /b /out"]


def test_a_reader_of_both_keys_is_no_step_but_counted_and_shown_on_demand() -> None:
    policy = _policy({"/a": {"readers": ["x"], "writers": ["w"]}, "/b": {"readers": ["x"]}}, flows=[])
    report = _report(policy)
    assert (report.undeclared, report.key_pairs) == (0, 2)
    assert _told(_report(policy, keys_alone=True)) == ["/a /b", "/b /a"]


@pytest.mark.parametrize(("mode", "reached"), [("0750", False), ("0770", True)])
def test_a_mode_that_lets_the_group_write_makes_its_members_writers(mode: str, reached: bool) -> None:
    policy = _policy({"/a": {"readers": ["@g"]}, "/b": {"group": "g", "mode": mode}}, flows=[])
    assert _told(_report(policy)) == (["/a /b"] if reached else [])


@pytest.mark.parametrize(
    ("mode", "readers", "told"),
    [("0757", ["r"], ["/a /b"]), ("0757", ["*"], ["/a /b"]), ("0755", ["r"], []), ("0757", ["q"], [])],
)
def test_a_mode_that_lets_others_write_needs_the_key_all_the_same(
    mode: str, readers: list[str], told: list[str]
) -> None:
    policy = _policy({"/a": {"readers": ["r"]}, "/b": {"mode": mode, "readers": readers}}, flows=[])
    assert _told(_report(policy)) == told


def test_everybody_reads_so_every_writer_carries() -> None:
    policy = _policy({"/a": {"readers": ["*"]}, "/b": {"writers": ["w", "@g"]}}, flows=[])
    assert _ways(_report(policy)) == [["both keys: @g, w"]]


def test_a_member_of_two_groups_holds_what_both_hold() -> None:
    policy = _policy({"/a": {"readers": ["@r"]}, "/b": {"writers": ["@w"]}}, flows=[])
    assert _told(_report(policy)) == []
    members = {"ann": frozenset({"r", "w"}), "bob": frozenset({"r"})}
    report = _report(policy, memberships=members)
    assert _ways(report) == [["both keys: ann"]]


def test_members_of_a_group_that_is_named_are_not_listed_again() -> None:
    policy = _policy({"/a": {"readers": ["@g", "eve"]}, "/b": {"writers": ["@g", "eve"]}}, flows=[])
    members = {name: frozenset({"g"}) for name in ("ann", "bob")}
    assert _ways(_report(policy, memberships=members)) == [["both keys: @g, eve"]]


def test_of_many_who_take_a_step_the_first_are_named_and_the_others_counted() -> None:
    policy = _policy({"/a": {"readers": ["@r"]}, "/b": {"writers": ["@w"]}}, flows=[])
    both = {f"u{at:03}": frozenset({"r", "w"}) for at in range(200)}
    ((way,),) = [step.ways for step in _report(policy, memberships=both).paths[0].steps]
    assert (way.who[:2], len(way.who), way.more) == (("u000", "u001"), 50, 150)
    assert str(way) == "both keys: u000, u001, u002, u003, u004, u005, u006, u007 and 192 more"


def test_what_is_left_out_is_counted() -> None:
    zones = {f"/z{at}": {"writers": ["x"]} for at in range(5)}
    report = _report(_policy(zones, flows=[]), limit=3)
    assert (len(report.paths), report.undeclared, report.left_out) == (3, 20, 17)


def test_between_two_places_every_path_without_a_loop_is_told_shortest_first() -> None:
    flows = [("/a", "/b"), ("/b", "/c"), ("/a", "/d"), ("/d", "/b"), ("/d", "/c"), ("/c", "/a")]
    people = {f"u{at}": edge for at, edge in enumerate(flows)}
    zones = {
        path: {
            "readers": [user for user, (source, _) in people.items() if source == path],
            "writers": [user for user, (_, target) in people.items() if target == path],
        }
        for path in ("/a", "/b", "/c", "/d")
    }
    # Nobody may carry anything back: a writer reads as well.
    policy = _policy(zones, flows=[{"from": s, "to": t, "who": [u]} for u, (s, t) in people.items()])
    graph = ReachGraph(policy)
    report = graph.report(["/a"], ["/c"], limit=EVERYTHING)
    assert [len(path.steps) for path in report.paths] == sorted(len(path.steps) for path in report.paths)
    assert len(set(_told(report))) == len(report.paths)
    assert {"/a /b /c", "/a /d /c", "/a /d /b /c"} <= set(_told(report))
    short = graph.report(["/a"], ["/c"], limit=1)
    assert (_told(short), short.more) == (_told(report)[:1], True)
    assert not report.more


def test_the_example_policy_says_what_its_readme_says() -> None:
    report = _report(load_policy(EXAMPLE))
    assert _told(report) == ["/data/masked /data/pii", "/data/pii /data/masked /exports"]


# A plain reference: every person tries every copy.

_NAMES = ("u1", "u2", "u3", "@g1", "@g2")
_MEMBERS = {"u1": frozenset({"g1"}), "u2": frozenset({"g1", "g2"}), "u4": frozenset({"g2"})}


@st.composite
def _policies(draw: st.DrawFn) -> Policy:
    paths = [f"/z{at}" for at in range(draw(st.integers(1, 5)))]
    names = st.lists(st.sampled_from(_NAMES), unique=True, max_size=2)
    zones = {
        path: {
            "readers": draw(names) + draw(st.sampled_from([[], [], [], ["*"]])),
            "writers": draw(names),
            "mode": draw(st.sampled_from(["0700", "0750", "0770", "0757"])),
            **draw(st.sampled_from([{}, {"group": "g1"}, {"owner": "u3"}])),
        }
        for path in paths
    }
    edges = draw(st.lists(st.tuples(st.sampled_from(paths), st.sampled_from(paths)), max_size=3, unique=True))
    top: dict[str, Any] = {}
    if draw(st.booleans()):
        # `who` must be able to read and write: a user made for each edge.
        kept = [(source, target) for source, target in edges if source != target]
        top["flows"] = [{"from": s, "to": t, "who": [f"e{at}"]} for at, (s, t) in enumerate(kept)]
        for at, (source, target) in enumerate(kept):
            zones[source]["readers"] = [*zones[source]["readers"], f"e{at}"]
            zones[target]["writers"] = [*zones[target]["writers"], f"e{at}"]
    if draw(st.booleans()):
        top["outside"] = {"/out": {"from": draw(st.lists(st.sampled_from(paths), unique=True, max_size=2))}}
    return _policy(zones, **top)


def _people(policy: Policy) -> Iterator[tuple[str, frozenset[str]]]:
    """Everybody: named users with their groups, a nameless member of each group, and somebody in none."""
    named = {name for zone in policy.zones for name in zone.all_readers if not name.startswith("@")} - {"*"}
    for user in named | _MEMBERS.keys() | {"nobody"}:
        yield user, _MEMBERS.get(user, frozenset())
    for group in ("g1", "g2"):
        yield f"member-of-{group}", frozenset({group})


def _can_write(policy: Policy, path: str, user: str, groups: frozenset[str]) -> bool:
    zone = policy.find_zone(path)
    assert zone is not None
    if not zone.can_read(user, groups):  # the key
        return False
    by_group = bool(zone.mode & 0o020) and zone.group in groups
    return zone.can_write(user, groups) or by_group or bool(zone.mode & 0o002)


def _single_steps(policy: Policy) -> set[tuple[str, str]]:
    paths = [zone.path for zone in policy.zones]
    steps = {(flow.source, flow.target) for flow in policy.flows or ()}
    for user, groups in _people(policy):
        for zone in policy.zones:
            if zone.can_read(user, groups):
                steps |= {(zone.path, path) for path in paths if _can_write(policy, path, user, groups)}
    for place, sources in (policy.outside or {}).items():
        steps |= {(source, place) for source in sources}
        steps |= {
            (place, path) for path in paths if any(_can_write(policy, path, *person) for person in _people(policy))
        }
    return {(source, target) for source, target in steps if source != target}


def _distances(steps: Iterable[tuple[str, str]], start: str) -> dict[str, int]:
    found, todo = {start: 0}, [start]
    for place in todo:
        for source, target in steps:
            if source == place and target not in found:
                found[target] = found[place] + 1
                todo.append(target)
    return found


def _is_declared(policy: Policy, source: str, target: str) -> bool:
    if target in (policy.outside or {}):
        return source in (policy.outside or {})[target]
    return policy.flows is None or any((flow.source, flow.target) == (source, target) for flow in policy.flows)


@given(_policies())
def test_every_pair_is_found_by_a_shortest_path_of_steps_that_somebody_can_take(policy: Policy) -> None:
    steps = _single_steps(policy)
    report = _report(policy, memberships=_MEMBERS)
    expected = {
        (zone.path, target): distance
        for zone in policy.zones
        for target, distance in _distances(steps, zone.path).items()
        if distance and not _is_declared(policy, zone.path, target)
    }
    assert {(path.source, path.target): len(path.steps) for path in report.paths} == expected
    assert report.undeclared == len(expected)
    for path in report.paths:
        assert not path.declared
        assert {(step.source, step.target) for step in path.steps} <= steps
        assert all(step.ways for step in path.steps)
        assert all(way.who for step in path.steps for way in step.ways if way.by != "outside")


@given(_policies(), st.integers(1, 4))
def test_all_paths_between_two_places_are_found_in_order_of_length(policy: Policy, limit: int) -> None:
    steps = _single_steps(policy)
    graph = ReachGraph(policy, _MEMBERS)
    places = [zone.path for zone in policy.zones]
    for start, end in itertools.permutations(places, 2):
        rest = [place for place in [*places, *graph.clear_places] if place not in (start, end)]
        expected = sorted(
            " ".join((start, *middle, end))
            for count in range(len(rest) + 1)
            for middle in itertools.permutations(rest, count)
            if all(step in steps for step in itertools.pairwise((start, *middle, end)))
        )
        report = graph.report([start], [end], limit=EVERYTHING)
        assert sorted(_told(report)) == expected
        lengths = [len(path.steps) for path in report.paths]
        assert lengths == sorted(lengths)
        few = graph.report([start], [end], limit=limit)
        assert _told(few) == _told(report)[:limit]
        assert few.more == (len(expected) > limit)


@pytest.mark.parametrize(("hands", "undeclared"), [(1, 1000 * 999 // 2 - 999), (300, 1000 * 999 - 999)])
def test_a_thousand_zones_are_searched_in_seconds_be_they_a_chain_or_all_tied_together(
    hands: int, undeclared: int
) -> None:
    # Zone N is written by who reads zone N-1; with many hands the teams tie everything to everything in a few steps.
    zones = {f"/z{at:03}": {"readers": [f"u{at + 1}"], "writers": [f"u{at}"]} for at in range(1000)}
    if hands > 1:
        for at, block in enumerate(zones.values()):
            block["writers"] += [f"@team{at * 7 % hands}", f"@team{at * 11 % hands}"]
    edges = [{"from": f"/z{at:03}", "to": f"/z{at + 1:03}", "who": [f"u{at + 1}"]} for at in range(999)]
    policy = _policy(zones, flows=edges)
    began = time.monotonic()
    report = _report(policy, limit=50)
    taken_s = time.monotonic() - began
    assert (report.undeclared, report.declared, report.left_out) == (undeclared, 999, undeclared - 50)
    assert taken_s < 30, "a search that follows each edge takes minutes"


def test_memberships_are_what_hdfs_groups_prints(tmp_path: Path) -> None:
    path = tmp_path / "groups.txt"
    path.write_text("# made yesterday\nann : staff pii\n\nbob :\nann : other\n", encoding="utf-8")
    assert load_memberships(path) == {"ann": {"staff", "pii", "other"}, "bob": frozenset()}


def test_lines_that_are_no_memberships_are_refused_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "groups.txt"
    path.write_text("ann : staff\nbob=staff\n : staff\ncarl :staff\nTwo Words : g\n", encoding="utf-8")
    with pytest.raises(PolicyError) as caught:
        load_memberships(path)
    assert [finding.path for finding in caught.value.findings] == [f"{path}:{line}" for line in (2, 3, 4, 5)]
    with pytest.raises(InputError, match="cannot read the groups"):
        load_memberships(tmp_path / "none")
