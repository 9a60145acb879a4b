"""What Ringfence asks of HDFS, whoever carries it out.

`hdfs.HdfsGateway` does it in this process, `hdfs_child.HdfsChild` in a supervised child. The planner, `apply` and
the agent depend on this interface alone, so neither they nor their tests need Java to be imported.

Paths are absolute HDFS paths in canonical form. Every method may raise the `HdfsError` family; what a method raises
besides is said with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ringfence_zones.errors import HdfsNotFoundError
from ringfence_zones.model import DirectoryState, EncryptionZone
from ringfence_zones.namenodes import NameNodeAddress
from ringfence_zones.paths import HdfsPath


@dataclass(frozen=True, slots=True)
class PropertyChange:
    """One property that a reconfiguration touched. `error` says why it was refused, None when it took effect."""

    name: str
    old: str | None
    new: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class ReconfigurationStatus:
    """The state of a NameNode's last reconfiguration; `changes` is complete once `running` is False."""

    running: bool
    changes: tuple[PropertyChange, ...]


class Hdfs(Protocol):
    """See the module; the methods are described where they are implemented, in `hdfs.HdfsGateway`."""

    @property
    def namenodes(self) -> tuple[NameNodeAddress, ...]:
        """Every NameNode of the cluster."""

    @property
    def user(self) -> str:
        """The short name HDFS knows the caller by."""

    def hadoop_version(self) -> tuple[int, int, int]:
        """The Hadoop release in use."""

    def key_provider_uri(self) -> str | None:
        """The NameNode's key provider, None without one."""

    def last_transaction_id(self) -> int:
        """The id of the namespace's last edit."""

    def list_zones(self) -> tuple[EncryptionZone, ...]:
        """Every encryption zone, by path."""

    def find_zone_of(self, path: str) -> EncryptionZone | None:
        """The zone a path lies in."""

    def create_zone(self, path: str, key_name: str) -> None:
        """Makes an empty directory a zone."""

    def provision_trash(self, path: str) -> None:
        """Gives a zone its trash directory."""

    def make_directory(self, path: str) -> None:
        """Makes a closed directory (0700)."""

    def find_directory(self, path: str) -> DirectoryState | None:
        """What is at a path."""

    def set_rights(self, path: str, owner: str | None, group: str | None, mode: int, acl: Sequence[str]) -> None:
        """Sets owner, group, mode and the whole ACL."""

    def rename(self, source: str, destination: str) -> None:
        """Renames without overwriting."""

    def protected_directories(self) -> tuple[str, ...] | None:
        """The live `fs.protected.directories`."""

    def start_reconfiguration(self, namenode: NameNodeAddress) -> None:
        """Reloads one NameNode's configuration."""

    def reconfiguration_status(self, namenode: NameNodeAddress) -> ReconfigurationStatus:
        """How that reload goes."""

    def close(self) -> None:
        """Lets go of the connection."""


def find_zone_around(hdfs: Hdfs, path: HdfsPath) -> EncryptionZone | None:
    """The zone of a path, or where nothing is there yet, of its nearest ancestor: the zone it would be made in."""
    current: HdfsPath | None = path
    while current is not None:
        try:
            return hdfs.find_zone_of(str(current))
        except HdfsNotFoundError:
            current = current.parent
    return None
