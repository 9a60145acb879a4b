"""The tables of a store in a database server: one description, from which each engine's statements are written.

It is the same format as in an SQLite file (packaging/decisions/0004-embedded-store-format.md), except that text rests
as its UTF-8 bytes and that the version of the format is a column of the header.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a column holds. A NAME is at most 1,000 bytes and can be part of a key."""

    NUMBER = "number"
    NAME = "name"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class ServerTable:
    """Columns in order, the ones of the primary key, and the ones that may be NULL."""

    columns: Mapping[str, Kind]
    primary_key: tuple[str, ...]
    nullable: frozenset[str] = frozenset()

    def definitions(self, types: Mapping[Kind, str]) -> str:
        """What stands between the parentheses of CREATE TABLE."""
        lines = [
            f"{name} {types[kind]}{'' if name in self.nullable else ' NOT NULL'}" for name, kind in self.columns.items()
        ]
        return ", ".join([*lines, f"PRIMARY KEY ({', '.join(self.primary_key)})"])


_NUMBER, _NAME, _BYTES = Kind.NUMBER, Kind.NAME, Kind.BYTES

TABLES: Mapping[str, ServerTable] = {
    "store_header": ServerTable(
        {
            "id": _NUMBER,
            "format": _NUMBER,
            "store_id": _BYTES,
            "created_ms": _NUMBER,
            "protector": _BYTES,
            "protector_header": _BYTES,
            "ledger": _BYTES,
        },
        ("id",),
    ),
    "zone_key": ServerTable(
        {
            "name": _NAME,
            "cipher": _BYTES,
            "length_bits": _NUMBER,
            "created_ms": _NUMBER,
            "first_version": _NUMBER,
            "next_version": _NUMBER,
            "deleted_ms": _NUMBER,
            "description": _BYTES,
            "attributes": _BYTES,
            "tag": _BYTES,
        },
        ("name",),
        frozenset({"deleted_ms", "description"}),
    ),
    "key_version": ServerTable(
        {
            "key_name": _NAME,
            "version": _NUMBER,
            "cipher": _BYTES,
            "length_bits": _NUMBER,
            "created_ms": _NUMBER,
            "sealed": _BYTES,
        },
        ("key_name", "version"),
    ),
    "policy_revision": ServerTable(
        {"revision": _NUMBER, "document": _BYTES, "published_by": _BYTES, "published_ms": _NUMBER, "tag": _BYTES},
        ("revision",),
    ),
    "key_change": ServerTable(
        {"number": _NUMBER, "key_name": _NAME, "tag": _BYTES}, ("number",), frozenset({"key_name"})
    ),
    "unconfirmed_change": ServerTable(
        {
            "key_name": _NAME,
            "version": _NUMBER,
            "made_by": _BYTES,
            "request_digest": _BYTES,
            "owner_id": _NUMBER,
            "made_ms": _NUMBER,
            "tag": _BYTES,
        },
        ("key_name", "version"),
    ),
    "token_state": ServerTable(
        {"id": _NUMBER, "next_sequence": _NUMBER, "newest_key_id": _NUMBER, "changes": _NUMBER, "tag": _BYTES}, ("id",)
    ),
    "token_master_key": ServerTable(
        {"key_id": _NUMBER, "created_ms": _NUMBER, "expires_ms": _NUMBER, "sealed": _BYTES}, ("key_id",)
    ),
    "delegation_token": ServerTable(
        {"sequence": _NUMBER, "identifier": _BYTES, "expires_ms": _NUMBER, "tag": _BYTES}, ("sequence",)
    ),
}
