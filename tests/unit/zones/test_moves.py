"""Move decisions against the table in `tests/vectors/moves.yaml`, and properties that hold for any zones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ringfence_zones.errors import PathError
from ringfence_zones.findings import Rule
from ringfence_zones.model import EncryptionZone
from ringfence_zones.moves import decide_move
from ringfence_zones.paths import HdfsPath
from ringfence_zones.policy import Policy, policy_from_json

TABLE = yaml.safe_load((Path(__file__).parents[2] / "vectors" / "moves.yaml").read_text(encoding="utf-8"))
WRITERS = {"/zoneB": ["etl", "masker", "@loaders", "@maskers"]}


def _zones(paths: list[str], *, one_key: bool = False) -> list[EncryptionZone]:
    return [EncryptionZone(path, "k" if one_key else f"k{at}") for at, path in enumerate(paths)]


def _policy(name: str) -> Policy | None:
    extra = TABLE["policies"][name]
    if extra is None:
        return None
    zones = [
        {
            "path": path,
            "nested": True,
            "readers": ["analyst", "masker", "@maskers"],
            "writers": WRITERS.get(path, ["etl", "@loaders"]),
        }
        for path in TABLE["zones"]
    ]
    return policy_from_json({"version": 1, "cluster": "c", "zones": zones, **extra})


def _outcome(case: dict[str, Any]) -> str:
    zones = _zones(case.get("zones", TABLE["zones"]), one_key=case.get("one_key", False))
    decision = decide_move(
        _policy(case.get("policy", "none" if "zones" in case else "open")),
        zones,
        user=case.get("user", "etl"),
        groups=case.get("groups", []),
        src=HdfsPath.parse(case["src"]),
        dst=HdfsPath.parse(case["dst"]),
    )
    assert decision.rename == (decision.rule is None) == (decision.reason is None)
    assert not (decision.rename and decision.command)
    assert not (decision.command and not decision.transfer)
    words = ["ok" if decision.rule is None else decision.rule.value]
    words += ["transfer"] if decision.transfer else []
    words += ["same"] if decision.same_zone else []
    return " ".join(words)


def _matrix() -> list[Any]:
    cells = []
    for src, row in TABLE["matrix"].items():
        by_dst = {dst: outcome for outcome, dsts in row.items() for dst in dsts}
        assert sorted(by_dst) == sorted(TABLE["places"]), f"row {src} does not name every destination once"
        cells += [pytest.param(src, dst, outcome, id=f"{src}-{dst}") for dst, outcome in by_dst.items()]
    return cells


def test_the_table_names_every_place_as_a_source() -> None:
    assert sorted(TABLE["matrix"]) == sorted(TABLE["places"])


@pytest.mark.parametrize(("src", "dst", "expected"), _matrix())
def test_every_pair_of_places_has_the_outcome_of_the_table(src: str, dst: str, expected: str) -> None:
    places = TABLE["places"]
    assert _outcome({"src": places[src]["src"], "dst": places[dst]["dst"]}) == expected


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: case["why"])
def test_each_case_has_the_outcome_of_the_table(case: dict[str, Any]) -> None:
    assert _outcome(case) == case["expect"]


@pytest.mark.parametrize("text", TABLE["refused"], ids=ascii)
def test_bad_input_is_refused_by_name(text: str) -> None:
    with pytest.raises(PathError) as caught:
        HdfsPath.parse(text)
    assert caught.value.path == text
    assert repr(text) in caught.value.message


def test_the_root_of_the_file_system_cannot_be_moved() -> None:
    with pytest.raises(PathError, match="root of the file system"):
        decide_move(None, [], user="etl", src=HdfsPath(()), dst=HdfsPath.parse("/a"))


def test_an_existing_directory_as_destination_is_put_into() -> None:
    src, dst = HdfsPath.parse("/clear/inner"), HdfsPath.parse("/zoneA")
    decision = decide_move(None, _zones(["/zoneA/inner"]), user="etl", src=src, dst=dst, dst_is_directory=True)
    assert decision.rule is Rule.CLEAR_TO_ZONE


def test_a_refusal_names_both_zones_the_rule_and_the_missing_edge() -> None:
    decision = decide_move(
        _policy("closed"),
        _zones(TABLE["zones"]),
        user="etl",
        src=HdfsPath.parse("/zoneA/f"),
        dst=HdfsPath.parse("/zoneB/f"),
    )
    assert decision.to_json() == {
        "rename": False,
        "transfer": False,
        "same_zone": False,
        "rule": "zone_to_zone",
        "command": None,
        "reason": "/zoneA/f is in the encryption zone /zoneA and /zoneB/f in the zone /zoneB: a rename does not change"
        " the key; the policy has no flow from /zoneA to /zoneB for etl",
    }


# --- Properties -------------------------------------------------------------------------------------------------

_NAMES = st.sampled_from(["a", "b", "a2", "c d", "é", ".Trash"])
_PATHS = st.lists(_NAMES, min_size=1, max_size=4).map(lambda parts: HdfsPath(tuple(parts)))
_ROOTS = st.lists(_PATHS, max_size=5, unique=True)


def _zone_by_walking(roots: list[HdfsPath], path: HdfsPath) -> HdfsPath | None:
    """The NameNode's own walk: from the inode upwards, the first directory with the zone attribute."""
    parts = list(path.components)
    while True:
        if HdfsPath(tuple(parts)) in roots:
            return HdfsPath(tuple(parts))
        if not parts:
            return None
        parts.pop()


@given(_ROOTS, _PATHS, _PATHS)
def test_a_rename_is_allowed_exactly_when_the_namenode_allows_it_and_no_root_moves(
    roots: list[HdfsPath], src: HdfsPath, dst: HdfsPath
) -> None:
    zones = _zones([str(root) for root in roots])
    decision = decide_move(None, zones, user="etl", src=src, dst=dst)
    final = dst
    while final in roots:
        final = final.child(src.name)
    src_parent, dst_parent = src.parent, final.parent
    assert src_parent is not None and dst_parent is not None
    namenode_allows = _zone_by_walking(roots, src_parent) == _zone_by_walking(roots, dst_parent)
    moves_a_root = any(root.components[: len(src.components)] == src.components for root in roots)
    assert decision.rename == (namenode_allows and not moves_a_root)


@given(_ROOTS, _PATHS, _PATHS)
def test_no_rename_ever_crosses_a_zone_boundary(roots: list[HdfsPath], src: HdfsPath, dst: HdfsPath) -> None:
    decision = decide_move(None, _zones([str(root) for root in roots]), user="etl", src=src, dst=dst)
    if decision.rename and (_zone_by_walking(roots, src) is not None):
        assert decision.same_zone


@given(_ROOTS, _PATHS, _PATHS)
def test_a_policy_that_closes_everything_lets_nothing_leave_or_enter(
    roots: list[HdfsPath], src: HdfsPath, dst: HdfsPath
) -> None:
    policy = policy_from_json({"version": 1, "cluster": "c", "zones": [], "flows": [], "outside": {}})
    zones = _zones([str(root) for root in roots])
    decision = decide_move(policy, zones, user="etl", src=src, dst=dst)
    final = dst
    while final in roots:
        final = final.child(src.name)
    carried = {_zone_by_walking(roots, src), *(root for root in roots if root.is_inside(src))}
    assert final.parent is not None
    assert decision.transfer == (carried == {_zone_by_walking(roots, final.parent)})
    if not decision.transfer:
        assert decision.command is None
