"""The tables of the flow memory, and the statements that make them on each engine.

    flow_state        one row: the number of this format, whose memory it is, its epoch, and of which run of revisions
                      with flows; writers take turns by it
    flow_outstanding  EDEKs that were made and not opened yet, by IV
    flow_first        who opened which EDEK first, and as what; kept for minutes
    flow_label        what sessions are labelled with, and until when
    flow_grant        what sessions are granted beyond the policy's flows (`grants`)

Names and sessions rest as bytes. Nothing is sealed, and nothing but grants is tagged: there is no key in it, and
whoever can write it can make the rules forget, not read a file. It is no part of the key store's format and in no
backup: lost, it is begun anew. So a release with other tables drops these when it finds an older number, and one that
finds a newer number leaves them alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, Table

FORMAT = 1
SESSION_BYTES = 32

_KINDS = ("iv", "session", "zone", "name", "document")
_SQLITE = {"number": "INTEGER", **dict.fromkeys(_KINDS, "BLOB")}
_POSTGRESQL = {"number": "bigint", **dict.fromkeys(_KINDS, "bytea")}
_MARIADB = {
    "number": "BIGINT",
    "iv": "BINARY(16)",
    "session": f"BINARY({SESSION_BYTES})",
    "zone": "VARBINARY(1000)",
    "name": "VARBINARY(64)",
    "document": "BLOB",
}
_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "flow_state": {"id": "number", "format": "number", "store_id": "iv", "epoch": "number", "since_ms": "number"},
    "flow_outstanding": {"iv": "iv", "zone": "zone", "made_s": "number"},
    "flow_first": {"iv": "iv", "session": "session", "kind": "number", "opened_ms": "number"},
    "flow_label": {"session": "session", "zone": "zone", "kind": "number", "until_ms": "number"},
    "flow_grant": {
        "id": "name",
        "session": "session",
        "made_ms": "number",
        "ended_ms": "number",
        "document": "document",
        "tag": "session",
    },
}
_PRIMARY_KEYS = {
    "flow_state": "id",
    "flow_outstanding": "iv",
    "flow_first": "iv",
    "flow_label": "session, zone, kind",
    "flow_grant": "id",
}
_POSTGRESQL_SCHEMA = "ringfence_flow"


@dataclass(frozen=True, slots=True)
class FlowTables:
    """The tables as statements name them on one engine."""

    state: Table
    outstanding: Table
    first: Table
    label: Table
    grant: Table


def flow_tables(engine: str) -> FlowTables:
    """`engine` is `sqlite`, `postgresql` or `mysql`."""
    metadata = MetaData(schema=_POSTGRESQL_SCHEMA if engine == "postgresql" else None)
    made = [
        Table(
            name,
            metadata,
            *(Column(column, BigInteger if kind == "number" else LargeBinary) for column, kind in columns.items()),
        )
        for name, columns in _COLUMNS.items()
    ]
    return FlowTables(*made)


def creating_statements(engine: str) -> list[str]:
    """What makes the tables where they are not there yet."""
    types = {"sqlite": _SQLITE, "postgresql": _POSTGRESQL, "mysql": _MARIADB}[engine]
    prefix = f"{_POSTGRESQL_SCHEMA}." if engine == "postgresql" else ""
    suffix = {"sqlite": " STRICT, WITHOUT ROWID", "postgresql": "", "mysql": " ENGINE=InnoDB"}[engine]
    statements = [f"CREATE SCHEMA IF NOT EXISTS {_POSTGRESQL_SCHEMA}"] if engine == "postgresql" else []
    for name, columns in _COLUMNS.items():
        described = ", ".join(f"{column} {types[kind]} NOT NULL" for column, kind in columns.items())
        statements.append(
            f"CREATE TABLE IF NOT EXISTS {prefix}{name} ({described}, PRIMARY KEY ({_PRIMARY_KEYS[name]})){suffix}"
        )
    index = f"CREATE INDEX IF NOT EXISTS flow_outstanding_by_zone ON {prefix}flow_outstanding (zone, made_s)"
    # Of no store yet: there has to be a row for those who come first to take turns by.
    nothing = {
        "sqlite": "zeroblob(16)",
        "postgresql": "decode(repeat('00', 16), 'hex')",
        "mysql": "UNHEX(REPEAT('00', 16))",
    }
    insert = {"sqlite": "INSERT OR IGNORE", "postgresql": "INSERT", "mysql": "INSERT IGNORE"}[engine]
    on_conflict = " ON CONFLICT DO NOTHING" if engine == "postgresql" else ""
    row = (
        f"{insert} INTO {prefix}flow_state (id, format, store_id, epoch, since_ms)"
        f" VALUES (1, {FORMAT}, {nothing[engine]}, 0, 0){on_conflict}"
    )
    return [*statements, index, row]
