"""Everything about a store that is particular to PostgreSQL (15 and newer, through psycopg 3).

- The tables are in a schema of their own, `ringfence`; it and nothing else is searched for names.
- `synchronous_commit` is on for every session, and a server with `fsync=off` is refused.
- An owner is alive while a session holds a shared advisory lock on its number. Shared, because after a reconnect the
  session before may linger for a moment. The server's keep-alive ends sessions of dead machines within 15 seconds.
- A connection pooler between the two must keep sessions apart: one that hands a session on after each transaction
  (PgBouncer's transaction mode) breaks these locks.
"""

from __future__ import annotations

import functools
from typing import Any

from sqlalchemy import Connection, text

from ringfence_agent.keystore.rows.changes import WRITE_WAIT_S
from ringfence_agent.keystore.sql.server_database import CONNECT_WAIT_S, Columns, ServerDatabase
from ringfence_agent.keystore.sql.server_errors import Cause
from ringfence_agent.keystore.sql.server_schema import TABLES, Kind
from ringfence_zones.errors import ConfigError, StoreUnavailableError

_OLDEST = 150_000
_SCHEMA = "ringfence"
_CREATION_LOCK = 0x52464B5300000001  # "RFKS", then what it is for
_WAIT_MS = round(WRITE_WAIT_S * 1000)
# A statement is a row or a few thousand; what takes longer waits for something that does not come.
_SESSION = {
    "application_name": "ringfence",
    "search_path": f"{_SCHEMA},pg_temp",
    "statement_timeout": 3 * _WAIT_MS,
    "lock_timeout": _WAIT_MS,
    "idle_in_transaction_session_timeout": 3 * _WAIT_MS,
    "client_encoding": "UTF8",
    "tcp_keepalives_idle": 5,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 2,
}
# By then the server has ended the statement itself, unless it stands still: TCP knows nothing of that.
_SOCKET_WAIT_S = 3 * WRITE_WAIT_S + 1
_MAX_REASON_CHARS = 300
_CAUSES = {
    "55P03": Cause.LOCKED,
    "57014": Cause.LOCKED,
    "40001": Cause.CONFLICT,
    "40P01": Cause.CONFLICT,
    "53100": Cause.FULL,
    "25006": Cause.READ_ONLY,
    "28000": Cause.REFUSED,
    "28P01": Cause.REFUSED,
    "3D000": Cause.NO_DATABASE,
    "42501": Cause.NO_RIGHTS,
    # A table, column or schema that is gone; rows that clash with ones the code could not see; broken pages.
    **dict.fromkeys(("42P01", "42703", "3F000", "23505", "23502", "XX001", "XX002"), Cause.DAMAGED),
}
# The first that is in the reason counts; a reason with none of them is a server that was not reached.
_CAUSES_BY_TEXT: dict[str, Cause | None] = {
    "password authentication failed": Cause.REFUSED,
    "no password supplied": Cause.REFUSED,
    "no pg_hba.conf entry": Cause.REFUSED,
    "Peer authentication failed": Cause.REFUSED,
    'FATAL:  role "': Cause.REFUSED,
    'FATAL:  database "': Cause.NO_DATABASE,
    # It starts, stops, is not yet a primary again, or has no session left.
    **dict.fromkeys(
        ("starting up", "shutting down", "recovery mode", "not yet accepting", "too many clients", "connection slots"),
        Cause.UNREACHABLE,
    ),
    "FATAL:": None,
    "server requested": None,
    # The connection broke while TLS was agreed on.
    "SSL SYSCALL error": Cause.UNREACHABLE,
    **dict.fromkeys(("SSL error", "support SSL", "certificate"), Cause.NO_TLS),
}
_TYPES = {Kind.NUMBER: "bigint", Kind.NAME: "bytea", Kind.BYTES: "bytea"}


class PostgresqlDatabase(ServerDatabase):
    """See `database.Database`."""

    dialect = "postgresql+psycopg"
    types = _TYPES
    catalogue_types = _TYPES

    def _connect(self) -> Any:
        session = " ".join(f"-c {name}={value}" for name, value in _SESSION.items())
        connection = _connection_class().connect(
            host=self.address.socket or self.address.host,
            port=self.address.port,
            user=self.address.user,
            dbname=self.address.database,
            password=self._password.reveal().decode(errors="surrogateescape") if self._password else None,
            passfile="/dev/null",  # only the file that was named; not one that libpq looks for
            connect_timeout=CONNECT_WAIT_S,
            tcp_user_timeout=_WAIT_MS,
            keepalives_idle=5,
            keepalives_interval=5,
            keepalives_count=2,
            gssencmode="disable",
            options=session,
            **self._tls(),
        )
        try:
            _make_durable(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _tls(self) -> dict[str, Any]:
        if not self.address.verify_tls:
            return {"sslmode": "disable", "require_auth": "!password"}  # no password in clear, whatever the server asks
        ca = self.address.tls_ca
        return {
            "sslmode": "verify-full",
            "sslrootcert": str(ca) if ca else "system",
            "ssl_min_protocol_version": "TLSv1.2",
        }

    def _check_server(self, connection: Connection) -> None:
        version, fsync, full_page_writes, standby = connection.execute(
            text(
                "SELECT current_setting('server_version_num')::int, current_setting('fsync'),"
                " current_setting('full_page_writes'), pg_is_in_recovery()"
            )
        ).one()
        if version < _OLDEST:
            raise ConfigError(
                f"key store {self.label} is on PostgreSQL {version // 10_000}; this release needs 15 or newer"
            )
        if fsync != "on" or full_page_writes != "on":
            raise ConfigError(
                f"the server of key store {self.label} runs with fsync or full_page_writes off:"
                " a power failure would lose keys that data was already encrypted with",
                hint="switch both on in postgresql.conf and restart the server",
            )
        if standby:
            raise StoreUnavailableError(
                f"the server of key store {self.label} is a standby, which can neither be written nor be trusted to"
                " know the newest keys",
                hint="name the primary in --keystore",
            )

    def _catalogued(self, connection: Connection) -> Columns:
        found = connection.execute(
            text(
                "SELECT table_name, column_name, data_type, is_nullable = 'YES' FROM information_schema.columns"
                " WHERE table_schema = :schema"
            ),
            {"schema": _SCHEMA},
        )
        return {(table, column): (kind, nullable) for table, column, kind, nullable in found}

    def _find_foreign(self, connection: Connection) -> list[str]:
        found = connection.execute(
            text(
                "SELECT c.relname, c.relpersistence <> 'p' OR c.relkind <> 'r' OR c.relhasrules OR c.relrowsecurity"
                " OR EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)"
                " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname = :schema AND c.relkind IN ('r', 'v', 'm', 'f', 'p')"
            ),
            {"schema": _SCHEMA},
        )
        return [f"{name} has a trigger, a rule or row security, or is no ordinary table" for name, odd in found if odd]

    def _create_statements(self) -> list[str]:
        tables = [f"CREATE TABLE IF NOT EXISTS {name} ({spec.definitions(_TYPES)})" for name, spec in TABLES.items()]
        return [f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}", *tables]

    def _lock_creation(self, connection: Connection) -> None:
        with connection.begin():
            connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": _CREATION_LOCK})

    def _lock_owner(self, connection: Connection) -> None:
        with connection.begin():
            connection.execute(text("SELECT pg_advisory_lock_shared(:number)"), {"number": self.owner_id})

    def is_alive(self, connection: Connection, owner_id: int) -> bool:
        """See Database. pg_locks shows a 64-bit number as two halves, `objsubid` 1."""
        found = connection.execute(
            text(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted"
                " AND classid = CAST(:high AS oid) AND objid = CAST(:low AS oid) AND objsubid = 1"
                " AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))"
            ),
            {"high": owner_id >> 32, "low": owner_id & 0xFFFFFFFF},
        )
        return bool(found.scalar_one())

    def _says_lost(self, original: BaseException | None) -> bool:
        state = getattr(original, "sqlstate", None) or ""
        # Connection exceptions; shut down, crashed and starting up; a session that was idle in a transaction too long.
        return state.startswith("08") or state in {"57P01", "57P02", "57P05", "25P03"}

    def _cause(self, original: BaseException) -> tuple[Cause | None, str]:
        state = getattr(original, "sqlstate", None)
        if state is not None:
            return _CAUSES.get(state), f"SQLSTATE {state}"
        # A connection that was never made: libpq gives text alone. It names host and reason, and never the password.
        reason = (str(original).strip().splitlines() or [type(original).__name__])[0][:_MAX_REASON_CHARS]
        told = reason.rpartition("failed: ")[2]  # without the host, whose name is anything
        for words, cause in _CAUSES_BY_TEXT.items():
            if words in told:
                return cause, reason
        return Cause.UNREACHABLE, reason


@functools.cache
def _connection_class() -> Any:
    import psycopg  # noqa: PLC0415 -- the extra `sql`: absent from a key server with a store of its own

    class BoundedConnection(psycopg.Connection[Any]):
        """Waits for a server that stands still (a stopped machine, a hung disk) for a bounded time, then is closed."""

        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            try:
                return super().wait(gen, interval, timeout or _SOCKET_WAIT_S)
            except psycopg.OperationalError:
                if self.info.transaction_status is psycopg.pq.TransactionStatus.ACTIVE:
                    self.pgconn.finish()  # what is still to come would be taken for the next statement's answer
                raise

    return BoundedConnection


def _make_durable(connection: Any) -> None:
    """A commit that is acknowledged is on disk here, and on synchronous standbys when there are any."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('synchronous_commit')")
        if cursor.fetchone()[0] not in ("on", "remote_apply"):
            cursor.execute("SET SESSION synchronous_commit = on")
    connection.commit()
