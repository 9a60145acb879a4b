"""A NameNode in memory, for the agent's loop: zones, directories, and a configuration file that it really reads.

    cluster = FakeNameNode(conf_dir)
    cluster.add_zone("/data/a", "key-a")
    cluster.protected_directories()            # () : what it loaded, not what the file says
    cluster.start_reconfiguration(cluster.namenodes[0])

It implements the parts of `hdfs_interface.WatchedHdfs` that the loop uses, and fails on purpose when `fail` is set:
every call then raises that error, as when the NameNode is away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ringfence_zones.errors import RingfenceError
from ringfence_zones.hadoop_conf import read_hadoop_conf
from ringfence_zones.hdfs_interface import Entry, EntryPage, EventPage, PropertyChange, ReconfigurationStatus
from ringfence_zones.model import DirectoryState, EncryptionZone
from ringfence_zones.namenodes import NameNodeAddress

PROPERTY = "fs.protected.directories"


class FakeNameNode:
    """See the module. `conf_dir` must hold a core-site.xml."""

    def __init__(self, conf_dir: Path, namenodes: int = 1) -> None:
        self._conf_dir = conf_dir
        self.namenodes = tuple(NameNodeAddress(f"nn{n}:8020", f"http://nn{n}:9870") for n in range(1, namenodes + 1))
        self.user = "hdfs"
        self.version = (3, 4, 2)
        self.fail: RingfenceError | None = None
        self.fail_reload_of: dict[str, RingfenceError] = {}
        self.refuses_value: str | None = None
        self.reads_other_file = False
        self.tells_live_values = True
        self.reloads: list[str] = []
        self.refuses_mode: RingfenceError | None = None
        self.edits = 1
        self.entries: dict[str, list[Entry]] = {}
        self.key_versions: dict[str, str] = {}
        self._zones: dict[str, DirectoryState] = {}
        self._keys: dict[str, str] = {}
        self._live = {namenode.rpc: self._file_entries() for namenode in self.namenodes}
        self._busy = 0

    def add_zone(self, path: str, key_name: str, *, is_empty: bool = False, trash_mode: int = 0o1777) -> None:
        """An encryption zone that is there."""
        self.edits += 1
        self._keys[path] = key_name
        self._zones[path] = DirectoryState(
            path=path,
            is_directory=True,
            is_empty=is_empty,
            owner="hdfs",
            group="supergroup",
            mode=0o700,
            group_bits=0,
            trash_mode=None if is_empty else trash_mode,
        )

    def remove_zone(self, path: str) -> None:
        """As `hdfs dfs -rm -r` does."""
        del self._keys[path], self._zones[path]

    def restart(self) -> None:
        """A restarted NameNode reads its files."""
        for rpc in self._live:
            self._live[rpc] = self._file_entries()

    def hadoop_version(self) -> tuple[int, int, int]:
        self._may_fail()
        return self.version

    def key_provider_uri(self) -> str | None:
        self._may_fail()
        return None

    def list_zones(self) -> tuple[EncryptionZone, ...]:
        self._may_fail()
        return tuple(EncryptionZone(path, key) for path, key in sorted(self._keys.items()))

    def find_directory(self, path: str) -> DirectoryState | None:
        self._may_fail()
        return self._zones.get(path)

    def protected_directories(self) -> tuple[str, ...] | None:
        self._may_fail()
        if not self.tells_live_values:
            return None
        return tuple(sorted(set.intersection(*(set(entries) for entries in self._live.values()))))

    def start_reconfiguration(self, namenode: NameNodeAddress) -> None:
        self._may_fail()
        if namenode.rpc in self.fail_reload_of:
            raise self.fail_reload_of[namenode.rpc]
        self.reloads.append(namenode.rpc)
        self._busy = 2
        if self.refuses_value is None and not self.reads_other_file:
            self._live[namenode.rpc] = self._file_entries()

    def reconfiguration_status(self, namenode: NameNodeAddress) -> ReconfigurationStatus:
        self._may_fail()
        if self._busy > 0:
            self._busy -= 1
            return ReconfigurationStatus(running=True, changes=())
        change = PropertyChange(PROPERTY, "", "", self.refuses_value)
        return ReconfigurationStatus(running=False, changes=(change,))

    def _file_entries(self) -> tuple[str, ...]:
        return tuple(read_hadoop_conf(self._conf_dir, "core-site.xml").get_list(PROPERTY))

    def _may_fail(self) -> None:
        if self.fail is not None:
            raise self.fail

    def last_transaction_id(self) -> int:
        self._may_fail()
        return self.edits

    def list_entries(self, path: str, after: str = "") -> EntryPage:
        self._may_fail()
        return EntryPage(tuple(self.entries.get(path, ())), has_more=False)

    def find_key_version(self, path: str) -> str | None:
        self._may_fail()
        return self.key_versions.get(path)

    def add_sticky_bit(self, path: str) -> None:
        self._may_fail()
        if self.refuses_mode is not None:
            raise self.refuses_mode
        root = path.removesuffix("/.Trash")
        self._zones[root] = replace(self._zones[root], trash_mode=(self._zones[root].trash_mode or 0) | 0o1000)
        self.edits += 1

    # What the agent never calls, or another double stands for.

    def read_events(
        self, after_txid: int, creates_in: Sequence[str] = (), creates_not_in: Sequence[str] = ()
    ) -> EventPage:
        raise AssertionError("not for the loop")

    def find_entry(self, path: str) -> Entry | None:
        raise AssertionError("not for the loop")

    def rename_inode(self, inode: int, destination: str) -> None:
        raise AssertionError("not for the loop")

    def find_zone_of(self, path: str) -> EncryptionZone | None:
        raise AssertionError("not for the agent")

    def create_zone(self, path: str, key_name: str) -> None:
        raise AssertionError("not for the agent")

    def provision_trash(self, path: str) -> None:
        raise AssertionError("not for the agent")

    def make_directory(self, path: str) -> None:
        raise AssertionError("not for the agent")

    def set_rights(self, path: str, owner: str | None, group: str | None, mode: int, acl: Sequence[str]) -> None:
        raise AssertionError("not for the agent")

    def rename(self, source: str, destination: str) -> None:
        raise AssertionError("not for the agent")

    def close(self) -> None:
        pass
