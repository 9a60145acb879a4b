"""Releases, classifications, instance groups: what EMR would refuse of them, or fail over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from ringfence_bootstrap.launch.document import GroupBlock
from ringfence_bootstrap.launch.draft import Classification, Draft, Place
from ringfence_bootstrap.launch.pieces import ZONES
from ringfence_bootstrap.releases import NEWEST, Feature, Init, Train, spelled_version
from ringfence_zones.aws_names import find_key_arn
from ringfence_zones.findings import Finding, Rule
from ringfence_zones.kms_uri import KEY_PROVIDER

_Values: TypeAlias = dict[tuple[str, ...], tuple[str, Place]]
_PYTHON = "3.11"
_DROPPED = ("Hive", "Hue", "Oozie")
# Names that people write for others; EMR fails at launch for a classification it does not know.
_MISNAMED = {
    "kms-acls": "hadoop-kms-acls",
    "kms-site": "hadoop-kms-site",
    "kms-env": "hadoop-kms-env",
    "encryption-zones": ZONES,
    "hdfs-encryption-zone": ZONES,
    "ssl-server": "hadoop-ssl-server",
    "ssl-client": "hadoop-ssl-client",
    "hadoop-core-site": "core-site",
    "hadoop-hdfs-site": "hdfs-site",
}


def check_python(draft: Draft) -> Iterator[Finding]:
    """What Ringfence needs on the nodes."""
    node = draft.release.node
    if draft.document.ringfence is not None and not (node.init is Init.SYSTEMD and _PYTHON in node.pythons):
        yield draft.root.at("release").error(
            Rule.EMR_RELEASE,
            f"Ringfence needs systemd and Python 3.11 on the nodes, and {draft.release} does not bring them",
            "use emr-7.1.0 or later; on an older release leave out  ringfence:  and run the KMS off the cluster, named"
            f" by {KEY_PROVIDER} in core-site",
        )


def check_features(draft: Draft) -> Iterator[Finding]:
    """What came with a later release."""
    document, root = draft.document, draft.root
    if document.security_configuration is not None:
        yield from require_feature(draft, Feature.SECURITY_CONFIGURATION, root.at("security_configuration"))
    if document.custom_ami is not None:
        yield from require_feature(draft, Feature.CUSTOM_AMI, root.at("custom_ami"))
    if document.step_concurrency > 1:
        yield from require_feature(draft, Feature.CONCURRENT_STEPS, root.at("step_concurrency"))
    if document.log_encryption_key is not None:
        yield from require_feature(draft, Feature.LOG_ENCRYPTION, root.at("log_encryption_key"))
    for each in draft.named(ZONES):
        yield from require_feature(draft, Feature.TRANSPARENT_ENCRYPTION, each.place)


def require_feature(draft: Draft, feature: Feature, place: Place) -> Iterator[Finding]:
    """An error when the release does not have it."""
    if not draft.release.has(feature):
        message = f"{draft.release} does not have {feature.value}"
        yield place.error(Rule.EMR_RELEASE, message, f"use emr-{spelled_version(feature.since)} or a later release")


def check_applications(draft: Draft) -> Iterator[Finding]:
    """Applications that the release's train dropped."""
    for index, name in enumerate(draft.document.applications):
        dropped = next((each for each in _DROPPED if each.casefold() == name.casefold()), None)
        if dropped is not None and draft.release.lacks(dropped):
            message = f"{draft.release} has no {dropped}"
            hint = f"remove it, or use a release of the other train, such as emr-{spelled_version(NEWEST[Train.EMR])}"
            yield draft.root.at("applications", index).error(Rule.EMR_RELEASE, message, hint)


def check_logs(draft: Draft) -> Iterator[Finding]:
    """Encryption of logs."""
    document = draft.document
    if document.log_encryption_key is None:
        return
    place = draft.root.at("log_encryption_key")
    if document.log_uri is None:
        yield place.error(Rule.MISSING_FIELD, "log_uri is missing: no logs, nothing to encrypt", "add log_uri")
    key = find_key_arn(document.log_encryption_key)
    if key is not None and key.region != document.region:
        message = f"the key for logs is in {key.region}, and the cluster in {document.region}"
        yield place.error(Rule.EMR_KEY, message, "name a key of the cluster's region")


def check_classifications(draft: Draft) -> Iterator[Finding]:
    """Names that EMR knows, each once in a group, and no property with two values."""
    seen: dict[tuple[str | None, str], Classification] = {}
    values: _Values = {}
    for each in draft.classifications:
        right = _MISNAMED.get(each.name)
        if right is not None:
            message = f"EMR knows no classification {each.name}, and would fail at launch"
            yield each.place.error(Rule.EMR_CLASSIFICATION, message, f"did you mean {right!r}?")
        first = seen.setdefault((each.group, each.name), each)
        if each.group is None:
            yield from _values(each, (), values)
        elif first is not each:
            message = f"{each.name} is here a second time; the first is at {first.place.where}"
            yield each.place.error(Rule.EMR_CLASSIFICATION, message, "put the properties of both into one")


def _values(each: Classification, around: tuple[str, ...], values: _Values) -> Iterator[Finding]:
    """The cluster's own may come from several files: they are put together, and must not contradict each other."""
    names = (*around, each.name)
    for name, value in each.properties.items():
        place = each.property_place(name)
        other, first = values.setdefault((*names, name), (value, place))
        if other != value:
            message = f"{name} of {'/'.join(names)} has another value than at {first.where}"
            yield place.error(Rule.EMR_CLASSIFICATION, message, "keep one of the two")
    for inner in each.nested():
        yield from _values(inner, names, values)


def check_groups(draft: Draft) -> Iterator[Finding]:
    """Task groups, spot instances and volumes."""
    instances, place = draft.document.instances, draft.root.at("instances")
    seen: set[str] = set()
    for index, group in enumerate(instances.task):
        if group.name in seen:
            message = f"two task groups are called {group.name}"
            yield place.at("task", index, "name").error(Rule.BAD_VALUE, message, "give each its own name")
        seen.add(group.name)
        yield from _volumes(group, place.at("task", index))
    yield from _volumes(instances.primary, place.at("primary"))
    yield from _volumes(instances.core, place.at("core"))
    if instances.core.bid_price is not None and (draft.document.ringfence is not None or draft.named(ZONES)):
        message = "core nodes hold HDFS's blocks, and spot instances go when the price rises"
        yield place.at("core", "bid_price").warn(Rule.EMR_SPOT, message, "use spot for task nodes")


def _volumes(group: GroupBlock, group_place: Place) -> Iterator[Finding]:
    for index, volume in enumerate(group.volumes):
        place = group_place.at("volumes", index)
        if volume.type in ("io1", "io2") and volume.iops is None:
            yield place.error(Rule.MISSING_FIELD, f"iops is missing: EBS wants it for {volume.type}", "add it")
        if volume.iops is not None and volume.type not in ("io1", "io2", "gp3"):
            yield place.at("iops").error(Rule.BAD_VALUE, f"{volume.type} has no iops", "remove it")
        if volume.throughput_mib_s is not None and volume.type != "gp3":
            yield place.at("throughput_mib_s").error(Rule.BAD_VALUE, f"{volume.type} has no throughput", "remove it")
