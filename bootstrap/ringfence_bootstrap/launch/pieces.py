"""What a cluster gets of a document, in no format yet: bootstrap actions, steps, classifications.

Ringfence's bootstrap action stands first, and depends on no other; its zones step stands first, so that no step of the
user's finds its data's place in clear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ringfence_bootstrap.launch.document import ClusterDocument, ConfigurationBlock, ZonesBlock
from ringfence_bootstrap.node.configuration import CLIENTS_ONLY, HARDENED_STOCK_KMS, RINGFENCE_KMS, NodeConfig
from ringfence_zones.kms_uri import KEY_PROVIDER, parse_kms_uri
from ringfence_zones.policy_document import duration_s

ZONES = "hdfs-encryption-zones"
_CORE_SITE = "core-site"


@dataclass(frozen=True, slots=True)
class BootstrapAction:
    """A script that EMR runs on every node before applications are there."""

    name: str
    path: str
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """What EMR runs on the primary node, one after the other."""

    name: str
    jar: str
    main_class: str | None
    args: tuple[str, ...]
    properties: Mapping[str, str]
    on_failure: str


@dataclass(frozen=True, slots=True)
class Pins:
    """What nodes are told of files that were checked here: which they must be, and what one of them says."""

    node: NodeConfig
    node_sha256: str
    policy_sha256: str | None


def bootstrap_actions(document: ClusterDocument, pins: Pins | None) -> tuple[BootstrapAction, ...]:
    """All of them, in EMR's order. `pins` is None only without Ringfence."""
    own = tuple(BootstrapAction(each.name, each.path, each.args) for each in document.bootstrap_actions)
    ringfence = document.ringfence
    if ringfence is None or pins is None:
        return own
    arguments = (ringfence.configuration, pins.node_sha256)
    return (BootstrapAction("Ringfence", ringfence.bootstrap_action, arguments), *own)


def steps(document: ClusterDocument, pins: Pins | None) -> tuple[Step, ...]:
    """All of them, in EMR's order."""
    own = tuple(
        Step(each.name, each.jar, each.main_class, each.args, each.properties, each.on_failure)
        for each in document.steps
    )
    zones = document.ringfence.zones if document.ringfence is not None else None
    return own if zones is None or pins is None else (_zones_step(document, zones, pins), *own)


def cluster_configurations(given: Iterable[ConfigurationBlock], pins: Pins | None) -> tuple[ConfigurationBlock, ...]:
    """The cluster's classifications, each once: those given, and the address of a KMS that is off the cluster."""
    blocks = list(given)
    if pins is not None and pins.node.clients is not None:
        properties = {KEY_PROVIDER: pins.node.clients.uri}
        blocks.append(ConfigurationBlock(Classification=_CORE_SITE, Properties=properties))
    return _put_together(blocks)


def _put_together(blocks: Iterable[ConfigurationBlock]) -> tuple[ConfigurationBlock, ...]:
    """Blocks of one name as one; a rule refuses those that contradict each other."""
    found: dict[str, ConfigurationBlock] = {}
    for block in blocks:
        first = found.get(block.Classification)
        if first is None:
            found[block.Classification] = block
            continue
        both = {
            "Properties": {**first.Properties, **block.Properties},
            "Configurations": _put_together((*first.Configurations, *block.Configurations)),
        }
        found[block.Classification] = first.model_copy(update=both)
    return tuple(found.values())


def keeps_stock_kms(node: NodeConfig) -> bool:
    """Whether the KMS that EMR set up goes on serving."""
    return node.mode not in (RINGFENCE_KMS, CLIENTS_ONLY)


def is_plain(node: NodeConfig) -> bool:
    """Whether the KMS that the configuration brings speaks plain http; what an existing one speaks nobody knows."""
    if node.clients is not None:
        return parse_kms_uri(node.clients.uri).is_plain_http
    return node.mode == RINGFENCE_KMS and node.kms.tls is None


def _zones_step(document: ClusterDocument, zones: ZonesBlock, pins: Pins) -> Step:
    # A script runner that EMR keeps in a bucket of each region runs a script of S3 as it is.
    jar = f"s3://{document.region}.elasticmapreduce/libs/script-runner/script-runner.jar"
    arguments = [zones.script, "--policy", zones.policy]
    arguments += ["--policy-sha256", pins.policy_sha256] if pins.policy_sha256 is not None else []
    arguments += ["--kms", _expected_kms(pins.node), *(["--tls"] if _wants_tls(zones, pins.node) else [])]
    arguments += ["--wait", f"{duration_s(zones.wait)}s"]
    arguments += ["--log-uri", document.log_uri] if document.log_uri is not None else []
    return Step("Ringfence zones", jar, None, tuple(arguments), {}, zones.on_failure)


def _wants_tls(zones: ZonesBlock, node: NodeConfig) -> bool:
    if zones.require_tls is not None:
        return zones.require_tls
    # What an existing KMS speaks nobody knows here.
    return not is_plain(node) if node.mode in (RINGFENCE_KMS, CLIENTS_ONLY) else node.mode == HARDENED_STOCK_KMS


def _expected_kms(node: NodeConfig) -> str:
    if node.clients is not None:
        return node.clients.uri
    return "ringfence" if node.mode == RINGFENCE_KMS else "existing"
