"""A name space in memory that keeps its edits, as a NameNode does: for whoever follows events and renames by inode.

    space = NamespaceDouble()
    space.make_zone("/data/pii", "k-pii")
    space.rename("/data/pii", "/gone")              # an edit, and an event
    space.purge()                                   # what was edited by now is not told any more
    space.away = NameNodeUnavailableError("...")    # every call raises that

It refuses what HDFS refuses: a target that exists, a parent that does not. Every edit has a transaction id of its own;
some (`touch`) have no event. The parts of `hdfs_interface.WatchedHdfs` that nobody needs here are absent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ringfence_zones.errors import HdfsError, HdfsNotFoundError, RingfenceError
from ringfence_zones.hdfs_interface import Entry, EntryPage, EventKind, EventPage, NamespaceEvent
from ringfence_zones.model import EncryptionZone

_PAGE = 1000


class NamespaceDouble:
    """See the module. `now_ms` is the NameNode's clock."""

    def __init__(self, now_ms: Callable[[], int] = lambda: 0) -> None:
        self.away: RingfenceError | None = None
        self.refuses_rename: RingfenceError | None = None
        self.before_rename: Callable[[], None] = lambda: None
        self.calls = 0
        self._now_ms = now_ms
        self._inodes: dict[str, int] = {"/": 1}
        self._keys: dict[int, str] = {}
        self._versions: dict[str, str] = {}
        self._files: set[int] = set()
        self._next_inode = 2
        self.txid = 0
        self._edits: list[tuple[int, NamespaceEvent | None]] = []
        self._synced = True

    # What a cluster's users do

    def make(self, path: str, *, file: bool = False) -> None:
        """A directory, or a file, and its missing parents."""
        parent = path.rpartition("/")[0] or "/"
        if parent not in self._inodes:
            self.make(parent)
        self._inodes[path] = self._next_inode
        if file:
            self._files.add(self._next_inode)
        self._next_inode += 1
        self._edit(EventKind.CREATE, path)

    def make_zone(self, path: str, key_name: str) -> None:
        """A directory that is an encryption zone."""
        if path not in self._inodes:
            self.make(path)
        self._keys[self._inodes[path]] = key_name
        self._edit(EventKind.ZONE, path, key=key_name)

    def rename(self, source: str, target: str) -> None:
        """As users do; HDFS's own checks, without those about zones."""
        if source not in self._inodes:
            raise HdfsNotFoundError(f"{source} does not exist")
        if target in self._inodes:
            raise HdfsError(f"rename destination {target} already exists")
        if (target.rpartition("/")[0] or "/") not in self._inodes:
            raise HdfsNotFoundError(f"rename destination parent {target} not found")
        moving = [path for path in self._inodes if path == source or path.startswith(f"{source}/")]
        for path in moving:
            self._inodes[target + path[len(source) :]] = self._inodes.pop(path)
        self._edit(EventKind.RENAME, source, target)

    def delete(self, path: str) -> None:
        """A path and what is below it."""
        for each in [each for each in self._inodes if each == path or each.startswith(f"{path}/")]:
            self._keys.pop(self._inodes.pop(each), None)
        self._edit(EventKind.UNLINK, path)

    def set_key_version(self, path: str, version: str) -> None:
        """As a raw copy does."""
        self._versions[path] = version
        self._edit(EventKind.FILE_KEY, path, key=version)

    def touch(self) -> None:
        """An edit without an event."""
        self._edit(None, "/")

    def purge(self) -> None:
        """The edits so far are not there any more; a log segment begins, which is an edit."""
        self._edits = []
        self.touch()

    def restore(self, txid: int) -> None:
        """An older image: the transactions after this one never happened."""
        self.txid = txid
        self._edits = [(each, event) for each, event in self._edits if each <= txid]

    # What the agent asks

    def last_transaction_id(self) -> int:
        self._may_fail()
        return self.txid

    def read_events(
        self, after_txid: int, creates_in: Sequence[str] = (), creates_not_in: Sequence[str] = ()
    ) -> EventPage:
        self._may_fail()
        page = [(txid, event) for txid, event in self._edits if txid > after_txid][:_PAGE]
        if not page:
            return EventPage((), None, None, self.txid)
        wanted, unwanted = (tuple(f"{path}/" for path in each) for each in (creates_in, creates_not_in))
        events = tuple(
            event
            for _, event in page
            if event is not None and (event.kind is not EventKind.CREATE or _is_in(event.path, wanted, unwanted))
        )
        return EventPage(events, page[0][0], page[-1][0], self.txid)

    def list_zones(self) -> tuple[EncryptionZone, ...]:
        self._may_fail()
        roots = [(path, inode) for path, inode in self._inodes.items() if inode in self._keys]
        return tuple(sorted(EncryptionZone(path, self._keys[inode], inode) for path, inode in roots))

    def find_entry(self, path: str) -> Entry | None:
        self._may_fail()
        return self._entry(path) if path in self._inodes else None

    def list_entries(self, path: str, after: str = "") -> EntryPage:
        self._may_fail()
        if path not in self._inodes:
            raise HdfsNotFoundError(f"{path} does not exist")
        base = path.rstrip("/")
        names = sorted(
            each[len(base) + 1 :]
            for each in self._inodes
            if each.startswith(f"{base}/") and each != "/" and "/" not in each[len(base) + 1 :]
        )
        following = [name for name in names if name > after]
        return EntryPage(tuple(self._entry(f"{base}/{name}") for name in following[:_PAGE]), len(following) > _PAGE)

    def find_key_version(self, path: str) -> str | None:
        self._may_fail()
        if path not in self._inodes:
            raise HdfsNotFoundError(f"{path} does not exist")
        return self._versions.get(path)

    def rename_inode(self, inode: int, destination: str) -> None:
        self._may_fail()
        self.before_rename()
        if self.refuses_rename is not None:
            raise self.refuses_rename
        source = next((path for path, each in self._inodes.items() if each == inode), None)
        if source is None:
            raise HdfsNotFoundError(f"File for given inode path does not exist: /.reserved/.inodes/{inode}")
        self.rename(source, destination)

    # Inside

    def _entry(self, path: str) -> Entry:
        inode = self._inodes[path]
        above = [path[:at] for at in range(1, len(path) + 1) if at == len(path) or path[at] == "/"]
        is_encrypted = any(self._inodes.get(each) in self._keys for each in above)
        return Entry(path, inode, inode not in self._files, is_encrypted)

    def _edit(self, kind: EventKind | None, path: str, target: str | None = None, key: str | None = None) -> None:
        self.txid += 1
        event = None if kind is None else NamespaceEvent(self.txid, kind, path, target, key, self._now_ms())
        self._edits.append((self.txid, event))

    def _may_fail(self) -> None:
        self.calls += 1
        if self.away is not None:
            raise self.away


def _is_in(path: str, places: tuple[str, ...], others: tuple[str, ...]) -> bool:
    return path.startswith(places) and not path.startswith(others)
