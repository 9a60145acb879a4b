"""A tree of files as on a node of an EMR cluster, for what reads one: EMR's own files, Hadoop's, the kernel's.

tree = NodeTree(tmp_path).emr().hadoop(core={"fs.defaultFS": "hdfs://nn1:8020"})
tree.disk("/mnt", "/dev/nvme1n1", model=EBS)
node = tree.node()
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from kms_serving import write_xml

from ringfence_bootstrap.node_doctor.subject import Node

EBS = "Amazon Elastic Block Store"
INSTANCE_STORE = "Amazon EC2 NVMe Instance Storage"
INSTANCE = "i-0123456789abcdef0"


class NodeTree:
    """See the module; every method gives the tree itself."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._mounts: list[str] = []

    @property
    def conf(self) -> Path:
        return self.root / "etc/hadoop/conf"

    def node(self, **environ: str) -> Node:
        """What doctor sees."""
        return Node.here(self.conf, environ, self.root)

    def write(self, path: str, text: str) -> NodeTree:
        """A file of the node, by its absolute path."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return self

    def emr(self, release: str = "emr-7.12.0") -> NodeTree:
        """What EMR's instance controller leaves."""
        extra = {"jobFlowId": "j-2AXXXXXXGAPLF", "instanceId": INSTANCE, "region": "eu-west-1", "releaseLabel": release}
        self.write("/mnt/var/lib/info/extraInstanceData.json", json.dumps(extra))
        return self.write("/mnt/var/lib/info/instance.json", json.dumps({"isMaster": True}))

    def hadoop(
        self,
        *,
        core: Mapping[str, str] | None = None,
        hdfs: Mapping[str, str] | None = None,
        mapred: Mapping[str, str] | None = None,
        kms: Mapping[str, str] | None = None,
    ) -> NodeTree:
        """Hadoop's files; those that are None are not there, but for core-site.xml."""
        self.conf.mkdir(parents=True, exist_ok=True)
        for name, properties in (("core", core or {}), ("hdfs", hdfs), ("mapred", mapred), ("kms", kms)):
            if properties is not None:
                write_xml(self.conf / f"{name}-site.xml", properties)
        return self

    def java(self, place: str, version: str) -> NodeTree:
        """A runtime with its file `release`."""
        return self.write(f"{place}/release", f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')

    def mount(self, place: str, device: str, number: str, kind: str = "xfs") -> NodeTree:
        """A line of mountinfo."""
        self._mounts.append(f"{len(self._mounts) + 20} 1 {number} / {place} rw,noatime shared:1 - {kind} {device} rw")
        return self.write("/proc/self/mountinfo", "\n".join(self._mounts) + "\n")

    def disk(self, place: str, device: str, *, model: str | None = None, uuid: str | None = None) -> NodeTree:
        """A whole disk, mounted; `uuid` is device-mapper's."""
        number = f"259:{len(self._mounts)}"
        (self.root / "sys/dev/block" / number).mkdir(parents=True)
        if model is not None:
            self.write(f"/sys/dev/block/{number}/device/model", model + "\n")
        if uuid is not None:
            self.write(f"/sys/dev/block/{number}/dm/uuid", uuid + "\n")
        return self.mount(place, device, number)

    @property
    def last_device(self) -> Path:
        """The sysfs directory of the disk mounted last."""
        return self.root / "sys/dev/block" / f"259:{len(self._mounts) - 1}"
