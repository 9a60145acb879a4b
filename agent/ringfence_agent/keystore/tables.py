"""The store's tables: columns for queries, and for SQLite the exact statements that make them.

The statements are part of the file format (packaging/decisions/0004-embedded-store-format.md): a store whose schema
differs from them by a byte, or holds a trigger, view or index besides, is refused at open. So they are written out
here and never generated, and any change to them is a new SCHEMA_VERSION with a migration.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table, Text

from ringfence_agent.keystore.row_encoding import encode_row

SCHEMA_VERSION = 1
APPLICATION_ID = 0x52464B53  # "RFKS" at offset 68 of the file: file(1) and the store itself tell it from any other

_METADATA = MetaData()

STORE_HEADER = Table(
    "store_header",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("store_id", LargeBinary),
    Column("created_ms", Integer),
    Column("protector", Text),
    Column("protector_header", LargeBinary),
    Column("ledger", LargeBinary),
)
ZONE_KEY = Table(
    "zone_key",
    _METADATA,
    Column("name", Text, primary_key=True),
    Column("cipher", Text),
    Column("length_bits", Integer),
    Column("created_ms", Integer),
    Column("first_version", Integer),
    Column("next_version", Integer),
    Column("deleted_ms", Integer),
    Column("description", Text),
    Column("attributes", Text),
    Column("tag", LargeBinary),
)
KEY_VERSION = Table(
    "key_version",
    _METADATA,
    Column("key_name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("cipher", Text),
    Column("length_bits", Integer),
    Column("created_ms", Integer),
    Column("sealed", LargeBinary),
)
POLICY_REVISION = Table(
    "policy_revision",
    _METADATA,
    Column("revision", Integer, primary_key=True),
    Column("document", LargeBinary),
    Column("published_by", Text),
    Column("published_ms", Integer),
    Column("tag", LargeBinary),
)

SQLITE_STATEMENTS: dict[str, str] = {
    "store_header": (
        "CREATE TABLE store_header (id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1), store_id BLOB NOT NULL,"
        " created_ms INTEGER NOT NULL, protector TEXT NOT NULL, protector_header BLOB NOT NULL,"
        " ledger BLOB NOT NULL) STRICT"
    ),
    "zone_key": (
        "CREATE TABLE zone_key (name TEXT NOT NULL PRIMARY KEY, cipher TEXT NOT NULL, length_bits INTEGER NOT NULL,"
        " created_ms INTEGER NOT NULL, first_version INTEGER NOT NULL, next_version INTEGER NOT NULL,"
        " deleted_ms INTEGER, description TEXT, attributes TEXT NOT NULL, tag BLOB NOT NULL) STRICT, WITHOUT ROWID"
    ),
    "key_version": (
        "CREATE TABLE key_version (key_name TEXT NOT NULL REFERENCES zone_key (name), version INTEGER NOT NULL,"
        " cipher TEXT NOT NULL, length_bits INTEGER NOT NULL, created_ms INTEGER NOT NULL, sealed BLOB NOT NULL,"
        " PRIMARY KEY (key_name, version)) STRICT, WITHOUT ROWID"
    ),
    "policy_revision": (
        "CREATE TABLE policy_revision (revision INTEGER NOT NULL PRIMARY KEY, document BLOB NOT NULL,"
        " published_by TEXT NOT NULL, published_ms INTEGER NOT NULL, tag BLOB NOT NULL) STRICT"
    ),
}


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
    """The one row that describes the store. `ledger` is sealed beside the other fields but `protector_header`."""

    store_id: bytes
    created_ms: int
    protector: str
    protector_header: bytes
    ledger: bytes

    def binding(self) -> bytes:
        """What the ledger's seal is bound to.

        The protector's header is left out on purpose: that a ledger opens although the header does not
        recognise the root key is how an edited header is told from a wrong root key.
        """
        return encode_row("store_header", SCHEMA_VERSION, self.store_id, self.created_ms, self.protector)
