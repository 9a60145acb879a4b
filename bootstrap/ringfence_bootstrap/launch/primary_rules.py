"""Three primary nodes: what they need, and what EMR does not do with them."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence_bootstrap.classifications.document import SECRET_PREFIX
from ringfence_bootstrap.launch.cluster_rules import require_feature
from ringfence_bootstrap.launch.draft import Draft
from ringfence_bootstrap.launch.pieces import ZONES, keeps_stock_kms
from ringfence_bootstrap.node.configuration import HARDENED_STOCK_KMS, KEY_SERVER, RINGFENCE_KMS
from ringfence_bootstrap.releases import Feature
from ringfence_zones.findings import Finding, Rule

_RANGER_KMS = "Ranger KMS"
_RANGER_PREFIX = "ranger-kms-"
# What Ranger KMS needs on three primaries (EMR's documentation): classification and property.
_RANGER_NEEDS = (
    ("ranger-kms-dbks-site", "ranger.ks.jpa.jdbc.url"),
    ("ranger-kms-dbks-site", "ranger.ks.jpa.jdbc.user"),
    ("ranger-kms-dbks-site", "ranger.ks.jpa.jdbc.password"),
    ("ranger-kms-dbks-site", "ranger.db.encrypt.key.password"),
    ("ranger-kms-db-ca", "ranger.kms.trust.ca.file.s3.url"),
)


def check_three_primaries(draft: Draft) -> Iterator[Finding]:
    """What EMR does with three primary nodes whatever it is told."""
    document = draft.document
    if document.instances.primary.count != 3:
        return
    place = draft.root.at("instances", "primary", "count")
    yield from require_feature(draft, Feature.THREE_PRIMARIES, place)
    if not document.termination_protection:
        message = "EMR protects a cluster with three primary nodes from termination whatever this says"
        yield draft.root.at("termination_protection").warn(Rule.EMR_PRIMARY_NODES, message, "write true")
    for index, step in enumerate(document.steps):
        if step.on_failure == "TERMINATE_CLUSTER":
            message = "with three primary nodes a step may be told as failed that did not fail"
            hint = "write CONTINUE or CANCEL_AND_WAIT"
            yield draft.root.at("steps", index, "on_failure").warn(Rule.EMR_PRIMARY_NODES, message, hint)


def check_node_mode(draft: Draft) -> Iterator[Finding]:
    """No node of a cluster becomes a key server off the cluster."""
    if draft.node is not None and draft.node.value.mode == KEY_SERVER:
        yield draft.root.at("ringfence", "configuration_file").error(
            Rule.EMR_KMS_ADDRESS,
            f"mode: {KEY_SERVER} of the bootstrap configuration is for a machine that is no node of a cluster",
            "write mode: clients-only with the key servers' address in another document for the cluster's nodes",
        )


def check_key_store(draft: Draft) -> Iterator[Finding]:
    """Keys that all three primary nodes reach."""
    if draft.document.instances.primary.count != 3:
        return
    node = draft.node.value if draft.node is not None else None
    if node is not None and node.mode in (RINGFENCE_KMS, HARDENED_STOCK_KMS):
        yield draft.root.at("ringfence", "configuration_file").error(
            Rule.EMR_SINGLE_NODE_KEY_STORE,
            f"three primary nodes, and mode: {node.mode} of the bootstrap configuration sets up a KMS on each: three"
            " key stores that know nothing of each other, and a replaced node would have lost its keys",
            "run a pair of key servers off the cluster (mode: clients-only), or leave Ranger KMS as EMR sets it up"
            " (mode: existing-kms)",
        )
    elif (node is not None and keeps_stock_kms(node)) or draft.named(ZONES):
        yield from _ranger_kms(draft)


def _ranger_kms(draft: Draft) -> Iterator[Finding]:
    """On three primaries the stock KMS is Ranger's, over a database of the user's own, and only if all is there."""
    place = draft.root.at("instances", "primary", "count")
    if not draft.release.has(Feature.THREE_PRIMARIES_WITH_ZONES):
        yield from require_feature(draft, Feature.THREE_PRIMARIES_WITH_ZONES, place)
        return
    if draft.release.lacks(_RANGER_KMS):
        yield place.error(
            Rule.EMR_NO_RANGER_KMS,
            f"{draft.release} has no Ranger KMS, which is EMR's only KMS for three primary nodes",
            "use one primary node, or Ringfence's KMS off the cluster",
        )
        return
    given = {
        (each.name, name.removeprefix(SECRET_PREFIX))
        for each in draft.classifications
        if each.name.startswith(_RANGER_PREFIX)
        for name in each.properties
    }
    missing = [f"{name} ({where})" for where, name in _RANGER_NEEDS if (where, name) not in given]
    if not draft.for_all(ZONES):
        missing.append(f"the classification {ZONES}")
    if missing:
        yield place.error(
            Rule.EMR_SINGLE_NODE_KEY_STORE,
            "three primary nodes, and the stock KMS keeps its keys in a file on one of them; EMR starts Ranger KMS"
            f" instead only with all of its settings, and these are missing: {', '.join(missing)}",
            "add them, or use Ringfence's KMS off the cluster",
        )


def check_ranger_classifications(draft: Draft) -> Iterator[Finding]:
    """Classifications of Ranger KMS that the release knows."""
    for each in draft.classifications:
        if each.name.startswith(_RANGER_PREFIX) and draft.release.lacks(_RANGER_KMS):
            message = f"{draft.release} has no Ranger KMS, so it knows no classification {each.name}"
            hint = "remove it; for three primary nodes use Ringfence's KMS off the cluster"
            yield each.place.error(Rule.EMR_NO_RANGER_KMS, message, hint)
        elif each.name == "ranger-kms-log4j" and draft.release.at_least(7):
            message = "from emr-7.0.0 this classification is ranger-kms-logback"
            yield each.place.error(Rule.EMR_CLASSIFICATION, message, "rename it")


def check_security_configuration(draft: Draft) -> Iterator[Finding]:
    """What of a security configuration three primary nodes cannot have."""
    if draft.security is None or draft.document.instances.primary.count != 3:
        return
    place = draft.root.at("security_configuration")
    hint = "use one primary node, or a security configuration without it"
    if draft.security.uses_runtime_roles:
        message = "EMR has no runtime roles (EnableApplicationScopedIAMRole) with three primary nodes"
        yield place.error(Rule.EMR_PRIMARY_NODES, message, hint)
    if draft.security.uses_identity_center:
        message = "EMR has no Identity Center (EnableIdentityCenter) with three primary nodes"
        yield place.error(Rule.EMR_PRIMARY_NODES, message, hint)
