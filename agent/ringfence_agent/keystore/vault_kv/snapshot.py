"""One committed state of the store as rows of the SQL stores, so that what verifies and backs up those does it here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ringfence_agent.keystore.snapshot import Pause
from ringfence_agent.keystore.sql.records import Records
from ringfence_agent.keystore.sql.snapshot import Rows, SqlSnapshot
from ringfence_agent.keystore.sql.tables import (
    KEY_VERSION,
    POLICY_REVISION,
    STORE_HEADER,
    TOKEN_MASTER_KEY,
    TOKEN_STATE,
    ZONE_KEY,
)
from ringfence_agent.keystore.vault_kv.head import Head
from ringfence_agent.keystore.vault_kv.index import KeyIndex, in_parallel, one_by_one
from ringfence_agent.keystore.vault_kv.journal import Journal
from ringfence_agent.keystore.vault_kv.rows import KeyRecord, PolicyRecord


def read_snapshot(journal: Journal, index: KeyIndex, records: Records, pause: Pause | None) -> SqlSnapshot:
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
) -> SqlSnapshot:
    """That these are all that the head's ledger counts. Raises StoreTamperedError."""
    return SqlSnapshot(_rows(head, keys, policies, records), head.format, records, pause)


def _rows(head: Head, keys: Sequence[KeyRecord], policies: Sequence[PolicyRecord], records: Records) -> Rows:
    """Rows by table, in the order of its columns. Documents were checked, so tags are made anew."""
    zone_keys: list[tuple[Any, ...]] = [(*record.key, records.tag(record.key)) for record in keys]
    return {
        STORE_HEADER.name: [(1, *head.header)],
        ZONE_KEY.name: zone_keys,
        KEY_VERSION.name: [tuple(row) for record in keys for row in record.versions],
        POLICY_REVISION.name: [(*record.row, records.tag(record.row)) for record in policies],
        TOKEN_STATE.name: [(1, *head.tokens, records.tag(head.tokens))],
        TOKEN_MASTER_KEY.name: [tuple(key) for key in head.master_keys],
    }
