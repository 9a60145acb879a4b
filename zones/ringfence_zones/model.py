"""What a cluster looks like to the planner: plain frozen values, no I/O.

`ClusterState` is observed through the gateway (`hdfs.py`) and the KMS client; `plan.py` and `check.py` compare it
with a policy. A field that could not be observed is None, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ringfence_zones.custody import custody_word
from ringfence_zones.keys import KeyMetadata


@dataclass(frozen=True, slots=True, order=True)
class EncryptionZone:
    """An encryption zone as the NameNode lists it. `inode` is its root's id, which stays when that is renamed."""

    path: str
    key_name: str
    inode: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class DirectoryState:
    """A path that policy talks about, as HDFS shows it.

    `mode` is the nine permission bits plus the sticky bit. `acl` holds the extended and default entries in HDFS's
    text form (`user:etl:rwx`, `default:group:pii:r-x`), sorted; it excludes the base entries, which
    `owner`, `group` and `mode` carry. `group_bits` is the owning group's entry (0-7): with an extended ACL the
    group digit of `mode` is the mask instead. `trash_mode` is the mode of `.Trash` below it, None without one.
    """

    path: str
    is_directory: bool
    is_empty: bool
    owner: str
    group: str
    mode: int
    group_bits: int
    acl: tuple[str, ...] = ()
    trash_mode: int | None = None


@dataclass(frozen=True, slots=True)
class TreeNode:
    """A file or directory below a path, `path` relative to that; see `hdfs_tree`.

    `file_id` is the inode's number. `bytes` is 0 for a directory, `key_version` None for one and in clear text.
    `is_open`: somebody has the file open for writing.
    """

    path: str
    is_directory: bool
    bytes: int
    modified_ms: int
    file_id: int
    key_version: str | None
    is_open: bool
    has_acl: bool


@dataclass(frozen=True, slots=True)
class KmsState:
    """The KMS the cluster uses. `revision` is None on a stock KMS, 0 before the first publication."""

    uri: str
    plain_http: bool
    is_ringfence: bool
    revision: int | None
    # SHA-256 (hex) of the published document's canonical JSON, None without a revision.
    revision_digest: str | None
    keys: Mapping[str, KeyMetadata]
    # Which custodies keys can be in here; empty on a stock KMS, which knows none.
    custodies: tuple[str, ...] = ()
    # True when GET (key material) is granted to this caller for the key named.
    get_open: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))

    def find_custody(self, key_name: str) -> str | None:
        """The custody that a key is in; None without such a key, and on a stock KMS, where the attribute is a word
        without effect."""
        metadata = self.keys.get(key_name)
        return custody_word(metadata.attributes) if metadata is not None and self.is_ringfence else None


@dataclass(frozen=True, slots=True)
class ClusterState:
    """Everything one look at a cluster showed."""

    hadoop_version: tuple[int, int, int]
    zones: tuple[EncryptionZone, ...]
    # By path, for every zone root of the policy and of the cluster that exists.
    directories: Mapping[str, DirectoryState]
    # fs.protected.directories as the running NameNodes hold it; None when no NameNode would tell.
    protected_directories: tuple[str, ...] | None
    # None when the KMS did not answer; `kms_error` then says why.
    kms: KmsState | None
    kms_error: str | None = None

    def zone_at(self, path: str) -> EncryptionZone | None:
        """The zone whose root is exactly `path`."""
        return next((zone for zone in self.zones if zone.path == path), None)
