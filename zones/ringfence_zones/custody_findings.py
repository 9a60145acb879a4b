"""What policy, keys and KMS say about custody and where they differ; what a zone in custody `transit` costs. Pure.

Rules:

1. A KMS that does not have a custody is never asked for it: on a stock one the attribute would be taken and mean
   nothing.
2. A key's custody never changes. Every way out is a change of the document or a new zone.
3. The cost is said once, before a zone is made. A zone that is there was made knowing it.
"""

from __future__ import annotations

from collections.abc import Iterator

from ringfence_zones.custody import DEFAULT_CUSTODY, edek_bytes
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.model import ClusterState, KmsState
from ringfence_zones.policy import Policy, ZonePolicy

_ENVELOPE = f"custody: {DEFAULT_CUSTODY}"


def find_custody_problems(zone: ZonePolicy, state: ClusterState) -> Iterator[Finding]:
    """What `plan` says about a zone of the policy: what stands in its way, else what it will cost."""
    if state.kms is None:
        return
    problem = _lacking(zone, state.kms) or _mismatch(zone, state)
    if problem is not None:
        yield problem
    elif zone.custody == "transit" and state.zone_at(zone.path) is None:
        yield _cost(zone)


def find_custody_violations(policy: Policy | None, state: ClusterState) -> Iterator[Finding]:
    """What `check` says about the zones of the cluster; whether a zone of the policy exists is said elsewhere."""
    kms = state.kms
    if kms is None:
        return
    for zone in state.zones:
        custody = kms.find_custody(zone.key_name)
        if custody is not None and custody not in kms.custodies:
            message = f"this zone's key is in custody {custody}, which the KMS does not have: no file opens"
            yield _error(Rule.CUSTODY_UNAVAILABLE, zone.path, zone.key_name, message, _CONNECT)
    for wanted in policy.zones if policy is not None else ():
        if state.zone_at(wanted.path) is None:
            continue
        found = _mismatch(wanted, state) if kms.is_ringfence else _lacking(wanted, kms)
        if found is not None:
            yield found


_CONNECT = "connect the KMS to its Vault again: `vault` in kms.yaml"


def _lacking(zone: ZonePolicy, kms: KmsState) -> Finding | None:
    if not kms.is_ringfence and zone.custody != DEFAULT_CUSTODY:
        message = f"the KMS at {kms.uri} knows no custody: it would hold the zone's key itself"
        hint = f"write  {_ENVELOPE} , or let the cluster use Ringfence's KMS: ringfence kms serve"
        return _error(Rule.NEEDS_RINGFENCE_KMS, zone.path, zone.key, message, hint)
    if kms.is_ringfence and zone.custody not in kms.custodies:
        message = f"the KMS at {kms.uri} does not have custody {zone.custody}: it is connected to no Vault"
        hint = f"set `vault` in its kms.yaml, run `ringfence vault setup` and restart it, or write  {_ENVELOPE}"
        return _error(Rule.CUSTODY_UNAVAILABLE, zone.path, zone.key, message, hint)
    return None


def _mismatch(zone: ZonePolicy, state: ClusterState) -> Finding | None:
    found = state.kms.find_custody(zone.key) if state.kms is not None else None
    if found is None or found == zone.custody:
        return None
    message = f"the key {zone.key} is in custody {found}, and the policy says {zone.custody}"
    if state.zone_at(zone.path) is None:
        hint = f"write  custody: {found}  for this zone, or give it another 'key'"
    else:
        hint = (
            f"a key keeps its custody: write  custody: {found}  for this zone, or make a zone with"
            f"  custody: {zone.custody}  at another path, copy the data into it, compare, and remove the old one"
        )
    return _error(Rule.CUSTODY_MISMATCH, zone.path, zone.key, message, hint)


def _cost(zone: ZonePolicy) -> Finding:
    here, there = edek_bytes(zone.custody, zone.length_bits), edek_bytes(DEFAULT_CUSTODY, zone.length_bits)
    return Finding(
        severity=Severity.WARN,
        rule=Rule.CUSTODY_COST,
        path=zone.path,
        key=zone.key,
        message=f"each file's EDEK takes {here} bytes of the NameNode's memory in place of {there}, {here - there} MB"
        " more for a million files; and while Vault does not answer, no file of this zone is opened or made",
        hint=f"write  {_ENVELOPE}  where files must open without Vault: it is chosen now, for a key keeps its custody",
    )


def _error(rule: Rule, path: str, key: str, message: str, hint: str) -> Finding:
    return Finding(severity=Severity.ERROR, rule=rule, path=path, key=key, message=message, hint=hint)
