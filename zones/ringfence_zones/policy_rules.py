"""What the parts of a policy mean together: one key per zone, no silent nesting, flows that can be used.

Works on whatever of the document is right by itself, so that one run reports everything. Nothing here looks at a
cluster.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ringfence_zones.errors import PathError
from ringfence_zones.findings import Finding, Rule
from ringfence_zones.keys import POLICY_KEY_NAME
from ringfence_zones.paths import HdfsPath
from ringfence_zones.policy_document import EVERYONE, FlowBlock, ZoneBlock
from ringfence_zones.policy_problems import finding
from ringfence_zones.policy_yaml import LocatedDocument, Location

# AclTransformation.MAX_ENTRIES is 32 for each scope; owner, owning group, mask and others take four.
MAX_NAMED_ENTRIES = 28


@dataclass(frozen=True, slots=True)
class DraftZone:
    """A zone block that is right by itself: its place in the list, its path, its key given or derived.

    `key` is None when it cannot be derived because the cluster has no usable name.
    """

    index: int
    block: ZoneBlock
    path: HdfsPath
    key: str | None


def check_rules(data: Any, zones: list[DraftZone], located: LocatedDocument) -> list[Finding]:
    """Every rule between values that the document breaks."""
    if not isinstance(data, dict):
        return []
    known = _zone_paths(data.get("zones"))
    return [
        *_duplicates(zones, located),
        *_derived_names(zones, located),
        *_nesting(zones, located),
        *_acl_sizes(zones, located),
        *_flows(data.get("flows"), zones, known, located),
        *_outside(data.get("outside"), known, located),
        *_flow_control(data, located),
    ]


def _zone_paths(raw: Any) -> frozenset[HdfsPath]:
    """Every zone root that can be read, of wrong zone blocks as well: a flow to one of those is no second problem."""
    found = set()
    for zone in raw if isinstance(raw, list) else []:
        path = _parse(zone.get("path")) if isinstance(zone, dict) else None
        if path is not None:
            found.add(path)
    return frozenset(found)


def _parse(value: Any) -> HdfsPath | None:
    try:
        return HdfsPath.parse(value) if isinstance(value, str) else None
    except PathError:
        return None


def _duplicates(zones: list[DraftZone], located: LocatedDocument) -> Iterator[Finding]:
    paths: dict[HdfsPath, DraftZone] = {}
    keys: dict[str, DraftZone] = {}
    for zone in zones:
        first = paths.setdefault(zone.path, zone)
        if first is not zone:
            line = located.line(("zones", first.index, "path"))
            message = f"the zone {zone.path} is listed twice; the first is on line {line}"
            yield finding(located, ("zones", zone.index, "path"), Rule.DUPLICATE_PATH, message, "keep one of the two")
            continue
        other = keys.setdefault(zone.key, zone) if zone.key is not None else zone
        if other is not zone:
            message = f"the zones {other.path} and {zone.path} share the key {zone.key}; every zone has its own"
            hint = "remove 'key' from one of them: a name is then derived from its path"
            if zone.block.key is None and other.block.key is None:
                hint = "give one of them a 'key' of its own"
            yield finding(located, ("zones", zone.index, "key"), Rule.DUPLICATE_KEY, message, hint)


def _derived_names(zones: list[DraftZone], located: LocatedDocument) -> Iterator[Finding]:
    for zone in zones:
        if zone.block.key is None and zone.key is not None and not POLICY_KEY_NAME.fullmatch(zone.key):
            message = f"no key name can be derived for {zone.path}: {zone.key[:40]}... is too long or has no letter"
            hint = "give the zone a 'key' of up to 200 characters"
            yield finding(located, ("zones", zone.index, "path"), Rule.BAD_KEY_NAME, message, hint)


def _nesting(zones: list[DraftZone], located: LocatedDocument) -> Iterator[Finding]:
    roots = {zone.path for zone in zones}
    for zone in zones:
        outer = next((path for path in _ancestors(zone.path) if path in roots), None)
        if outer is not None and not zone.block.nested:
            message = f"the zone {zone.path} lies inside the zone {outer}"
            hint = "choose a path outside it, or write  nested: true  in the inner zone if that is meant"
            yield finding(located, ("zones", zone.index, "path"), Rule.NESTED_ZONE, message, hint)


def _acl_sizes(zones: list[DraftZone], located: LocatedDocument) -> Iterator[Finding]:
    for zone in zones:
        block = zone.block
        named = {*block.readers, *block.writers, block.owner} - {EVERYONE, None}
        if len(named) > MAX_NAMED_ENTRIES:
            message = f"the zone {zone.path} names {len(named)} readers and writers; HDFS takes {MAX_NAMED_ENTRIES}"
            hint = 'put them into groups and name those: "@analysts"'
            yield finding(located, ("zones", zone.index, "readers"), Rule.BAD_VALUE, message, hint)


def _ancestors(path: HdfsPath) -> Iterator[HdfsPath]:
    parent = path.parent
    while parent is not None:
        yield parent
        parent = parent.parent


def _flows(raw: Any, zones: list[DraftZone], known: frozenset[HdfsPath], located: LocatedDocument) -> Iterator[Finding]:
    by_path = {str(zone.path): zone.block for zone in zones}
    for index, raw_flow in enumerate(raw if isinstance(raw, list) else []):
        try:
            flow = FlowBlock.model_validate(raw_flow)
        except ValidationError:
            continue
        at: Location = ("flows", index)
        for end, path in (("from", flow.from_), ("to", flow.to)):
            yield from _unknown_zone((*at, end), path, known, located)
        if flow.from_ == flow.to:
            message = f"the flow leads from {flow.from_} to itself"
            yield finding(located, at, Rule.BAD_VALUE, message, "remove it: moves inside a zone are always allowed")
            continue
        source, target = by_path.get(flow.from_), by_path.get(flow.to)
        for who in flow.who:
            if source is not None and not _may_read(source, who):
                yield _no_access(located, at, who, "read", flow.from_, "readers")
            if target is not None and not _may_write(target, who):
                yield _no_access(located, at, who, "write", flow.to, "writers")


def _unknown_zone(
    location: Location, path: str, known: frozenset[HdfsPath], located: LocatedDocument
) -> Iterator[Finding]:
    if HdfsPath.parse(path) in known:
        return
    inside = [str(root) for root in known if HdfsPath.parse(path).is_inside(root)]
    close = difflib.get_close_matches(path, sorted(map(str, known)), n=1, cutoff=0.8)
    hint = "name the root of a zone of this document"
    if inside:
        hint = f"name the zone's root {max(inside, key=len)}"
    elif close:
        hint = f"did you mean {close[0]}?"
    yield finding(located, location, Rule.UNKNOWN_ZONE, f"{path} is not a zone root of this document", hint)


def _no_access(located: LocatedDocument, at: Location, who: str, verb: str, path: str, field: str) -> Finding:
    message = f"{who} is allowed to move data here but cannot {verb} in {path}"
    return finding(located, (*at, "who"), Rule.FLOW_WITHOUT_ACCESS, message, f"add {who} to the zone's {field}")


def _may_read(zone: ZoneBlock, who: str) -> bool:
    return (
        EVERYONE in zone.readers or who in zone.readers or _may_write(zone, who) or _by_group(zone, zone.readers, who)
    )


def _may_write(zone: ZoneBlock, who: str) -> bool:
    return who in zone.writers or who == zone.owner or _by_group(zone, zone.writers, who)


def _by_group(zone: ZoneBlock, principals: tuple[str, ...], who: str) -> bool:
    """A document does not know who is in a group: where one has the right, a user is given the benefit."""
    if principals is zone.readers and zone.group is not None and zone.mode_bits & 0o040:
        return not who.startswith("@") or who == f"@{zone.group}"
    return not who.startswith("@") and any(name.startswith("@") for name in principals)


def _outside(raw: Any, known: frozenset[HdfsPath], located: LocatedDocument) -> Iterator[Finding]:
    seen: set[HdfsPath] = set()
    for name, block in raw.items() if isinstance(raw, dict) else ():
        path = _parse(name)
        if path is None:
            continue
        at: Location = ("outside", name)
        if path in seen:
            yield finding(located, at, Rule.DUPLICATE_PATH, f"{path} is listed twice", "keep one of the two")
        seen.add(path)
        around = next((root for root in itertools.chain([path], _ancestors(path)) if root in known), None)
        if around is not None:
            message = f"{path} lies in the zone {around}, so it is not a clear-text place"
            yield finding(located, at, Rule.BAD_VALUE, message, "use 'flows' for data that moves between zones")
        sources = block.get("from") if isinstance(block, dict) else None
        for index, source in enumerate(sources if isinstance(sources, list) else []):
            if _parse(source) is not None:
                yield from _unknown_zone((*at, "from", index), source, known, located)


def _flow_control(data: dict[str, Any], located: LocatedDocument) -> Iterator[Finding]:
    control = data.get("flow_control")
    if isinstance(control, dict) and control.get("mode") == "enforce" and "flows" not in data:
        message = "flow_control.mode is enforce, but there is no 'flows' key, so there is nothing to enforce"
        hint = "list the allowed edges under 'flows', or write  flows: []  to deny every copy between zones"
        yield finding(located, ("flow_control", "mode"), Rule.BAD_VALUE, message, hint)
