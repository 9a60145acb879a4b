"""One committed state of the store as rows, so that one thing verifies and backs up every store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ringfence_agent.keystore.rows.kinds import (
    KEY_VERSION,
    POLICY_REVISION,
    STORE_HEADER,
    TOKEN_MASTER_KEY,
    TOKEN_STATE,
    ZONE_KEY,
    TableRows,
)
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.rows.snapshot import RowSnapshot
from ringfence_agent.keystore.snapshot import Pause
from ringfence_agent.keystore.vault_kv.head import Head
from ringfence_agent.keystore.vault_kv.index import KeyIndex, in_parallel, one_by_one
from ringfence_agent.keystore.vault_kv.journal import Journal
from ringfence_agent.keystore.vault_kv.rows import KeyRecord, PolicyRecord


def read_snapshot(journal: Journal, index: KeyIndex, records: Records, pause: Pause | None) -> RowSnapshot:
    """The state of the newest head, verified as it rests; at full speed without a pause. Raises StoreTamperedError,
    StoreUnavailableError.
    """
    head = journal.read()
    keys, policies = index.read_as_of(head, one_by_one(pause) if pause is not None else in_parallel)
    return verified(head, keys, policies, records, pause or (lambda: None))


def verified(
    head: Head,
    keys: Sequence[KeyRecord],
    policies: Sequence[PolicyRecord],
    records: Records,
    pause: Pause = lambda: None,
) -> RowSnapshot:
    """That these are all that the head's ledger counts. Raises StoreTamperedError."""
    return RowSnapshot(_rows(head, keys, policies, records), head.format, records, pause)


def _rows(head: Head, keys: Sequence[KeyRecord], policies: Sequence[PolicyRecord], records: Records) -> TableRows:
    """Rows by table, in the order of its columns. Documents were checked, so tags are made anew."""
    zone_keys: list[tuple[Any, ...]] = [(*record.key, records.tag(record.key)) for record in keys]
    return {
        STORE_HEADER.table: [(1, *head.header)],
        ZONE_KEY.table: zone_keys,
        KEY_VERSION.table: [tuple(row) for record in keys for row in record.versions],
        POLICY_REVISION.table: [(*record.row, records.tag(record.row)) for record in policies],
        TOKEN_STATE.table: [(1, *head.tokens, records.tag(head.tokens))],
        TOKEN_MASTER_KEY.table: [tuple(key) for key in head.master_keys],
    }
