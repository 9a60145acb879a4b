"""What Ringfence asks of HDFS, whoever carries it out.

`hdfs.HdfsGateway` does it in this process, `hdfs_child.HdfsChild` in a supervised child. The planner, `apply` and
the agent depend on these interfaces alone, so neither they nor their tests need Java to be imported: `Hdfs` is what
commands need, `WatchedHdfs` is that and what somebody needs who watches the name space.

Paths are absolute HDFS paths in canonical form. Every method may raise the `HdfsError` family; what a method raises
besides is said with it.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ringfence_zones.errors import HdfsNotFoundError
from ringfence_zones.model import DirectoryState, EncryptionZone, TreeNode
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


class EventKind(enum.StrEnum):
    """What an edit did, as far as encryption zones are concerned."""

    RENAME = "rename"
    CREATE = "create"
    UNLINK = "unlink"
    ZONE = "zone"  # a directory became a zone, or its zone's attribute was written again
    FILE_KEY = "file_key"  # a file's encryption was set from outside: a raw copy, a re-encryption


@dataclass(frozen=True, slots=True)
class NamespaceEvent:
    """One event of one edit. `target` is a rename's, `key` a zone's key or a file's key version; `time_ms` is the
    NameNode's clock, in milliseconds since 1970, for renames and unlinks."""

    txid: int
    kind: EventKind
    path: str
    target: str | None = None
    key: str | None = None
    time_ms: int | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Edits from `first_txid` to `last_txid` (None: none to read). `synced_txid` is the last that can be read, 0 or
    less when the NameNode cannot say."""

    events: tuple[NamespaceEvent, ...]
    first_txid: int | None
    last_txid: int | None
    synced_txid: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or directory by its identity: the inode id stays when it is renamed."""

    path: str
    inode: int
    is_directory: bool
    is_encrypted: bool


@dataclass(frozen=True, slots=True)
class EntryPage:
    """Some entries of a directory, by name; `has_more` behind the last."""

    entries: tuple[Entry, ...]
    has_more: bool


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

    def read_tree(self, path: str, limit: int) -> tuple[TreeNode, ...]:
        """What is at a path and below, with inode numbers and key versions."""

    def protected_directories(self) -> tuple[str, ...] | None:
        """The live `fs.protected.directories`."""

    def start_reconfiguration(self, namenode: NameNodeAddress) -> None:
        """Reloads one NameNode's configuration."""

    def reconfiguration_status(self, namenode: NameNodeAddress) -> ReconfigurationStatus:
        """How that reload goes."""

    def close(self) -> None:
        """Lets go of the connection."""


class WatchedHdfs(Hdfs, Protocol):
    """See the module; the methods are described where they are implemented, in `hdfs_namespace.NamespaceCalls`."""

    def read_events(
        self, after_txid: int, creates_in: Sequence[str] = (), creates_not_in: Sequence[str] = ()
    ) -> EventPage:
        """The events after a transaction id, one page of them."""

    def find_entry(self, path: str) -> Entry | None:
        """What is at a path, as its inode."""

    def list_entries(self, path: str, after: str = "") -> EntryPage:
        """One page of a directory."""

    def find_key_version(self, path: str) -> str | None:
        """The key version of a file."""

    def rename_inode(self, inode: int, destination: str) -> None:
        """Renames by inode id, without overwriting."""

    def add_sticky_bit(self, path: str) -> None:
        """Sets a directory's sticky bit."""


def find_zone_around(hdfs: Hdfs, path: HdfsPath) -> EncryptionZone | None:
    """The zone of a path, or where nothing is there yet, of its nearest ancestor: the zone it would be made in."""
    current: HdfsPath | None = path
    while current is not None:
        try:
            return hdfs.find_zone_of(str(current))
        except HdfsNotFoundError:
            current = current.parent
    return None
