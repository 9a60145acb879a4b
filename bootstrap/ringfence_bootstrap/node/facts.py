"""What this EMR node is, from the files that EMR itself leaves on it. Nothing is asked over the network.

The instance controller's directory is known by two names; either may be the one that is there. A file that is missing
or cut off in the middle of being written is no fact, and whoever waits looks again. Ports, addresses and places of
configuration come from Hadoop's own files on the node, never from a table of releases.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence_bootstrap.node.protobuf_text import Message, find_block, find_word, parse_text
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import read_hadoop_conf

PROVIDER_PATH = "hadoop.security.key.provider.path"
_INFO = ("mnt/var/lib/info", "emr/instance-controller/lib/info")
_USER_DATA = "var/aws/emr/userData.json"
_HADOOP_CONF = "etc/hadoop/conf"
# Hadoop 3's packages have kms-site.xml beside core-site.xml, Hadoop 2's in a directory of its own.
_KMS_CONF = ("etc/hadoop/conf", "etc/hadoop-kms/conf")
_MAX_BYTES = 8 * 1024 * 1024
_ROOT = Path("/")


class Provisioning(enum.StrEnum):
    """How far EMR has come with this node's applications."""

    RUNNING = "running"
    SUCCESSFUL = "successful"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """`role` is `primary`, `core` or `task`; None where EMR's files do not say. The others likewise."""

    role: str | None
    cluster_id: str | None
    instance_id: str | None
    region: str | None
    release: str | None
    high_availability: bool
    provisioning: Provisioning

    @property
    def is_primary(self) -> bool:
        """Whether this is a primary node, or one of three."""
        return self.role == "primary"

    def to_json(self) -> dict[str, Any]:
        """For the status object."""
        return {
            "role": self.role,
            "cluster_id": self.cluster_id,
            "instance_id": self.instance_id,
            "region": self.region,
            "release": self.release,
            "high_availability": self.high_availability,
        }


def read_node_facts(root: Path = _ROOT) -> NodeFacts:
    """What is known by now. Never raises: what cannot be read yet is not known."""
    instance, job_flow, extra = (
        _read_json(root, name) for name in ("instance.json", "job-flow.json", "extraInstanceData.json")
    )
    user_data = _parse_json(_read(root / _USER_DATA))
    local = find_block(_read_state(root), "localInstance")
    return NodeFacts(
        role=_role(local, extra, instance),
        cluster_id=_text(extra, "jobFlowId") or _text(job_flow, "jobFlowId") or _text(user_data, "clusterId"),
        instance_id=_text(extra, "instanceId") or find_word(local, "instanceId"),
        region=_text(extra, "region"),
        release=_text(extra, "releaseLabel") or _text(job_flow, "releaseLabel"),
        high_availability=extra.get("haEnabled") in (True, "true"),
        provisioning=_provisioning(local),
    )


def is_emr_node(root: Path = _ROOT) -> bool:
    """Whether EMR's instance controller is at work here."""
    return any((root / place).is_dir() for place in _INFO)


def find_kms_conf(root: Path = _ROOT) -> Path | None:
    """The directory with the stock KMS's `kms-site.xml`."""
    return next((root / place for place in _KMS_CONF if (root / place / "kms-site.xml").exists()), None)


def hadoop_conf(root: Path = _ROOT) -> Path:
    """The directory with `core-site.xml`, there from provisioning on."""
    return root / _HADOOP_CONF


def find_provider_path(conf: Path) -> str | None:
    """The KMS that clients on this node call, as core-site.xml has it; None while it names none.

    Raises ConfigError for a file that is not Hadoop's.
    """
    if not (conf / "core-site.xml").exists():
        return None
    return read_hadoop_conf(conf, "core-site.xml").get(PROVIDER_PATH) or None


def _role(local: Message | None, extra: Mapping[str, Any], instance: Mapping[str, Any]) -> str | None:
    word = (find_word(local, "instanceRole") or _text(extra, "instanceRole") or "").lower()
    if word in ("core", "task"):
        return word
    # All three primaries of a cluster say so.
    if word in ("master", "primary") or instance.get("isMaster") is True:
        return "primary"
    return "core" if instance.get("isMaster") is False else None


def _provisioning(local: Message | None) -> Provisioning:
    record = find_block(local, "nodeProvisionCheckinRecord") if local is not None else None
    word = (find_word(record, "status") or "").upper()
    return {"SUCCESSFUL": Provisioning.SUCCESSFUL, "FAILED": Provisioning.FAILED}.get(word, Provisioning.RUNNING)


def _read_state(root: Path) -> Message:
    try:
        return parse_text(_read_info(root, "job-flow-state.txt"))
    except ValueError:
        return {}


def _read_json(root: Path, name: str) -> Mapping[str, Any]:
    return _parse_json(_read_info(root, name))


def _read_info(root: Path, name: str) -> str:
    return next((text for place in _INFO if (text := _read(root / place / name))), "")


def _parse_json(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _text(found: Mapping[str, Any], name: str) -> str | None:
    value = found.get(name)
    return value if isinstance(value, str) and value else None


def get_provider_path(conf: Path) -> str:
    """As `find_provider_path`. Raises ConfigError when there is none."""
    found = find_provider_path(conf)
    if found is None:
        raise ConfigError(
            f"core-site.xml in {conf} names no KMS: {PROVIDER_PATH} is not set",
            hint="is Hadoop among the cluster's applications, and is this node provisioned?",
        )
    return found
