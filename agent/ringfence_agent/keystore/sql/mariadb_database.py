"""Everything about a store that is particular to MariaDB (10.11 and newer, through PyMySQL). MySQL is not tested.

- Tables are InnoDB and text is VARBINARY or LONGBLOB: no collation, character set or rule about trailing blanks ever
  touches a name. The session is strict, so nothing is cut off in silence.
- A server that does not put each commit on disk (`innodb_flush_log_at_trx_commit` other than 1 or 3) is refused.
- An owner is alive while a session holds GET_LOCK on its number. These locks are one server's: in a cluster that is
  written to on several nodes (Galera) every instance must use the same node.
- Creating tables commits by itself; see `server_database` for what makes that safe.
"""

from __future__ import annotations

import logging
import re
import ssl
from typing import Any

from sqlalchemy import Connection, text

from ringfence_agent.keystore.rows.changes import WRITE_WAIT_S
from ringfence_agent.keystore.sql.server_database import CONNECT_WAIT_S, Columns, ServerDatabase
from ringfence_agent.keystore.sql.server_errors import Cause
from ringfence_agent.keystore.sql.server_schema import TABLES, Kind
from ringfence_zones.errors import ConfigError, StoreUnavailableError

_log = logging.getLogger(__name__)

_OLDEST = (10, 11)
_WAIT_S = round(WRITE_WAIT_S)
# Longer than any wait of the server's own, so that it is the server that says what was waited for.
_SOCKET_WAIT_S = 3 * _WAIT_S
_SESSION = (
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_ZERO_DATE',"
    f" innodb_lock_wait_timeout = {_WAIT_S}, lock_wait_timeout = {_WAIT_S}, wait_timeout = 3600"
)
_COLUMN_TYPES = {Kind.NUMBER: "BIGINT", Kind.NAME: "VARBINARY(1000)", Kind.BYTES: "LONGBLOB"}
_CATALOGUE_TYPES = {Kind.NUMBER: "bigint", Kind.NAME: "varbinary(1000)", Kind.BYTES: "longblob"}

_LOST = frozenset({1053, 1079, 1152, 1153, 1158, 1159, 1160, 1161, 1184, 1927, 2006, 2013, 2014, 2045, 2055, 4031})
_MAX_REASON_CHARS = 300
_CAUSES = {
    **dict.fromkeys((1205, 1969, 3024), Cause.LOCKED),
    **dict.fromkeys((1020, 1213), Cause.CONFLICT),
    **dict.fromkeys((1021, 1114), Cause.FULL),
    **dict.fromkeys((1290, 1792, 1836), Cause.READ_ONLY),
    **dict.fromkeys((1045, 1524, 1698, 2059), Cause.REFUSED),
    1049: Cause.NO_DATABASE,
    **dict.fromkeys((1044, 1142, 1143, 1227), Cause.NO_RIGHTS),
    # Broken or missing tables and columns; values that cannot have been written by the code; rows that clash.
    **dict.fromkeys((126, 127, 1032, 1034, 1054, 1062, 1146, 1194, 1366, 1406, 1712, 1877), Cause.DAMAGED),
    2026: Cause.NO_TLS,
    **dict.fromkeys((1040, 2002, 2003, 2005), Cause.UNREACHABLE),
}


class MariadbDatabase(ServerDatabase):
    """See `database.Database`."""

    dialect = "mysql+pymysql"
    types = _COLUMN_TYPES
    catalogue_types = _CATALOGUE_TYPES

    def _connect(self) -> Any:
        import pymysql  # noqa: PLC0415 -- the extra `sql`: absent from a key server with a store of its own

        where: dict[str, Any] = {"host": self.address.host, "port": self.address.port}
        if self.address.socket is not None:
            where = {"unix_socket": self.address.socket}
        return pymysql.connect(
            **where,
            user=self.address.user,
            database=self.address.database,
            password=self._password.reveal() if self._password else b"",
            charset="utf8mb4",
            binary_prefix=True,
            connect_timeout=CONNECT_WAIT_S,
            read_timeout=_SOCKET_WAIT_S,
            write_timeout=_SOCKET_WAIT_S,
            init_command=_SESSION,
            **self._tls(),
        )

    def _tls(self) -> dict[str, Any]:
        if not self.address.verify_tls:
            return {"ssl_disabled": True}
        ca = self.address.tls_ca
        try:
            context = ssl.create_default_context(cafile=str(ca) if ca else None)
        except OSError as exc:
            raise ConfigError(f"the CA file {ca} of key store {self.label} cannot be read: {exc.strerror}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return {"ssl": context}

    def _check_server(self, connection: Connection) -> None:
        version, flush, read_only = connection.execute(
            text("SELECT VERSION(), @@global.innodb_flush_log_at_trx_commit, @@global.read_only")
        ).one()
        self._check_version(str(version))
        if int(flush) not in (1, 3):
            raise ConfigError(
                f"the server of key store {self.label} has innodb_flush_log_at_trx_commit = {flush}:"
                " a crash would lose keys that data was already encrypted with",
                hint="set it to 1 in the server's configuration and now",
                command="mariadb -e 'SET GLOBAL innodb_flush_log_at_trx_commit = 1'",
            )
        if read_only:
            raise StoreUnavailableError(
                f"the server of key store {self.label} is read-only, a replica perhaps, which can neither be written"
                " nor be trusted to know the newest keys",
                hint="name the primary in --keystore",
            )

    def _check_version(self, version: str) -> None:
        numbers = re.search(r"(\d+)\.(\d+)\.\d+-MariaDB", version)
        if numbers is None:
            _log.warning(
                "key store %s is on %s: this release is tested with MariaDB, not with MySQL", self.label, version
            )
            return
        if (int(numbers[1]), int(numbers[2])) < _OLDEST:
            raise ConfigError(f"key store {self.label} is on MariaDB {version}; this release needs 10.11 or newer")

    def _catalogued(self, connection: Connection) -> Columns:
        found = connection.execute(
            text(
                "SELECT table_name, column_name, column_type, is_nullable FROM information_schema.columns"
                " WHERE table_schema = DATABASE()"
            )
        )
        ours = {(table, column): (_without_width(kind), nullable == "YES") for table, column, kind, nullable in found}
        return {name: kind for name, kind in ours.items() if name[0] in TABLES}

    def _find_foreign(self, connection: Connection) -> list[str]:
        engines = connection.execute(
            text("SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE()")
        )
        triggers = connection.execute(
            text("SELECT event_object_table FROM information_schema.triggers WHERE trigger_schema = DATABASE()")
        )
        found = [f"{name} is not an InnoDB table" for name, engine in engines if name in TABLES and engine != "InnoDB"]
        return found + [f"{name} has a trigger" for (name,) in triggers if name in TABLES]

    def _create_statements(self) -> list[str]:
        return [
            f"CREATE TABLE IF NOT EXISTS {name} ({spec.definitions(_COLUMN_TYPES)})"
            " ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=binary"
            for name, spec in TABLES.items()
        ]

    def _lock_creation(self, connection: Connection) -> None:
        # Names of locks are the server's, so each database has its own.
        self._get_lock(connection, f"ringfence-create-{self.address.database}"[:64])

    def _lock_owner(self, connection: Connection) -> None:
        self._get_lock(connection, _owner_lock(self.owner_id))

    def _get_lock(self, connection: Connection, name: str) -> None:
        with connection.begin():
            got = connection.execute(text("SELECT GET_LOCK(:name, :wait_s)"), {"name": name, "wait_s": _WAIT_S})
            if got.scalar_one() != 1:
                raise StoreUnavailableError(
                    f"key store {self.label}: another session has held the lock {name} for {_WAIT_S} s",
                    hint="see which with: mariadb -e 'SHOW PROCESSLIST'",
                )

    def is_alive(self, connection: Connection, owner_id: int) -> bool:
        """See Database."""
        found = connection.execute(text("SELECT IS_USED_LOCK(:name)"), {"name": _owner_lock(owner_id)})
        return found.scalar_one() is not None

    def _says_lost(self, original: BaseException | None) -> bool:
        return _code(original) in _LOST

    def _cause(self, original: BaseException) -> tuple[Cause | None, str]:
        code = _code(original)
        cause = _CAUSES.get(code or 0)
        if _is_about_tls(original):
            cause = Cause.NO_TLS
        if cause in (Cause.UNREACHABLE, Cause.NO_TLS):
            # The client's own words about a connection that was never made: host and reason, no password.
            return cause, str(original.args[-1]).split("\n")[0][:_MAX_REASON_CHARS]
        return cause, f"error {code}"


def _owner_lock(owner_id: int) -> str:
    return f"ringfence-owner-{owner_id:016x}"


def _code(original: BaseException | None) -> int | None:
    code = original.args[0] if original is not None and original.args else None
    return code if isinstance(code, int) else None


def _is_about_tls(original: BaseException) -> bool:
    """Whether TLS was not agreed on; a connection that broke meanwhile says nothing of that."""
    why = getattr(original, "original_exception", None)
    return isinstance(why, ssl.SSLError) and not isinstance(why, ssl.SSLEOFError | ssl.SSLSyscallError)


def _without_width(column_type: str) -> str:
    """MariaDB says bigint(20), MySQL says bigint."""
    return "bigint" if column_type.startswith("bigint") else column_type
