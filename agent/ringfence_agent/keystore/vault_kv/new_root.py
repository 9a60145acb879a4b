"""A new root for a store in Vault: every slot, seal, tag and sum again, in one change (see `rows.new_root`).

Documents are tagged under the root, so all of them are written again. What they become is written to documents of its
own first; the head, tagged under the new root, commits it and says which version of each document it replaces. Whoever
opens the store with the new root writes out what is left to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ringfence_agent.keystore.authenticator import Ledger
from ringfence_agent.keystore.rows.changes import SEVERAL_KEYS
from ringfence_agent.keystore.rows.kinds import SLOTTED_VERSION
from ringfence_agent.keystore.rows.new_root import new_records, sealed_under
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.vault_kv.documents import VaultDocuments
from ringfence_agent.keystore.vault_kv.head import Redo
from ringfence_agent.keystore.vault_kv.index import KeyIndex, in_parallel
from ringfence_agent.keystore.vault_kv.journal import Journal
from ringfence_agent.keystore.vault_kv.rows import (
    OWNERS,
    TOKENS,
    KeyRecord,
    PolicyRecord,
    key_path,
    new_policy_path,
    tokens_body,
    tokens_of,
)
from ringfence_agent.keystore.vault_kv.snapshot import verified
from ringfence_zones.errors import StoreUnavailableError


def give_new_root(documents: VaultDocuments, old: Records, journal: Journal, index: KeyIndex) -> None:
    """The handle that these belong to is of no use afterwards. Raises InputError when a slot's protector is not at
    hand, StoreTamperedError, StoreUnavailableError.
    """
    head = journal.read()
    old.adopt_slots(head.header.protector_header)
    keys, policies = index.read_as_of(head, in_parallel)
    verified(head, keys, policies, old)
    new = new_records(old, old.protection.header)
    again = documents.under(new.protection.root)
    ledger = Ledger(writes=old.open_ledger(head.header.ledger).writes + 1)
    ledger.add(new.slots_element(new.protection.header))
    after = head.successor()
    after.format = SLOTTED_VERSION
    after.policy = _write_policies(policies, again, new, ledger)
    after.pending = [
        *_resealed(keys, documents, old, new, ledger),
        *_other_documents(documents),
    ]
    after.master_keys = [new.seal_master_key(old.open_master_key(row)) for row in head.master_keys]
    after.note_change(ledger.writes, SEVERAL_KEYS)
    content = new.protection.header.to_bytes(new.protection.root)
    after.header = head.header._replace(protector_header=content, ledger=new.seal_ledger(ledger))
    if not Journal(again, new).commit_whole(after):
        raise StoreUnavailableError(
            f"key store {documents.label} was changed at the same time; nothing of it has a new root",
            hint="stop every key server on it, then run the command again",
        )


def _write_policies(
    policies: Sequence[PolicyRecord], again: VaultDocuments, new: Records, ledger: Ledger
) -> str | None:
    """Under names that only the head will say; the newest one's."""
    path: str | None = None
    for record in policies:
        body = replace(record, previous=path).to_body()
        path = new_policy_path(record.row.revision)
        again.write(path, body, 0)
        ledger.add(new.element(record.row))
        ledger.revision = record.row.revision
    return path


def _resealed(
    keys: Sequence[KeyRecord], documents: VaultDocuments, old: Records, new: Records, ledger: Ledger
) -> list[Redo]:
    pending: list[Redo] = []
    for record in keys:
        rows = [row._replace(sealed=sealed_under(new.protection.root, old, row)) for row in record.versions]
        ledger.add(new.element(record.key))
        for row in rows:
            ledger.add(new.element(row))
        path = key_path(record.key.name)
        pending.append(_over(documents, path, KeyRecord(record.key, rows).to_body()))
    return pending


def _other_documents(documents: VaultDocuments) -> list[Redo]:
    """Tokens stay good. Who is open is nobody's business any more: nobody may be."""
    pending = []
    for name in documents.list_names(TOKENS):
        path = f"{TOKENS}/{name}"
        pending.append(_over(documents, path, tokens_body(tokens_of(documents.find(path)))))
    if documents.find(OWNERS) is not None:
        pending.append(_over(documents, OWNERS, {"open": {}}))
    return pending


def _over(documents: VaultDocuments, path: str, body: dict[str, object]) -> Redo:
    found = documents.find(path)
    if found is None:
        raise documents.tampered(f"its document {path} is missing")
    return ["over", path, body, found.version]
