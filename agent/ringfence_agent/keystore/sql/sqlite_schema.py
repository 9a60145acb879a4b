"""The exact statements that make a store's tables in SQLite, by version of the format.

They are part of the file format (packaging/decisions/0004-embedded-store-format.md): a store whose schema differs from
them by a byte, or holds a trigger, view or index besides, is refused at open.
"""

from __future__ import annotations

from collections.abc import Mapping

APPLICATION_ID = 0x52464B53  # "RFKS" at offset 68 of the file: file(1) and the store itself tell it from any other

_VERSION_1 = {
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
_NEW_IN_VERSION_2 = {
    "key_change": (
        "CREATE TABLE key_change (number INTEGER NOT NULL PRIMARY KEY, key_name TEXT, tag BLOB NOT NULL) STRICT"
    ),
    "unconfirmed_change": (
        "CREATE TABLE unconfirmed_change (key_name TEXT NOT NULL, version INTEGER NOT NULL, made_by TEXT NOT NULL,"
        " request_digest BLOB NOT NULL, owner_id INTEGER NOT NULL, made_ms INTEGER NOT NULL, tag BLOB NOT NULL,"
        " PRIMARY KEY (key_name, version)) STRICT, WITHOUT ROWID"
    ),
    "token_state": (
        "CREATE TABLE token_state (id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1), next_sequence INTEGER NOT NULL,"
        " newest_key_id INTEGER NOT NULL, changes INTEGER NOT NULL, tag BLOB NOT NULL) STRICT"
    ),
    "token_master_key": (
        "CREATE TABLE token_master_key (key_id INTEGER NOT NULL PRIMARY KEY, created_ms INTEGER NOT NULL,"
        " expires_ms INTEGER NOT NULL, sealed BLOB NOT NULL) STRICT"
    ),
    "delegation_token": (
        "CREATE TABLE delegation_token (sequence INTEGER NOT NULL PRIMARY KEY, identifier BLOB NOT NULL,"
        " expires_ms INTEGER NOT NULL, tag BLOB NOT NULL) STRICT"
    ),
}

_VERSION_2 = _VERSION_1 | _NEW_IN_VERSION_2

STATEMENTS: Mapping[int, Mapping[str, str]] = {1: _VERSION_1, 2: _VERSION_2, 3: _VERSION_2}
"""All statements of each version of the format, by the table's name."""

UPGRADES: Mapping[int, Mapping[str, str]] = {1: _NEW_IN_VERSION_2, 2: {}}
"""What turns the tables of one version into those of the next."""
