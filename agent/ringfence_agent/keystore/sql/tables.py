"""The store's tables: columns for queries. What their rows are is said in `rows.kinds`.

The statements that make the tables are each engine's own, written out and never generated. Any change to tables is a
new SCHEMA_VERSION with a migration (packaging/decisions/0004-embedded-store-format.md).

Servers keep text as its UTF-8 bytes: names compare byte for byte there, whatever the database's collation, character
set or rules about trailing blanks, and a NUL is a character like any other.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Dialect,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    select,
)

from ringfence_agent.keystore.rows.kinds import OLDEST_USED, TableRows


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

_OLDEST_TABLES = (STORE_HEADER, ZONE_KEY, KEY_VERSION, POLICY_REVISION)
_TABLES = (*_OLDEST_TABLES, TOKEN_STATE, TOKEN_MASTER_KEY)


def read_tables(connection: Connection, version: int) -> TableRows:
    """Everything that a snapshot is made of, in the connection's transaction: that is over soon, whatever is done with
    the rows. `version` is that of the format.
    """
    there = _TABLES if version >= OLDEST_USED else _OLDEST_TABLES
    return {table.name: connection.execute(select(table).order_by(*table.primary_key)).all() for table in there}
