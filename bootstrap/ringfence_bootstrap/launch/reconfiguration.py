"""What cannot be had by changing a cluster that runs: found by comparing its document with the one wanted.

EMR reconfigures many classifications of a running cluster; it flags `hdfs-encryption-zones` as not to be, and with
three primary nodes those of the KMS as well. What a cluster is created with (release, applications, bootstrap actions,
security configuration) it keeps. Zones are changed by policy: edit it and run the zones step, or `ringfence apply`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringfence_bootstrap.launch.document import ConfigurationBlock
from ringfence_bootstrap.launch.pieces import ZONES
from ringfence_bootstrap.launch.reading import Launch
from ringfence_zones.findings import Finding, Rule, Severity

_KMS_PREFIXES = ("hadoop-kms-", "ranger-kms-")
# Of the document, what a cluster gets when it is created.
_CREATION_ONLY = (
    "release",
    "region",
    "applications",
    "service_role",
    "instance_profile",
    "log_uri",
    "log_encryption_key",
    "custom_ami",
    "root_volume_gib",
    "network",
    "security_configuration",
    "kerberos",
    "bootstrap_actions",
)


def find_impossible_changes(running: Launch, wanted: Launch, name: str) -> list[Finding]:
    """An error for each change that only a new cluster brings; `name` is what findings call the wanted document."""
    found = []
    before, after = _blocks(running), _blocks(wanted)
    for classification in sorted(before.keys() | after.keys()):
        old, new = before.get(classification), after.get(classification)
        if old != new and _is_fixed(classification, wanted):
            found.append(_zones(name, classification))
    for field in _CREATION_ONLY:
        if getattr(running.document, field) != getattr(wanted.document, field):
            message = f"{field} is not what the running cluster was created with, and EMR does not change it"
            found.append(_finding(name, Rule.EMR_CREATION_ONLY, message, "launch a new cluster for it"))
    if running.document.instances.primary.count != wanted.document.instances.primary.count:
        message = "instances.primary.count is not the running cluster's, and EMR does not change it"
        found.append(_finding(name, Rule.EMR_CREATION_ONLY, message, "launch a new cluster for it"))
    return found


def _is_fixed(classification: str, wanted: Launch) -> bool:
    is_of_kms = classification.startswith(_KMS_PREFIXES)
    return classification == ZONES or (is_of_kms and wanted.document.instances.primary.count == 3)


def _zones(name: str, classification: str) -> Finding:
    message = f"{classification} is not what the running cluster has, and EMR reconfigures no such thing"
    hint = "change the policy and run the zones step again, or  ringfence apply  on the primary node"
    return _finding(name, Rule.EMR_ZONES_RECONFIGURED, message, hint)


def _blocks(launch: Launch) -> Mapping[str, dict[str, Any]]:
    return {block.Classification: _plain(block) for block in launch.configurations}


def _plain(block: ConfigurationBlock) -> dict[str, Any]:
    return block.model_dump()


def _finding(name: str, rule: Rule, message: str, hint: str) -> Finding:
    return Finding(severity=Severity.ERROR, rule=rule, path=name, message=message, hint=hint)
