"""A policy as the `kms-acls.xml` of Hadoop's own KMS, alone or merged into the file that is there.

What the published revision grants in Ringfence's KMS, these properties grant in a stock one: four key ACLs for each
key of the policy, and nobody's GET. Rules:

1. What a stock KMS cannot express is refused, never left out: flow rules, custody, a name that Hadoop would read as
   something else, and lines of the existing file that give more on the policy's keys than the policy does.
2. A stock KMS closes GET for every key or for none. It is closed; an existing list of people who may GET is refused.
3. In an existing file nothing is changed but these properties.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ringfence_zones.access_list import NOBODY_TEXT, AccessList, parse_access_list
from ringfence_zones.errors import PolicyError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.hadoop_xml import SiteProperty, read_properties, set_properties
from ringfence_zones.policy import Policy, policy_digest
from ringfence_zones.publication import Grant, KeyOp, key_grants

GET_ACL = "hadoop.kms.acl.GET"
_KEY_ACL = "key.acl."
_WHITELIST = "whitelist.key.acl."


@dataclass(frozen=True, slots=True)
class StockAcls:
    """The whole document, and the properties in it that the policy wants."""

    document: bytes
    properties: Mapping[str, str]


def stock_acls(policy: Policy, existing: bytes | None, name: str) -> StockAcls:
    """The ACL file for a stock KMS; `existing` is the file it has, called `name` in messages.

    Raises PolicyError with a finding for everything that stands in the way, ConfigError for a file that cannot be
    edited.
    """
    findings = list(_policy_problems(policy))
    wanted = key_grants(policy)
    properties = {GET_ACL: NOBODY_TEXT}
    for key, grants in wanted.items():
        for operation, grant in grants.items():
            text = _text(grant)
            if text is None:
                findings.append(_unwritable(policy, key, operation))
            else:
                properties[f"{_KEY_ACL}{key}.{operation.value}"] = text
    if existing is not None:
        findings += _conflicts(read_properties(existing), wanted, name)
    if findings:
        message = "this policy cannot be written as the ACLs of a stock KMS"
        raise PolicyError(message, findings, hint="change what is named, or serve the keys from Ringfence's KMS")
    document = existing if existing is not None else _empty(policy)
    return StockAcls(set_properties(document, properties), properties)


def _text(grant: Grant) -> str | None:
    try:
        return _access_list(grant).to_text()
    except ValueError:
        return None


def _access_list(grant: Grant) -> AccessList:
    return AccessList(grant.users, grant.groups, grant.everyone)


def _empty(policy: Policy) -> bytes:
    return (
        '<?xml version="1.0"?>\n'
        f"<!-- ringfence policy acls: policy {policy_digest(policy)[:16]} -->\n"
        "<configuration>\n</configuration>\n"
    ).encode()


def _policy_problems(policy: Policy) -> Iterator[Finding]:
    if policy.kms is None:
        hint = "add  kms: {namenode_users: [hdfs], admins: [hdfs]}  with the user your NameNode runs as"
        message = "the policy does not say who the NameNode and the key administrators are"
        yield _finding(Rule.MISSING_KMS, "/", message, hint)
    if policy.flows is not None:
        message = "a stock KMS knows no flow rules"
        yield _finding(Rule.NEEDS_RINGFENCE_KMS, "/", message, "remove 'flows' from the policy for it")
    for zone in policy.zones:
        if zone.custody != "envelope":
            message = f"a stock KMS knows no custody {zone.custody}"
            yield _finding(Rule.NEEDS_RINGFENCE_KMS, zone.path, message, "write  custody: envelope", zone.key)


def _unwritable(policy: Policy, key: str, operation: KeyOp) -> Finding:
    zone = next(zone for zone in policy.zones if zone.key == key)
    message = (
        f"who has {operation.value} on {key} cannot be written as a list of Hadoop's: a name starts with ~ or holds ${{"
    )
    return _finding(Rule.BAD_VALUE, zone.path, message, "name other users or groups", key)


def _conflicts(
    existing: Mapping[str, SiteProperty], wanted: Mapping[str, Mapping[KeyOp, Grant]], name: str
) -> Iterator[Finding]:
    get = _find(existing, GET_ACL)
    if get is not None and not get.everybody and (get.users or get.groups):
        message = f"{GET_ACL} lets {_spelled(get)} ask for the material of every key, and a policy gives it to nobody"
        yield _finding(Rule.NEEDS_RINGFENCE_KMS, name, message, f"set {GET_ACL} to one blank")
    for key, grants in wanted.items():
        all_of_it = f"{_KEY_ACL}{key}.ALL"
        if _find(existing, all_of_it) is not None:
            message = f"{all_of_it} would stand beside the policy's lines and give more than they do"
            yield _finding(Rule.NEEDS_RINGFENCE_KMS, name, message, "remove the property", key)
        for operation, grant in grants.items():
            listed = _find(existing, _WHITELIST + operation.value)
            if listed is not None and not _access_list(grant).covers(listed):
                listed_on = _WHITELIST + operation.value
                message = f"{listed_on} lets {_spelled(listed)} use every key, {key} too; the policy does not"
                hint = "take them off the whitelist, or name them in the policy"
                yield _finding(Rule.NEEDS_RINGFENCE_KMS, name, message, hint, key)


def _find(existing: Mapping[str, SiteProperty], name: str) -> AccessList | None:
    found = existing.get(name)
    # An empty value is no list to Hadoop.
    return parse_access_list(found.value) if found is not None and found.value else None


def _spelled(listed: AccessList) -> str:
    if listed.everybody:
        return "everybody"
    names = sorted(listed.users) + [f"the group {group}" for group in sorted(listed.groups)]
    return ", ".join(names) or "nobody"


def _finding(rule: Rule, path: str, message: str, hint: str, key: str | None = None) -> Finding:
    return Finding(severity=Severity.ERROR, rule=rule, path=path, key=key, message=message, hint=hint)
