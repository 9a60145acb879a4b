"""Where the lease book is: beside an SQLite key store, or in the database that instances share.

`<store>.leases` is an SQLite file of its own; in PostgreSQL the tables are in the schema `ringfence_lease`, in MariaDB
beside the key store's. They are made when a lease is first asked for. A key store in Vault has none.
"""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import BigInteger, Column, Connection, LargeBinary, MetaData, Table, TextClause, text

from ringfence_agent.keystore.beside import open_beside
from ringfence_agent.keystore.sql.database import Called
from ringfence_agent.keystore.vault_kv.address import is_vault_uri
from ringfence_agent.leases.book import Clock, LeaseBook
from ringfence_agent.leases.terms import Instant
from ringfence_zones.errors import UnsupportedByStoreError

SUFFIX = ".leases"
_CALLED = Called("lease book", "drop it while the key servers are stopped: it holds no key, and is made anew")
_SCHEMA = "ringfence_lease"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BYTES = {
    "sqlite": ("BLOB", "BLOB", "BLOB"),
    "postgresql": ("bytea", "bytea", "bytea"),
    "mysql": ("VARBINARY(64)", "VARBINARY(200)", "VARBINARY(200)"),
}
# What tells the server's clock from that of another one behind the same address, and the time in milliseconds.
_SERVER_TIME = {
    "postgresql": text(
        "SELECT CAST(pg_postmaster_start_time() AS text), CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
    ),
    "mysql": text("SELECT @@hostname, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000"),
}


def open_lease_book(uri: str, password_file: Path | None) -> LeaseBook:
    """The book of the key store at `uri`, made when it is not there. Blocks.

    Raises UnsupportedByStoreError for a store in Vault, InputError, ConfigError, and others of its family.
    """
    if is_vault_uri(uri):
        raise UnsupportedByStoreError(
            "a key store in Vault keeps no leases",
            hint="run one agent, or keep the keys in PostgreSQL or MariaDB",
        )
    engine, session = open_beside(uri, password_file, SUFFIX, _creating_statements, _CALLED)
    metadata = MetaData(schema=_SCHEMA if engine == "postgresql" else None)
    leases = Table(
        "lease",
        metadata,
        *(Column(name, LargeBinary) for name in ("name", "holder", "clock")),
        *(Column(name, BigInteger) for name in ("epoch", "ttl_ms", "renewed_ms")),
    )
    turns = Table("lease_turn", metadata, Column("id", BigInteger))
    return LeaseBook(session, leases, turns, _clock(engine))


def _creating_statements(engine: str) -> list[str]:
    prefix = f"{_SCHEMA}." if engine == "postgresql" else ""
    suffix = {"sqlite": " STRICT, WITHOUT ROWID", "postgresql": "", "mysql": " ENGINE=InnoDB"}[engine]
    number = "INTEGER" if engine == "sqlite" else "bigint"
    name, holder, clock = _BYTES[engine]
    columns = ", ".join(
        f"{column} {kind} NOT NULL"
        for column, kind in (
            *(("name", name), ("holder", holder), ("epoch", number), ("ttl_ms", number)),
            *(("clock", clock), ("renewed_ms", number)),
        )
    )
    insert = {"sqlite": "INSERT OR IGNORE", "postgresql": "INSERT", "mysql": "INSERT IGNORE"}[engine]
    on_conflict = " ON CONFLICT DO NOTHING" if engine == "postgresql" else ""
    return [
        *([f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}"] if engine == "postgresql" else []),
        f"CREATE TABLE IF NOT EXISTS {prefix}lease ({columns}, PRIMARY KEY (name)){suffix}",
        f"CREATE TABLE IF NOT EXISTS {prefix}lease_turn (id {number} NOT NULL, PRIMARY KEY (id)){suffix}",
        f"{insert} INTO {prefix}lease_turn (id) VALUES (1){on_conflict}",
    ]


def _clock(engine: str) -> Clock:
    statement = _SERVER_TIME.get(engine)
    return _machine_time if statement is None else lambda connection: _server_time(connection, statement)


def _machine_time(_connection: Connection) -> Instant:
    """Since this machine started: the same for every process on it, never set, not stopped while it sleeps."""
    return Instant(_BOOT_ID.read_bytes().strip(), time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000)


def _server_time(connection: Connection, statement: TextClause) -> Instant:
    clock, milliseconds = connection.execute(statement).one()
    return Instant(clock if isinstance(clock, bytes) else str(clock).encode(), int(milliseconds))
