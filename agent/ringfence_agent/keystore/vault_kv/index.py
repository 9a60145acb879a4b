"""The records of all keys and policies as this handle has read them, brought up to date by the head's list of changes.

KV has no query over documents: what concerns every key is answered from here, after reading the head and those records
that changed since the last time. Records are kept as they rest, sealed.

`as_of` gives exactly the state of one head, though others go on writing: a record that is newer is read in the version
before, of which KV keeps twenty.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ringfence_agent.keystore.sql.records import Records
from ringfence_agent.keystore.vault_kv.documents import Document, VaultDocuments
from ringfence_agent.keystore.vault_kv.head import Head
from ringfence_agent.keystore.vault_kv.rows import KEYS, POLICIES, KeyRecord, PolicyRecord, key_path
from ringfence_zones.errors import StoreUnavailableError

T = TypeVar("T")

_READERS = 8


class KeyIndex:
    """See the module. Used from any thread."""

    def __init__(self, documents: VaultDocuments, records: Records) -> None:
        self._documents = documents
        self._records = records
        self._lock = threading.Lock()
        self._number: int | None = None
        self._keys: dict[str, Document] = {}
        self._policies: dict[str, PolicyRecord] = {}

    def keys(self, head: Head) -> Sequence[KeyRecord]:
        """Every key, deleted ones too, by name; as of this head or a little later."""
        with self._lock:
            self._catch_up(head)
            return _by_name(self._keys.values())

    def keys_as_of(self, head: Head, *, anew: bool = False) -> Sequence[KeyRecord]:
        """Every key exactly as of this head; `anew` reads every record again, whatever is remembered of it."""
        with self._lock:
            if anew:
                self._number = None
            self._catch_up(head)
            documents = list(self._keys.values())
        as_of = (self._as_of(document, head.version) for document in documents)
        return _by_name(document for document in as_of if document is not None)

    def policy(self, path: str) -> PolicyRecord:
        """A published policy. Raises StoreTamperedError when its document is missing."""
        found = self._policies.get(path)
        if found is None:
            document = self._documents.find_version(path, 1)
            if document is None:
                raise self._documents.tampered(f"its document {path}, a published policy, is missing")
            found = self._policies[path] = PolicyRecord.of(document)
        return found

    def policies_after(self, head: Head, revision: int, *, anew: bool = False) -> Sequence[PolicyRecord]:
        """Published policies, oldest first; `anew` as above."""
        if anew:
            paths = [f"{POLICIES}/{name}" for name in self._documents.list_names(POLICIES)]
            read = _in_parallel(lambda path: self._documents.find_version(path, 1), paths)
            self._policies = {path: PolicyRecord.of(document) for path, document in read.items() if document}
        found: list[PolicyRecord] = []
        path = head.policy
        while path is not None:
            record = self.policy(path)
            if record.row.revision <= revision:
                break
            found.append(record)
            path = record.previous
        return found[::-1]

    def _catch_up(self, head: Head) -> None:
        number = self._records.open_ledger(head.header.ledger).writes
        if self._number is None or not head.changes_after <= self._number:
            paths = [f"{KEYS}/{name}" for name in self._documents.list_names(KEYS)]
            self._keys = self._read(paths)
        elif number > self._number:
            self._keys |= self._read([key_path(name) for name, at in head.changed.items() if at > (self._number or 0)])
        self._number = max(number, self._number or 0)

    def _read(self, paths: Collection[str]) -> dict[str, Document]:
        found = _in_parallel(self._documents.find, paths)
        missing = [path for path, document in found.items() if document is None]
        if missing:
            raise self._documents.tampered(f"its document {missing[0]}, the record of a key, is missing")
        return {path: document for path, document in found.items() if document is not None}

    def _as_of(self, document: Document, version: int) -> Document | None:
        """None for a key that was made later."""
        while document.body["as_of"] > version:
            if document.version == 1:
                return None
            earlier = self._documents.find_version(document.path, document.version - 1)
            if earlier is None:
                raise StoreUnavailableError(
                    f"key store {self._documents.label} changed too fast to be read in one state", hint="try again"
                )
            document = earlier
        return document


def _by_name(documents: Iterable[Document]) -> Sequence[KeyRecord]:
    return sorted(map(KeyRecord.of, documents), key=lambda record: record.key.name.encode())


def _in_parallel(find: Callable[[str], T], paths: Collection[str]) -> Mapping[str, T]:
    if len(paths) < 2:
        return {path: find(path) for path in paths}
    with ThreadPoolExecutor(min(_READERS, len(paths)), thread_name_prefix="vault-kv") as readers:
        return dict(zip(paths, readers.map(find, paths), strict=True))
