"""The store's tables: columns for queries, and rows with the encoding that tags, seals and the ledger authenticate.

The statements that make the tables are each engine's own, written out and never generated. Any change to tables is a
new SCHEMA_VERSION with a migration (packaging/decisions/0004-embedded-store-format.md).

Servers keep text as its UTF-8 bytes: names compare byte for byte there, whatever the database's collation, character
set or rules about trailing blanks, and a NUL is a character like any other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Column, Dialect, LargeBinary, MetaData, Table, Text, TypeDecorator

from ringfence_agent.keystore.sql.row_encoding import encode_row

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


class _Utf8(TypeDecorator[str]):
    """Text as bytes. Bytes that are no UTF-8 become text that no tag was ever made for."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002 -- SQLAlchemy's signature
        return None if value is None else value.encode()

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else bytes(value).decode(errors="surrogateescape")


_TEXT = Text().with_variant(_Utf8(), "postgresql", "mysql", "mariadb")
_METADATA = MetaData()

STORE_HEADER = Table(
    "store_header",
    _METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("store_id", LargeBinary),
    Column("created_ms", BigInteger),
    Column("protector", _TEXT),
    Column("protector_header", LargeBinary),
    Column("ledger", LargeBinary),
)
ZONE_KEY = Table(
    "zone_key",
    _METADATA,
    Column("name", _TEXT, primary_key=True),
    Column("cipher", _TEXT),
    Column("length_bits", BigInteger),
    Column("created_ms", BigInteger),
    Column("first_version", BigInteger),
    Column("next_version", BigInteger),
    Column("deleted_ms", BigInteger),
    Column("description", _TEXT),
    Column("attributes", _TEXT),
    Column("tag", LargeBinary),
)
KEY_VERSION = Table(
    "key_version",
    _METADATA,
    Column("key_name", _TEXT, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("cipher", _TEXT),
    Column("length_bits", BigInteger),
    Column("created_ms", BigInteger),
    Column("sealed", LargeBinary),
)
POLICY_REVISION = Table(
    "policy_revision",
    _METADATA,
    Column("revision", BigInteger, primary_key=True),
    Column("document", LargeBinary),
    Column("published_by", _TEXT),
    Column("published_ms", BigInteger),
    Column("tag", LargeBinary),
)
KEY_CHANGE = Table(
    "key_change",
    _METADATA,
    Column("number", BigInteger, primary_key=True),
    Column("key_name", _TEXT),
    Column("tag", LargeBinary),
)
UNCONFIRMED_CHANGE = Table(
    "unconfirmed_change",
    _METADATA,
    Column("key_name", _TEXT, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("made_by", _TEXT),
    Column("request_digest", LargeBinary),
    Column("owner_id", BigInteger),
    Column("made_ms", BigInteger),
    Column("tag", LargeBinary),
)
TOKEN_STATE = Table(
    "token_state",
    _METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("next_sequence", BigInteger),
    Column("newest_key_id", BigInteger),
    Column("changes", BigInteger),
    Column("tag", LargeBinary),
)
TOKEN_MASTER_KEY = Table(
    "token_master_key",
    _METADATA,
    Column("key_id", BigInteger, primary_key=True),
    Column("created_ms", BigInteger),
    Column("expires_ms", BigInteger),
    Column("sealed", LargeBinary),
)
DELEGATION_TOKEN = Table(
    "delegation_token",
    _METADATA,
    Column("sequence", BigInteger, primary_key=True),
    Column("identifier", LargeBinary),
    Column("expires_ms", BigInteger),
    Column("tag", LargeBinary),
)


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
