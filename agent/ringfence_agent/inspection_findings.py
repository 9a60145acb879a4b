"""What an inspection saw, as findings with the command that mends each. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import takewhile

from ringfence_agent.inspection import MAX_CLEAR, ForeignFile, Inspection
from ringfence_zones.copy_command import copy_and_compare
from ringfence_zones.encryption_xattrs import key_of_version
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.hdfs_interface import Entry
from ringfence_zones.model import ClusterState
from ringfence_zones.paths import HdfsPath
from ringfence_zones.policy import Policy


def clear_findings(policy: Policy | None, inspection: Inspection) -> Iterator[Finding]:
    """Entries in clear under `must_encrypt`."""
    if policy is None:
        return
    for entry in inspection.clear:
        kind = "directory" if entry.is_directory else "file"
        yield Finding(
            severity=Severity.ERROR,
            rule=Rule.CLEAR_DATA,
            path=entry.path,
            message=f"this {kind} is in no encryption zone, and the policy's must_encrypt covers it",
            hint="copy it into a zone and remove it here, or make its place a zone of the policy before it holds data",
            command=_copy_into_zone(policy, entry),
        )
    if not inspection.clear_is_complete:
        yield Finding(
            severity=Severity.WARN,
            rule=Rule.CLEAR_DATA,
            path="/",
            message=f"there is more under must_encrypt than one look takes in ({MAX_CLEAR} finds): not all is said",
            hint="mend what is said, then the rest will be",
        )


def foreign_findings(state: ClusterState, inspection: Inspection) -> Iterator[Finding]:
    """Files whose key version is of another key than their zone's."""
    for file in inspection.foreign:
        yield Finding(
            severity=Severity.ERROR,
            rule=Rule.FOREIGN_KEY_VERSION,
            path=file.path,
            key=file.zone_key,
            message=f"its data key is wrapped with {file.version_name}, and the zone {file.zone} has the key"
            f" {file.zone_key}: nobody can read it here",
            hint="a raw copy (distcp -px /.reserved/raw) does this: take its bytes to a zone of that key, read them"
            f" there and copy them the ordinary way. Seen in a sample ({inspection.sampled} files since the agent"
            " started) or in HDFS's events: there may be more",
            command=_take_back(state, file),
        )


def _copy_into_zone(policy: Policy, entry: Entry) -> str | None:
    """Into the zone of the policy that is nearest by path; its owner may know a better one."""
    source = HdfsPath.from_namenode(entry.path)
    zones = [HdfsPath.from_namenode(zone.path) for zone in policy.zones]
    if not zones:
        return None
    nearest = max(zones, key=lambda zone: (_shared(zone, source), -len(zone.components), str(zone)))
    return copy_and_compare(source, nearest.child(source.name), is_directory=entry.is_directory)


def _shared(one: HdfsPath, other: HdfsPath) -> int:
    pairs = zip(one.components, other.components, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _take_back(state: ClusterState, file: ForeignFile) -> str | None:
    """Raw bytes keep their wrapped data key: in a zone of the key that wrapped it they can be read."""
    key = key_of_version(file.version_name)
    home = next((zone.path for zone in state.zones if zone.key_name == key), None)
    if home is None:
        return None
    target = f"{home.rstrip('/')}/{file.path.rpartition('/')[2]}"
    return f"hadoop distcp -px {shlex.quote(f'/.reserved/raw{file.path}')} {shlex.quote(f'/.reserved/raw{target}')}"
