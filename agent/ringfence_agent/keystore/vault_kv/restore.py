"""A place in Vault that a store is restored to: see `backup.targets`.

Documents are written first and the head last, so that all of it is there at once. A process killed before that leaves
documents without a head, which no server takes for a store; the same restore writes over them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ringfence_agent.keystore.protected_store import ProtectedStore
from ringfence_agent.keystore.protector import Protector
from ringfence_agent.keystore.rows.header import open_header
from ringfence_agent.keystore.rows.kinds import (
    KEY_VERSION,
    POLICY_REVISION,
    STORE_HEADER,
    TOKEN_MASTER_KEY,
    TOKEN_STATE,
    ZONE_KEY,
    KeyVersionRow,
    TableRow,
)
from ringfence_agent.keystore.vault_kv.address import VaultKvAddress
from ringfence_agent.keystore.vault_kv.documents import Body, VaultDocuments
from ringfence_agent.keystore.vault_kv.head import Head
from ringfence_agent.keystore.vault_kv.open import VaultKvPlace, is_there, open_documents
from ringfence_agent.keystore.vault_kv.rows import (
    HEAD,
    KEYS,
    TOKENS,
    KeyRecord,
    PolicyRecord,
    key_path,
    new_policy_path,
)
from ringfence_agent.vault.control import VaultControl
from ringfence_zones.errors import BackupError

_FIRST_VERSION = 1


class VaultKvTarget:
    """See RestoreTarget."""

    def __init__(self, control: VaultControl, address: VaultKvAddress) -> None:
        self.label = address.label
        self._place = VaultKvPlace(control, address)

    def is_there(self) -> bool:
        """See RestoreTarget."""
        return is_there(self._place)

    def open(self, protectors: Sequence[Protector]) -> ProtectedStore:
        """See RestoreTarget."""
        return open_documents(self._place, protectors)

    def write(self, rows: Iterable[TableRow], version: int, protectors: Sequence[Protector]) -> None:
        """See RestoreTarget."""
        tables: dict[str, list[Mapping[str, Any]]] = {}
        for table, row in rows:
            tables.setdefault(table, []).append(row)
        head = _head(tables, version)
        records = open_header(self._place, head.header, protectors, version)
        documents = self._place.documents()
        documents.use_root(records.protection.root)
        keys = {key_path(record.key.name): record.to_body() for record in _keys(tables)}
        self._require_room(documents, keys)
        for path, body in keys.items():
            raw = documents.find_raw(path)
            documents.write(path, {**body, "as_of": _FIRST_VERSION}, 0 if raw is None else raw.version)
        head.policy = _write_policies(tables, documents)
        if not documents.write(HEAD, head.to_body(), 0):
            raise self._taken("holds a key store")
        open_documents(self._place, protectors)

    def _require_room(self, documents: VaultDocuments, keys: Mapping[str, Body]) -> None:
        if documents.find_raw(HEAD) is not None:
            raise self._taken("holds a key store")
        there = {f"{KEYS}/{name}" for name in documents.list_names(KEYS)} - keys.keys()
        if there or documents.list_names(TOKENS):
            raise self._taken("has documents of another key store")

    def _taken(self, what: str) -> BackupError:
        return BackupError(
            f"{self.label} {what}: a restore never writes over one",
            hint="name a place with nothing in it, with --to vault://ringfence/CLUSTER/NAME: then nothing is lost",
        )


def _head(tables: Mapping[str, Sequence[Mapping[str, Any]]], version: int) -> Head:
    (header,) = (STORE_HEADER.of(row) for row in tables[STORE_HEADER.table])
    (tokens,) = (TOKEN_STATE.of(row) for row in tables[TOKEN_STATE.table])
    master_keys = [TOKEN_MASTER_KEY.of(row) for row in tables.get(TOKEN_MASTER_KEY.table, ())]
    return Head(version=0, format=version, header=header, tokens=tokens, master_keys=master_keys)


def _keys(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterable[KeyRecord]:
    versions: dict[str, list[KeyVersionRow]] = {}
    for row in tables.get(KEY_VERSION.table, ()):
        version = KEY_VERSION.of(row)
        versions.setdefault(version.key_name, []).append(version)
    for row in tables.get(ZONE_KEY.table, ()):
        key = ZONE_KEY.of(row)
        yield KeyRecord(key, sorted(versions.get(key.name, ()), key=lambda each: each.version))


def _write_policies(tables: Mapping[str, Sequence[Mapping[str, Any]]], documents: VaultDocuments) -> str | None:
    path: str | None = None
    rows = [POLICY_REVISION.of(row) for row in tables.get(POLICY_REVISION.table, ())]
    for policy in sorted(rows, key=lambda row: row.revision):
        body = PolicyRecord(policy, previous=path).to_body()
        path = new_policy_path(policy.revision)
        documents.write(path, body, 0)
    return path
