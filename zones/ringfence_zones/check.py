"""The check: a cluster against policy and good practice. Pure, and the same for `ringfence check` and the agent.

Without a policy it says what is true of any cluster: shared keys, missing keys, unpinned roots, an open or plain
KMS. With one it adds drift: zones, keys, rights, trash, the published revision. What could not be observed is said,
never taken for good.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ringfence_zones.custody_findings import find_custody_violations
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.kms_uri import parse_kms_uri
from ringfence_zones.model import ClusterState, KmsState
from ringfence_zones.plan import TRASH_MODE
from ringfence_zones.plan_problems import shared_keys
from ringfence_zones.policy import Policy, ZonePolicy, policy_digest
from ringfence_zones.rights import find_differences, zone_rights

# Rename by every RPC is covered from here on (HDFS-14802, HDFS-15540); before, trash and FileContext get around it.
RENAME_COVERED_SINCE = (3, 3, 1)

_CLUSTER = "/"
_SEVERITIES = tuple(Severity)


def find_violations(policy: Policy | None, state: ClusterState) -> list[Finding]:
    """Everything found, most severe first, then by path."""
    found = [
        *shared_keys(state, None),
        *_keys(state),
        *find_custody_violations(policy, state),
        *_pins(state),
        *_kms(state),
    ]
    if policy is not None:
        found += [*_zones(policy, state), *_revision(policy, state.kms)]
    return sorted(found, key=lambda each: (_SEVERITIES.index(each.severity), each.path, each.rule.value))


def _keys(state: ClusterState) -> Iterator[Finding]:
    if state.kms is None:
        return
    for zone in state.zones:
        if zone.key_name not in state.kms.keys:
            yield Finding(
                severity=Severity.ERROR,
                rule=Rule.KEY_MISSING,
                path=zone.path,
                key=zone.key_name,
                message=f"the KMS does not have the key {zone.key_name} of this zone: its files cannot be read",
                hint="restore the key from a backup of the key store; a new key of that name would not open the files",
            )


def _pins(state: ClusterState) -> Iterator[Finding]:
    roots = [zone.path for zone in state.zones if zone.path != "/"]
    if not roots:
        return
    if state.protected_directories is None:
        yield Finding(
            severity=Severity.WARN,
            rule=Rule.ROOT_NOT_PINNED,
            path=_CLUSTER,
            message="no NameNode would tell its fs.protected.directories, so zone roots may be unprotected",
            hint="let this host reach the NameNode's web address, which serves its configuration under /conf",
        )
        return
    # As the NameNode compares entries: FSDirectory.normalizePaths.
    protected = {re.sub("/+", "/", entry).rstrip("/") for entry in state.protected_directories}
    for root in roots:
        directory = state.directories.get(root)
        if root not in protected:
            yield Finding(
                severity=Severity.ERROR,
                rule=Rule.ROOT_NOT_PINNED,
                path=root,
                message="this zone root can be renamed or deleted, for it is not in fs.protected.directories",
                hint="let the agent pin it (agent: {mode: enforce, pin: apply}), or add it to fs.protected.directories"
                " in every NameNode's core-site.xml and reload each: hdfs dfsadmin -reconfig namenode HOST:PORT start",
            )
        elif directory is not None and directory.is_empty:
            yield Finding(
                severity=Severity.INFO,
                rule=Rule.ROOT_EMPTY,
                path=root,
                message="the root is pinned, but HDFS protects a directory only while something is in it",
                hint="provision the zone's trash, which makes it non-empty: hdfs crypto -provisionTrash -path PATH",
            )
    if state.hadoop_version < RENAME_COVERED_SINCE:
        version = ".".join(map(str, state.hadoop_version))
        yield Finding(
            severity=Severity.WARN,
            rule=Rule.PIN_UNSUPPORTED,
            path=_CLUSTER,
            message=f"Hadoop {version} refuses to delete protected directories but not every rename, trash included",
            hint=f"rename is covered from Hadoop {'.'.join(map(str, RENAME_COVERED_SINCE))} on",
        )


def _kms(state: ClusterState) -> Iterator[Finding]:
    kms = state.kms
    if kms is None:
        yield Finding(
            severity=Severity.ERROR,
            rule=Rule.KMS_UNREACHABLE,
            path=_CLUSTER,
            message=state.kms_error or "the KMS does not answer",
            hint="files of encryption zones cannot be opened until it does",
        )
        return
    if kms.plain_http:
        yield _plain_http(kms)
    handed_out = sorted(name for name, is_open in kms.get_open.items() if is_open)
    if handed_out:
        shown = ", ".join(handed_out[:5]) + (f" and {len(handed_out) - 5} more" if len(handed_out) > 5 else "")
        yield Finding(
            severity=Severity.ERROR,
            rule=Rule.KMS_GET_OPEN,
            path=_CLUSTER,
            key=handed_out[0] if len(handed_out) == 1 else None,
            message=f"the KMS hands the material of zone keys to this caller: {shown}",
            hint="in kms-acls.xml set hadoop.kms.acl.GET to a blank and add callers to hadoop.kms.blacklist.GET;"
            " readers and writers need no GET",
        )


def _plain_http(kms: KmsState) -> Finding:
    if parse_kms_uri(kms.uri).is_loopback:
        severity, message = Severity.WARN, f"data keys leave the KMS in clear, though only on this machine: {kms.uri}"
    else:
        severity = Severity.ERROR
        message = f"data keys cross the network in clear: the cluster reaches its KMS as {kms.uri}"
    hint = "serve the KMS with TLS and name it kms://https@HOST:PORT/kms in hadoop.security.key.provider.path"
    return Finding(severity=severity, rule=Rule.KMS_PLAIN_HTTP, path=_CLUSTER, message=message, hint=hint)


def _zones(policy: Policy, state: ClusterState) -> Iterator[Finding]:
    for wanted in policy.zones:
        existing = state.zone_at(wanted.path)
        if existing is None:
            yield _of(wanted, Severity.ERROR, Rule.ZONE_MISSING, "this zone of the policy does not exist", _APPLY)
        elif existing.key_name != wanted.key:
            message = f"this zone uses the key {existing.key_name}, and the policy says {wanted.key}"
            hint = f"a zone's key cannot be changed: write  key: {existing.key_name}  for it, or copy into a new zone"
            yield _of(wanted, Severity.ERROR, Rule.ZONE_KEY_MISMATCH, message, hint)
        if existing is not None:
            yield from _directory(wanted, state)
            yield from _length(wanted, state.kms)
    for zone in state.zones:
        if policy.find_zone(zone.path) is None:
            yield Finding(
                severity=Severity.WARN,
                rule=Rule.ZONE_OUTSIDE_POLICY,
                path=zone.path,
                key=zone.key_name,
                message="this zone of the cluster is not in the policy",
                hint=f"add it to the policy with  key: {zone.key_name}",
            )


_APPLY = "make the cluster as the policy says: ringfence apply"


def _of(zone: ZonePolicy, severity: Severity, rule: Rule, message: str, hint: str) -> Finding:
    return Finding(severity=severity, rule=rule, path=zone.path, key=zone.key, message=message, hint=hint)


def _length(zone: ZonePolicy, kms: KmsState | None) -> Iterator[Finding]:
    metadata = kms.keys.get(zone.key) if kms is not None else None
    if metadata is not None and metadata.length_bits != zone.length_bits:
        message = f"the key has {metadata.length_bits} bits, and the policy says {zone.length_bits}"
        hint = f"write  length_bits: {metadata.length_bits}  for this zone"
        yield _of(zone, Severity.WARN, Rule.KEY_LENGTH_MISMATCH, message, hint)


def _directory(zone: ZonePolicy, state: ClusterState) -> Iterator[Finding]:
    directory = state.directories.get(zone.path)
    if directory is None:
        return
    differences = find_differences(zone_rights(zone), directory)
    if differences:
        yield _of(zone, Severity.ERROR, Rule.DIRECTORY_RIGHTS, "; ".join(differences), _APPLY)
    if zone.trash == "none":
        return
    if directory.trash_mode is None:
        message = "this zone has no trash directory, so deletes into the trash fail"
        yield _of(zone, Severity.WARN, Rule.TRASH_MISSING, message, _APPLY)
    elif directory.trash_mode != TRASH_MODE:
        message = f"the mode of the trash directory is {directory.trash_mode:04o}, not {TRASH_MODE:04o}"
        yield _of(zone, Severity.WARN, Rule.TRASH_RIGHTS, message, _APPLY)


def _revision(policy: Policy, kms: KmsState | None) -> Iterator[Finding]:
    if kms is None or not kms.is_ringfence or kms.revision_digest == policy_digest(policy):
        return
    enforced = f"revision {kms.revision}, which differs from this document" if kms.revision else "no policy yet"
    yield Finding(
        severity=Severity.WARN,
        rule=Rule.REVISION_STALE,
        path=_CLUSTER,
        message=f"the KMS enforces {enforced}",
        hint=_APPLY,
    )
