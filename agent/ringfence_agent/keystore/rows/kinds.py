"""The kinds of rows that a store has, with the encoding that tags, seals and the ledger authenticate.

They are the same wherever they rest: in tables of an SQL engine or in documents. Any change to them is a new
SCHEMA_VERSION with a migration (packaging/decisions/0004-embedded-store-format.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from ringfence_agent.keystore.rows.encoding import encode_row

SCHEMA_VERSION = 3
"""The newest version, which new stores have."""
OLDEST_USED = 2
"""Stores of older versions are upgraded to this one when they are opened."""
SLOTTED_VERSION = 3
"""The first version with slots. A store of version 2 becomes one when its slots are changed for the first time."""
SLOTTED = "slots"
"""What a store of that version says in `protector`, unless it was made before; see `HeaderRow`."""
# What seals of material and ledger are bound to. Version 2 added tables and changed no row of version 1.
SEAL_VERSION = 1

TableRow = tuple[str, Mapping[str, object]]
"""A row for an insert, with the name of its table."""
TableRows = Mapping[str, Sequence[Sequence[Any]]]
"""All rows of the kinds that a snapshot has, by table, each in the order of `RowKind.columns`."""


class ZoneKeyRow(NamedTuple):
    """A key. Live when `deleted_ms` is None; its live versions are `first_version` to `next_version - 1`.

    `attributes` is a JSON object of strings, keys sorted, no spaces. Times are epoch milliseconds.
    """

    name: str
    cipher: str
    length_bits: int
    created_ms: int
    first_version: int
    next_version: int
    deleted_ms: int | None
    description: str | None
    attributes: str

    def encode(self) -> bytes:
        """What tag and ledger are computed over."""
        return encode_row("zone_key", *self)


class KeyVersionRow(NamedTuple):
    """One version, never changed after its insert. The seal authenticates the row itself, so it has no tag."""

    key_name: str
    version: int
    cipher: str
    length_bits: int
    created_ms: int
    sealed: bytes

    def encode(self) -> bytes:
        """What the ledger is computed over."""
        return encode_row("key_version", *self)


class PolicyRow(NamedTuple):
    """One published policy, never changed after its insert."""

    revision: int
    document: bytes
    published_by: str
    published_ms: int

    def encode(self) -> bytes:
        """What tag and ledger are computed over."""
        return encode_row("policy_revision", *self)


class HeaderRow(NamedTuple):
    """The one row that describes the store. `ledger` is sealed beside the other fields but `protector_header`.

    `protector` is the word the store was made with, `file` before there were slots; it never changes.
    """

    store_id: bytes
    created_ms: int
    protector: str
    protector_header: bytes
    ledger: bytes

    def binding(self) -> bytes:
        """What the ledger's seal is bound to.

        The protectors' header is left out on purpose: that a ledger opens although no slot recognises the root key
        is how an edited header is told from a wrong root key. Slots are a share of the ledger's sum.
        """
        return encode_row("store_header", SEAL_VERSION, self.store_id, self.created_ms, self.protector)


class KeyChangeRow(NamedTuple):
    """One transaction: its number in the ledger's count of writes, and the key it changed.

    The name is empty when it changed no key (a policy), and None when it changed more than one (an import).
    """

    number: int
    key_name: str | None

    def encode(self) -> bytes:
        """What the tag is computed over."""
        return encode_row("key_change", *self)


class UnconfirmedRow(NamedTuple):
    """A version whose answer is not known to have left."""

    key_name: str
    version: int
    made_by: str
    request_digest: bytes
    owner_id: int
    made_ms: int

    def encode(self) -> bytes:
        """What the tag is computed over."""
        return encode_row("unconfirmed_change", *self)


class TokenStateRow(NamedTuple):
    """The one row of numbers that never go back: the next token's, the newest master key's, of changes so far."""

    next_sequence: int
    newest_key_id: int
    changes: int

    def encode(self) -> bytes:
        """What the tag is computed over."""
        return encode_row("token_state", *self)


class TokenMasterKeyRow(NamedTuple):
    """A master key; the seal authenticates the row itself, so it has no tag."""

    key_id: int
    created_ms: int
    expires_ms: int
    sealed: bytes


class TokenRow(NamedTuple):
    """An issued token."""

    sequence: int
    identifier: bytes
    expires_ms: int

    def encode(self) -> bytes:
        """What the tag is computed over."""
        return encode_row("delegation_token", *self)


RowT = TypeVar("RowT", HeaderRow, ZoneKeyRow, KeyVersionRow, PolicyRow, TokenStateRow, TokenMasterKeyRow)


@dataclass(frozen=True, slots=True)
class RowKind(Generic[RowT]):
    """A kind of row that snapshots and backups have: the name of its table, and the table's columns in order."""

    table: str
    row: type[RowT]
    columns: tuple[str, ...]

    def of(self, values: Mapping[str, Any]) -> RowT:
        """The row with these values, by column."""
        return self.row(*(values[name] for name in self.row._fields))


STORE_HEADER = RowKind("store_header", HeaderRow, ("id", *HeaderRow._fields))
ZONE_KEY = RowKind("zone_key", ZoneKeyRow, (*ZoneKeyRow._fields, "tag"))
KEY_VERSION = RowKind("key_version", KeyVersionRow, KeyVersionRow._fields)
POLICY_REVISION = RowKind("policy_revision", PolicyRow, (*PolicyRow._fields, "tag"))
TOKEN_STATE = RowKind("token_state", TokenStateRow, ("id", *TokenStateRow._fields, "tag"))
TOKEN_MASTER_KEY = RowKind("token_master_key", TokenMasterKeyRow, TokenMasterKeyRow._fields)

BACKED_UP: Mapping[str, tuple[str, ...]] = {
    kind.table: kind.columns
    for kind in (STORE_HEADER, ZONE_KEY, KEY_VERSION, POLICY_REVISION, TOKEN_STATE, TOKEN_MASTER_KEY)
}
"""The tables of a backup with their columns. What is not among them means nothing to another time (`file_format`)."""
