"""The part of the gateway that watches the name space: edits as events, entries with their inode, a rename by inode.

Mixed into `hdfs.HdfsGateway`; its rules hold here too. Source of the events: `ClientProtocol.getEditsFromTxid`, which
`HdfsAdmin.getInotifyEventStream` calls as well (the types are in `org.apache.hadoop.hdfs.inotify.Event`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from ringfence_zones.encryption_xattrs import FILE_XATTR, ZONE_XATTR, read_key_name
from ringfence_zones.errors import HdfsNotFoundError
from ringfence_zones.hdfs_interface import Entry, EntryPage, EventKind, EventPage, NamespaceEvent
from ringfence_zones.hdfs_jvm import Jvm

_RAW = "/.reserved/raw"
_STICKY = 0o1000
_KINDS = {ZONE_XATTR: EventKind.ZONE, FILE_XATTR: EventKind.FILE_KEY}


class NamespaceCalls:
    """See the module."""

    _jvm: Jvm
    _fs: Any

    def _translated(self) -> AbstractContextManager[None]:
        raise NotImplementedError

    def read_events(
        self, after_txid: int, creates_in: Sequence[str] = (), creates_not_in: Sequence[str] = ()
    ) -> EventPage:
        """What the edits after a transaction id did, as far as the NameNode reads them in one call (about 1,000).

        Of creations only those below `creates_in` and not below `creates_not_in`: of others there are too many.
        Superuser only, and answered by the active NameNode alone.
        """
        with self._translated():
            listed = self._fs.getClient().getNamenode().getEditsFromTxid(after_txid + 1)
            wanted = _Wanted(creates_in, creates_not_in)
            events: list[NamespaceEvent] = []
            for batch in listed.getBatches():
                txid = int(batch.getTxid())
                for event in batch.getEvents():
                    events += _read_event(txid, event, wanted)
            first, last = int(listed.getFirstTxid()), int(listed.getLastTxid())
            return EventPage(
                events=tuple(events),
                first_txid=first if last != -1 else None,
                last_txid=last if last != -1 else None,
                synced_txid=int(listed.getSyncTxid()),
            )

    def find_entry(self, path: str) -> Entry | None:
        """What is at `path`, as its inode; None when nothing is."""
        with self._translated():
            status = self._fs.getClient().getFileInfo(path)
            return None if status is None else _entry(path, status)

    def list_entries(self, path: str, after: str = "") -> EntryPage:
        """One page (1,000 names by HDFS's default) of a directory, of the names behind `after`. Raises
        HdfsNotFoundError."""
        with self._translated():
            listing = self._fs.getClient().listPaths(path, after.encode())
            if listing is None:
                raise HdfsNotFoundError(f"{path} does not exist")
            base = path.rstrip("/")
            entries = [_entry(f"{base}/{status.getLocalName()}", status) for status in listing.getPartialListing()]
            return EntryPage(tuple(entries), bool(listing.hasMore()))

    def find_key_version(self, path: str) -> str | None:
        """The key version that a file's data key is wrapped with; None for a file in clear."""
        with self._translated():
            attributes = self._fs.getXAttrs(self._jvm.path(f"{_RAW}{path}"))
            value = attributes.get(f"raw.{FILE_XATTR}")
            return None if value is None else read_key_name(bytes(value))

    def rename_inode(self, inode: int, destination: str) -> None:
        """Renames what has this inode id, wherever it is; nothing is overwritten. Raises HdfsNotFoundError,
        HdfsPermissionError, HdfsError."""
        options = self._jvm.java_class("org.apache.hadoop.fs.Options$Rename")
        with self._translated():
            self._fs.rename(self._jvm.path(f"/.reserved/.inodes/{inode}"), self._jvm.path(destination), options.NONE)

    def add_sticky_bit(self, path: str) -> None:
        """Lets only owners delete what is in a directory; the other bits stay. Raises HdfsNotFoundError."""
        with self._translated():
            status = self._fs.getFileStatus(self._jvm.path(path))
            mode = int(status.getPermission().toShort()) | _STICKY
            permission = self._jvm.java_class("org.apache.hadoop.fs.permission.FsPermission")(self._jvm.short(mode))
            self._fs.setPermission(self._jvm.path(path), permission)


class _Wanted:
    """Which creations are told."""

    def __init__(self, within: Sequence[str], outside: Sequence[str]) -> None:
        self._within = tuple(f"{path.rstrip('/')}/" for path in within)
        self._outside = tuple(f"{path.rstrip('/')}/" for path in outside)

    def has(self, path: str) -> bool:
        return path.startswith(self._within) and not path.startswith(self._outside)


def _read_event(txid: int, event: Any, wanted: _Wanted) -> list[NamespaceEvent]:
    match str(event.getEventType()):
        case "RENAME":
            source, target = str(event.getSrcPath()), str(event.getDstPath())
            return [NamespaceEvent(txid, EventKind.RENAME, source, target, time_ms=int(event.getTimestamp()))]
        case "UNLINK":
            return [NamespaceEvent(txid, EventKind.UNLINK, str(event.getPath()), time_ms=int(event.getTimestamp()))]
        case "CREATE":
            path = str(event.getPath())
            return [NamespaceEvent(txid, EventKind.CREATE, path)] if wanted.has(path) else []
        case "METADATA" if str(event.getMetadataType()) == "XATTRS":
            return _read_attributes(txid, event)
    return []


def _read_attributes(txid: int, event: Any) -> list[NamespaceEvent]:
    found = []
    for attribute in event.getxAttrs() or ():
        kind = _KINDS.get(str(attribute.getName()))
        if kind is not None and str(attribute.getNameSpace()) == "RAW" and attribute.getValue() is not None:
            key = read_key_name(bytes(attribute.getValue()))
            found.append(NamespaceEvent(txid, kind, str(event.getPath()), key=key))
    return found


def _entry(path: str, status: Any) -> Entry:
    return Entry(
        path=path,
        inode=int(status.getFileId()),
        is_directory=bool(status.isDirectory()),
        is_encrypted=bool(status.isEncrypted()),
    )
