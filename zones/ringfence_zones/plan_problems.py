"""What stands between a policy and a cluster, each with a way out that works today.

Two kinds: problems of the whole (without a key: no KMS, no `kms` block, something this KMS cannot do), after which
nothing is planned, and problems of one zone, which name its key.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator

from ringfence_zones.custody_findings import find_custody_problems
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.model import ClusterState, EncryptionZone, KmsState
from ringfence_zones.moves import ZoneMap
from ringfence_zones.paths import HdfsPath
from ringfence_zones.policy import Policy, ZonePolicy, policy_digest


def find_problems(policy: Policy, state: ClusterState) -> Iterator[Finding]:
    """Every problem; the whole's first, then zone by zone in the policy's order."""
    yield from _cluster_problems(policy, state)
    users: dict[str, list[str]] = defaultdict(list)
    for zone in state.zones:
        users[zone.key_name].append(zone.path)
    zone_map = ZoneMap(state.zones)
    for wanted in policy.zones:
        yield from _zone_problems(wanted, state, zone_map, users.get(wanted.key, []))
    yield from shared_keys(state, policy)
    yield from _left_out(policy, state)


def shared_keys(state: ClusterState, policy: Policy | None) -> Iterator[Finding]:
    """One finding for each key that several zones of the cluster use, as far as the policy leaves them so."""
    by_key: dict[str, list[EncryptionZone]] = defaultdict(list)
    for zone in state.zones:
        by_key[zone.key_name].append(zone)
    for key, zones in sorted(by_key.items()):
        if len(zones) < 2:
            continue
        paths = sorted(zone.path for zone in zones)
        if policy is not None and any(zone.key == key for zone in policy.zones):
            continue  # said for the policy's zone already, where it stops apply
        yield shared_key(key, paths, severity=Severity.ERROR if policy is None else Severity.WARN)


def shared_key(key: str, paths: list[str], *, severity: Severity) -> Finding:
    """The finding that `check` and `plan` both give for zones that share a key."""
    return Finding(
        severity=severity,
        rule=Rule.SHARED_KEY,
        path=paths[0],
        key=key,
        message=f"the zones {', '.join(paths)} share the key {key}",
        hint="a zone's key cannot be changed: make a zone with a key of its own at another path, copy the data into"
        " it, compare, and remove the old one",
    )


def _cluster_problems(policy: Policy, state: ClusterState) -> Iterator[Finding]:
    kms = state.kms
    if kms is None:
        message = state.kms_error or "the KMS does not answer"
        yield _whole(Rule.KMS_UNREACHABLE, message, "start the KMS or let it serve this user, then plan again")
        return
    if kms.is_ringfence and policy.kms is None:
        hint = "add  kms: {namenode_users: [hdfs], admins: [hdfs]}  with the user your NameNode runs as"
        yield _whole(Rule.MISSING_KMS, "the policy does not say who the NameNode and the key administrators are", hint)
    if not kms.is_ringfence and policy.flows is not None:
        hint = "remove 'flows', or let the cluster use Ringfence's KMS: ringfence kms serve"
        yield _whole(Rule.NEEDS_RINGFENCE_KMS, f"the KMS at {kms.uri} cannot hold flow rules", hint)
    if kms.revision == 0 and policy.flow_control.mode == "enforce":
        hint = "write  flow_control: {mode: shadow}  first, and see in the KMS's audit log what would be refused"
        yield _whole(Rule.FLOWS_UNTRIED, "flows are to be enforced that were never published in shadow mode", hint)


def _left_out(policy: Policy, state: ClusterState) -> Iterator[Finding]:
    """Zones whose readers lose their key when this policy replaces a published one. Said once, before it happens."""
    kms = state.kms
    if kms is None or kms.revision_digest in (None, policy_digest(policy)):
        return
    for zone in state.zones:
        if policy.find_zone(zone.path) is None:
            yield Finding(
                severity=Severity.WARN,
                rule=Rule.ZONE_OUTSIDE_POLICY,
                path=zone.path,
                key=zone.key_name,
                message=f"not in this policy: once published, kms-acls.xml alone says who may use {zone.key_name}",
                hint=f"keep the zone in the policy with  key: {zone.key_name}  if its files are to stay readable",
            )


def _whole(rule: Rule, message: str, hint: str) -> Finding:
    return Finding(severity=Severity.ERROR, rule=rule, path="/", message=message, hint=hint)


def _zone(zone: ZonePolicy, rule: Rule, message: str, hint: str, command: str | None = None) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        rule=rule,
        path=zone.path,
        key=zone.key,
        message=message,
        hint=hint,
        command=command,
    )


def _zone_problems(zone: ZonePolicy, state: ClusterState, zone_map: ZoneMap, users: list[str]) -> Iterator[Finding]:
    yield from find_custody_problems(zone, state)
    others = [path for path in users if path != zone.path]
    if others:
        message = f"the key {zone.key} is already used by {', '.join(others)}; every zone has its own"
        hint = "remove 'key' from this zone, and a name of its own is derived"
        if state.zone_at(zone.path) is not None and zone.path in users:
            hint = "a zone's key cannot be changed: copy the data into a new zone with a key of its own"
        yield _zone(zone, Rule.SHARED_KEY, message, hint)
    existing = state.zone_at(zone.path)
    if existing is not None:
        yield from _existing_zone(zone, existing, state.kms)
    else:
        yield from _new_zone(zone, state, zone_map)
    metadata = state.kms.keys.get(zone.key) if state.kms is not None else None
    if metadata is not None and metadata.length_bits != zone.length_bits:
        message = f"the key {zone.key} has {metadata.length_bits} bits, and the policy says {zone.length_bits}"
        hint = f"write  length_bits: {metadata.length_bits}  for this zone"
        if existing is None:
            hint += ", or give it another 'key'"
        yield _zone(zone, Rule.KEY_LENGTH_MISMATCH, message, hint)


def _existing_zone(zone: ZonePolicy, existing: EncryptionZone, kms: KmsState | None) -> Iterator[Finding]:
    if existing.key_name != zone.key:
        message = f"{zone.path} is a zone with the key {existing.key_name}, and the policy says {zone.key}"
        hint = f"a zone's key cannot be changed: write  key: {existing.key_name}  for it, or name another path"
        yield _zone(zone, Rule.ZONE_KEY_MISMATCH, message, hint)
    elif kms is not None and zone.key not in kms.keys:
        message = f"{zone.path} is a zone, but the KMS does not have its key {zone.key}: its files cannot be read"
        hint = "restore the key from a backup of the key store; a new key of that name would not open the files"
        yield _zone(zone, Rule.KEY_MISSING, message, hint)


def _new_zone(zone: ZonePolicy, state: ClusterState, zone_map: ZoneMap) -> Iterator[Finding]:
    path = zone.hdfs_path
    around = zone_map.find_zone_of(path)
    if around is not None and not zone.nested:
        message = f"{zone.path} lies inside the encryption zone {around}"
        hint = "choose a path outside it, or write  nested: true  for this zone if that is meant"
        yield _zone(zone, Rule.NESTED_ZONE, message, hint)
    directory = state.directories.get(zone.path)
    if directory is None:
        return
    if not directory.is_directory:
        yield _move_aside(zone, path, Rule.NOT_A_DIRECTORY, f"{zone.path} is a file")
        return
    below = zone_map.roots_below(path)
    if below:
        message = f"{zone.path} holds the encryption zone {below[0]}, and only an empty directory becomes a zone"
        yield _zone(zone, Rule.DIRECTORY_NOT_EMPTY, message, "choose a path that holds no zone")
    elif not directory.is_empty:
        message = f"{zone.path} already holds files, and only an empty directory becomes a zone"
        yield _move_aside(zone, path, Rule.DIRECTORY_NOT_EMPTY, message)


def _move_aside(zone: ZonePolicy, path: HdfsPath, rule: Rule, message: str) -> Finding:
    if path.is_root:
        return _zone(zone, rule, message, "choose another path")
    aside = f"{path}.before-encryption"
    hint = f"move it aside, apply, then copy from {aside} into the zone, which encrypts the copies"
    return _zone(zone, rule, message, hint, f"hdfs dfs -mv {shlex.quote(str(path))} {shlex.quote(aside)}")
