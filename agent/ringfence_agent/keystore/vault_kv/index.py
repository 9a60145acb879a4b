"""The records of all keys and policies as this handle has read them, brought up to date by the head's list of changes.

KV has no query over documents: what concerns every key is answered from here, after reading the head and those records
that changed since the last time. Records are kept as they rest, sealed.

`read_as_of` reads everything again and gives exactly the state of one head, though others go on writing: a record that
is newer is read in the version before, of which KV keeps twenty. It holds nobody up: only what it found is kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.snapshot import Pause, paced
from ringfence_agent.keystore.vault_kv.documents import Document, RawDocument, VaultDocuments
from ringfence_agent.keystore.vault_kv.head import Head
from ringfence_agent.keystore.vault_kv.rows import KEYS, POLICIES, KeyRecord, PolicyRecord, key_path
from ringfence_zones.errors import StoreUnavailableError

T = TypeVar("T")


class ReadAll(Protocol):
    """Reads documents by their paths."""

    def __call__(self, find: Callable[[str], T], paths: Collection[str]) -> Mapping[str, T]: ...


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

    def keys_as_of(self, head: Head) -> Sequence[KeyRecord]:
        """Every key exactly as of this head, by what is remembered."""
        with self._lock:
            self._catch_up(head)
            documents = list(self._keys.values())
        return self._exactly(documents, head)

    def read_as_of(self, head: Head, read: ReadAll) -> tuple[Sequence[KeyRecord], Sequence[PolicyRecord]]:
        """Every key and every policy, oldest first, exactly as of this head and as they rest."""
        documents = self._read([f"{KEYS}/{name}" for name in self._documents.list_names(KEYS)], read)
        paths = [f"{POLICIES}/{name}" for name in self._documents.list_names(POLICIES)]
        # Unchecked: some may be of a change that was not committed, or of a root that is not any more.
        found = read(self._documents.find_first_raw, paths)
        policies: dict[str, PolicyRecord] = {}
        path = head.policy
        while path is not None:
            policies[path] = self._policy_in(path, found.get(path))
            path = policies[path].previous
        number = self._number_of(head)
        with self._lock:
            self._policies = policies
            if self._number is None or self._number <= number:
                self._keys, self._number = documents, number
        return self._exactly(documents.values(), head), list(policies.values())[::-1]

    def policy(self, path: str) -> PolicyRecord:
        """A published policy. Raises StoreTamperedError when its document is missing."""
        found = self._policies.get(path)
        if found is None:
            found = self._policies[path] = self._policy_in(path, self._documents.find_first_raw(path))
        return found

    def policies_after(self, head: Head, revision: int) -> Sequence[PolicyRecord]:
        """Published policies, oldest first."""
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
        number = self._number_of(head)
        if self._number is None or not head.changes_after <= self._number:
            paths = [f"{KEYS}/{name}" for name in self._documents.list_names(KEYS)]
            self._keys = self._read(paths, in_parallel)
        elif number > self._number:
            changed = [key_path(name) for name, at in head.changed.items() if at > (self._number or 0)]
            self._keys |= self._read(changed, in_parallel)
        self._number = max(number, self._number or 0)

    def _policy_in(self, path: str, raw: RawDocument | None) -> PolicyRecord:
        if raw is None:
            raise self._documents.tampered(f"its document {path}, a published policy, is missing")
        return PolicyRecord.of(self._documents.check(raw))

    def _number_of(self, head: Head) -> int:
        return self._records.open_ledger(head.header.ledger).writes

    def _exactly(self, documents: Iterable[Document], head: Head) -> Sequence[KeyRecord]:
        as_of = (self._as_of(document, head.version) for document in documents)
        return _by_name(document for document in as_of if document is not None)

    def _read(self, paths: Collection[str], read: ReadAll) -> dict[str, Document]:
        found = read(self._documents.find, paths)
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


def in_parallel(find: Callable[[str], T], paths: Collection[str]) -> Mapping[str, T]:
    """As fast as Vault answers: for whoever waits."""
    if len(paths) < 2:
        return {path: find(path) for path in paths}
    with ThreadPoolExecutor(min(_READERS, len(paths)), thread_name_prefix="vault-kv") as readers:
        return dict(zip(paths, readers.map(find, paths), strict=True))


def one_by_one(pause: Pause) -> ReadAll:
    """For a thread that must let others run."""

    def read(find: Callable[[str], T], paths: Collection[str]) -> Mapping[str, T]:
        return {path: find(path) for path in paced(paths, pause)}

    return read
