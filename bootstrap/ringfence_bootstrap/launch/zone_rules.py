"""Zones, their keys and their KMS: what EMR would make wrong, or fail over."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ringfence_bootstrap.launch.draft import Draft
from ringfence_bootstrap.launch.pieces import ZONES, is_plain, keeps_stock_kms
from ringfence_bootstrap.node.configuration import RINGFENCE_KMS
from ringfence_zones.errors import PathError
from ringfence_zones.findings import Finding, Rule
from ringfence_zones.keys import POLICY_KEY_NAME
from ringfence_zones.kms_uri import KEY_PROVIDER, parse_kms_uri
from ringfence_zones.paths import HdfsPath
from ringfence_zones.policy_document import duration_s

_KEY_ACL = re.compile(r"key\.acl\.(?P<key>.+)\.[A-Z_]+")
_TRINO = frozenset({"trino", "presto", "prestosql"})
_MAX_WAIT_S = 86_400


def check_key_names(draft: Draft) -> Iterator[Finding]:
    """Key names that Hadoop takes, a key for each zone."""
    for each in draft.named(ZONES):
        users: dict[str, str] = {}
        for path, key in each.properties.items():
            place = each.property_place(path)
            try:
                HdfsPath.parse(path)
            except PathError as error:
                yield place.error(Rule.BAD_PATH, f"{ZONES}: {error.message}", error.hint or "write an absolute path")
            if key != key.lower():
                yield place.error(
                    Rule.EMR_KEY_NAME_CASE,
                    f"{ZONES} gives {path} the key {key!r}, and Hadoop's key stores take lower case alone:"
                    " the cluster would fail at launch",
                    f"write it in lower case: {key.lower()}",
                )
            elif not POLICY_KEY_NAME.fullmatch(key):
                hint = "use a-z, 0-9, dot, underscore and hyphen, beginning with a letter or digit"
                yield place.error(Rule.BAD_KEY_NAME, f"{ZONES} gives {path} the key {key!r}, no name of a key", hint)
            first = users.setdefault(key.lower(), path)
            if first != path:
                message = f"{ZONES} gives {first} and {path} one key; EMR would not say a word, and one key opens both"
                yield place.error(Rule.DUPLICATE_KEY, message, "give every zone a key of its own")
    for each in draft.named("hadoop-kms-acls"):
        for name in each.properties:
            match = _KEY_ACL.fullmatch(name)
            if match is not None and match["key"] != match["key"].lower():
                hint = f"write the key's name in lower case: {match['key'].lower()}"
                yield each.property_place(name).warn(Rule.ACL_KEY_CASE, f"{name} is for a key that cannot be", hint)


def check_takeover(draft: Draft) -> Iterator[Finding]:
    """Zones that EMR would make before our KMS serves."""
    if draft.node is None or keeps_stock_kms(draft.node.value):
        return
    for each in draft.named(ZONES):
        ours = (
            "is to take the place of the stock one" if draft.node.value.mode == RINGFENCE_KMS else "is off the cluster"
        )
        yield each.place.error(
            Rule.EMR_ZONES_BESIDE_TAKEOVER,
            f"{ZONES} has EMR make keys in a KMS before ours, which {ours}, can serve them",
            "remove the classification: the zones step makes every zone of the policy, each with its key",
        )


def check_group_classifications(draft: Draft) -> Iterator[Finding]:
    """Zones of one instance group, which is what reconfiguration is for."""
    for each in draft.named(ZONES):
        if each.group is not None:
            yield each.place.error(
                Rule.EMR_ZONES_RECONFIGURED,
                f"{ZONES} stands in the instance group {each.group}: what a group has is for reconfiguring a running"
                " cluster, and EMR reconfigures no zones",
                "move it to the document's configurations, or have the zones step make the zones",
            )


def check_policy(draft: Draft) -> Iterator[Finding]:
    """A zone of the policy that EMR would make with another key."""
    if draft.policy is None:
        return
    for each in draft.for_all(ZONES):
        for path, key in each.properties.items():
            zone = draft.policy.value.find_zone(path)
            if zone is not None and zone.key != key:
                message = f"{ZONES} gives {path} the key {key}, and the policy {zone.key}; a zone's key never changes"
                hint = "remove it here: the zones step makes the zone"
                yield each.property_place(path).error(Rule.ZONE_KEY_MISMATCH, message, hint)


def check_hdfs(draft: Draft) -> Iterator[Finding]:
    """Applications that bring HDFS."""
    document = draft.document
    wants_hdfs = document.ringfence is not None or draft.named(ZONES)
    applications = {name.casefold() for name in document.applications}
    if not wants_hdfs or "hadoop" in applications:
        return
    place = draft.root.at("applications")
    if applications <= _TRINO and draft.release.at_least(7, 14):
        yield place.error(
            Rule.EMR_NO_HDFS,
            f"from emr-7.14.0 a cluster with {', '.join(document.applications) or 'nothing'} alone starts no HDFS,"
            " and encryption zones are HDFS's",
            "add Hadoop to the applications",
        )
    else:
        message = "the applications do not name Hadoop, which HDFS and its KMS belong to"
        yield place.warn(Rule.EMR_NO_HDFS, message, "add Hadoop: EMR may stop bringing it along, as it did for Trino")


def check_kms_address(draft: Draft) -> Iterator[Finding]:
    """One KMS, where the bootstrap configuration has it."""
    if draft.node is None:
        return
    node, place = draft.node.value, draft.root.at("ringfence", "configuration_file")
    uri = node.clients.uri if node.clients is not None else None
    if uri is not None and parse_kms_uri(uri).is_loopback:
        message = f"clients.uri {uri} of the bootstrap configuration is each node's own address"
        yield place.error(Rule.EMR_KMS_ADDRESS, message, "write the KMS's name on the network")
    if is_plain(node):
        message = "data keys cross the cluster's network in clear: the bootstrap configuration gives the KMS no TLS"
        yield place.warn(Rule.KMS_PLAIN_HTTP, message, "give  kms.tls  there, or an https address of the KMS")
        zones = draft.document.ringfence.zones if draft.document.ringfence is not None else None
        if zones is not None and zones.require_tls:
            message = "zones.require_tls is true, and the KMS of the bootstrap configuration is plain http"
            hint = "give  kms.tls  there, or remove require_tls: the step would wait for what never comes"
            yield draft.root.at("ringfence", "zones", "require_tls").error(Rule.EMR_KMS_ADDRESS, message, hint)
    for each in draft.named("core-site"):
        given = each.properties.get(KEY_PROVIDER)
        if given is not None and given != uri:
            message = f"{KEY_PROVIDER} is set here, and the bootstrap configuration says mode: {node.mode}: two KMS"
            hint = "remove it: launch-config writes the address of a KMS off the cluster, and otherwise EMR does"
            yield each.property_place(KEY_PROVIDER).error(Rule.EMR_KMS_ADDRESS, message, hint)


def check_zones_step(draft: Draft) -> Iterator[Finding]:
    """What the zones step is told."""
    zones = draft.document.ringfence.zones if draft.document.ringfence is not None else None
    if zones is None:
        return
    place = draft.root.at("ringfence", "zones")
    if duration_s(zones.wait) > _MAX_WAIT_S:
        message = f"the zones step would wait {zones.wait}"
        yield place.at("wait").error(Rule.BAD_VALUE, message, "wait a day (24h) at most; 30m is plenty")
    if zones.on_failure == "CONTINUE":
        message = "the steps after the zones step run even when it failed, and write where no zone is"
        yield place.at("on_failure").warn(Rule.EMR_STEP_ORDER, message, "write CANCEL_AND_WAIT")
    is_ours = draft.node is not None and draft.node.value.mode == RINGFENCE_KMS
    if is_ours and draft.policy is not None and draft.policy.value.kms is None:
        message = "the policy names no kms.namenode_users and kms.admins, which Ringfence's KMS needs"
        yield place.at("policy_file").error(Rule.MISSING_KMS, message, "add  kms:  to the policy")


def check_concurrent_steps(draft: Draft) -> Iterator[Finding]:
    """Steps that wait for the zones step."""
    ringfence = draft.document.ringfence
    if draft.document.step_concurrency > 1 and ringfence is not None and ringfence.zones is not None:
        message = "with steps side by side, no step of yours waits for the zones step"
        hint = "write 1, or submit your steps when the zones step is done"
        yield draft.root.at("step_concurrency").warn(Rule.EMR_STEP_ORDER, message, hint)
