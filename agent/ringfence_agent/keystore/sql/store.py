"""Keys and policy in SQL tables, through SQLAlchemy Core, on any engine that `database` describes.

How it keeps the rules of `interface`:

- One change is one transaction that takes the write lock, opens the sealed ledger, changes rows and ledger, and
  commits durably before the method returns.
- A read is one statement, so it sees one committed state. The tag of every row it believes, the seal of every
  version it opens, and that the versions are exactly those the key announces, are checked on each read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import bindparam, case, func, insert, select

from ringfence_agent.keystore.held import HeldKey
from ringfence_agent.keystore.interface import (
    Changes,
    DeletedKey,
    PolicyRevision,
    SealedKey,
    StoredKey,
    UnconfirmedChange,
)
from ringfence_agent.keystore.protection import HELD_SEAL, REMOTE_PREFIX_BYTES, REMOTE_SEAL
from ringfence_agent.keystore.rows.changes import NO_KEY
from ringfence_agent.keystore.rows.kinds import KeyVersionRow, PolicyRow, ZoneKeyRow
from ringfence_agent.keystore.rows.new_keys import is_storable
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.rows.snapshot import RowSnapshot
from ringfence_agent.keystore.rows.store import RowKeyStore, now_ms
from ringfence_agent.keystore.snapshot import Pause
from ringfence_agent.keystore.sql.changes import SqlChanges
from ringfence_agent.keystore.sql.database import Database
from ringfence_agent.keystore.sql.row_changes import SqlRows
from ringfence_agent.keystore.sql.session import SqlSession
from ringfence_agent.keystore.sql.tables import KEY_VERSION, POLICY_REVISION, STORE_HEADER, ZONE_KEY, read_tables
from ringfence_agent.keystore.sql.tokens import SqlTokens
from ringfence_agent.keystore.sql.transactions import SqlTransactions
from ringfence_zones.errors import RevisionConflictError
from ringfence_zones.keys import KeyMetadata

_KEY_COLUMNS = [ZONE_KEY.c[name] for name in ZoneKeyRow._fields]
_VERSION_COLUMNS = [KEY_VERSION.c[name] for name in KeyVersionRow._fields]
_POLICY_COLUMNS = [POLICY_REVISION.c[name] for name in PolicyRow._fields]
_KEY_WIDTH = len(_KEY_COLUMNS)

_SELECT_SLOTS = select(STORE_HEADER.c.protector_header)
# An outer join: a live key whose versions are gone must be seen, not be taken for no key.
_SELECT_LIVE_KEY = (
    select(*_KEY_COLUMNS, ZONE_KEY.c.tag, *_VERSION_COLUMNS)
    .outerjoin(
        KEY_VERSION,
        (KEY_VERSION.c.key_name == ZONE_KEY.c.name) & (KEY_VERSION.c.version >= ZONE_KEY.c.first_version),
    )
    .where(ZONE_KEY.c.name == bindparam("name"), ZONE_KEY.c.deleted_ms.is_(None))
    .order_by(KEY_VERSION.c.version)
)
_SELECT_LIVE_KEYS = (
    select(*_KEY_COLUMNS, ZONE_KEY.c.tag).where(ZONE_KEY.c.deleted_ms.is_(None)).order_by(ZONE_KEY.c.name)
)
_SELECT_DELETED_KEYS = (
    select(*_KEY_COLUMNS, ZONE_KEY.c.tag).where(ZONE_KEY.c.deleted_ms.is_not(None)).order_by(ZONE_KEY.c.name)
)
# A remote seal begins with 0x02 and the number of its slot; what follows another first byte is nobody's choice.
_FIRST_BYTE = func.substr(KEY_VERSION.c.sealed, 1, 1)
_HOW_SEALED = case(
    (_FIRST_BYTE == REMOTE_SEAL, func.substr(KEY_VERSION.c.sealed, 1, REMOTE_PREFIX_BYTES)), else_=_FIRST_BYTE
)
_BY_SEAL = (
    select(
        KEY_VERSION.c.key_name,
        KEY_VERSION.c.version,
        func.row_number()
        .over(partition_by=_HOW_SEALED, order_by=(KEY_VERSION.c.key_name, KEY_VERSION.c.version.desc()))
        .label("place"),
    )
    .join(ZONE_KEY, (ZONE_KEY.c.name == KEY_VERSION.c.key_name) & (KEY_VERSION.c.version >= ZONE_KEY.c.first_version))
    .where(ZONE_KEY.c.deleted_ms.is_(None), _FIRST_BYTE != HELD_SEAL)
    .subquery()
)
_SELECT_CANARIES = select(_BY_SEAL.c.key_name, _BY_SEAL.c.version).where(_BY_SEAL.c.place == 1)
_SELECT_POLICY = (
    select(STORE_HEADER.c.ledger, *_POLICY_COLUMNS, POLICY_REVISION.c.tag)
    .outerjoin(POLICY_REVISION, POLICY_REVISION.c.revision > 0)
    .order_by(POLICY_REVISION.c.revision.desc())
    .limit(1)
)
_SELECT_POLICIES = (
    select(*_POLICY_COLUMNS, POLICY_REVISION.c.tag)
    .where(POLICY_REVISION.c.revision > bindparam("after"))
    .order_by(POLICY_REVISION.c.revision)
)


class SqlKeyStore(RowKeyStore, SqlTokens):
    """See `interface.OpenStore`. Made by `sql.open.open_sql_keystore`."""

    def __init__(self, database: Database, records: Records, clock: Callable[[], int] = now_ms) -> None:
        session = SqlSession(database)
        self._session = session
        self._changes = SqlChanges(session, records)
        self._transactions = SqlTransactions(session, records, self._changes)
        rows = SqlRows(database, session, records, self._changes, self._transactions)
        RowKeyStore.__init__(self, records, rows, clock)
        SqlTokens.__init__(self, session, records)
        records.protection.reread_with(self._read_slots)

    @property
    def owner_id(self) -> int:
        """See KeyStore. The first call makes this handle known to others."""
        return self._session.hold_owner()

    def list_deleted(self) -> Sequence[DeletedKey]:
        """See KeyStore."""
        found = []
        for *fields, tag in self._session.read(_SELECT_DELETED_KEYS):
            key = ZoneKeyRow(*fields)
            self._records.check_tag(key, tag)
            if key.deleted_ms is not None:
                found.append(DeletedKey(self._records.metadata(key), key.deleted_ms))
        return found

    def find_key(self, name: str) -> StoredKey | HeldKey | None:
        """See KeyStore. One statement and one seal per version: tens of microseconds."""
        found = self.find_sealed_key(name)
        return found.open() if isinstance(found, SealedKey) else found

    def find_sealed_key(self, name: str) -> SealedKey | HeldKey | None:
        """See KeyStore."""
        if not is_storable(name):
            return None
        rows = self._session.read(_SELECT_LIVE_KEY, name=name)
        if not rows:
            return None
        key = ZoneKeyRow(*rows[0][:_KEY_WIDTH])
        self._records.check_tag(key, rows[0][_KEY_WIDTH])
        return self._records.sealed_key(key, [KeyVersionRow(*row[_KEY_WIDTH + 1 :]) for row in rows])

    def list_metadata(self) -> Sequence[KeyMetadata]:
        """See KeyStore."""
        found = []
        for *fields, tag in self._session.read(_SELECT_LIVE_KEYS):
            key = ZoneKeyRow(*fields)
            self._records.check_tag(key, tag)
            found.append(self._records.metadata(key))
        return found

    def list_canaries(self) -> Sequence[tuple[str, int]]:
        """See KeyStore. One statement over all versions: about 3 ms for a thousand."""
        return [(name, version) for name, version in self._session.read(_SELECT_CANARIES)]

    def publish_policy(self, expected_revision: int, document: bytes, published_by: str) -> PolicyRevision:
        """See KeyStore."""
        with self._transactions.change(NO_KEY) as change:
            if change.ledger.revision != expected_revision:
                raise RevisionConflictError(expected_revision, change.ledger.revision)
            row = PolicyRow(expected_revision + 1, document, published_by, self._clock())
            values = row._asdict() | {"tag": self._records.tag(row)}
            change.connection.execute(insert(POLICY_REVISION), values)
            change.ledger.add(self._records.element(row))
            change.ledger.revision = row.revision
        return self._records.policy(row)

    def find_policy(self) -> PolicyRevision | None:
        """See KeyStore. Also checks that it is the newest one, against the sealed ledger."""
        rows = self._session.read(_SELECT_POLICY)
        if not rows:
            raise self._records.tampered("its header row is missing")
        sealed_ledger, *fields, tag = rows[0]
        if self._records.open_ledger(sealed_ledger).revision != (fields[0] or 0):
            raise self._records.tampered("published policies are missing or were added")
        if fields[0] is None:
            return None
        row = PolicyRow(*fields)
        self._records.check_tag(row, tag)
        return self._records.policy(row)

    def list_policies(self, after_revision: int) -> Sequence[PolicyRevision]:
        """See KeyStore."""
        policies = []
        for *fields, tag in self._session.read(_SELECT_POLICIES, after=after_revision):
            row = PolicyRow(*fields)
            self._records.check_tag(row, tag)
            policies.append(self._records.policy(row))
        if [each.revision for each in policies] != list(range(after_revision + 1, after_revision + 1 + len(policies))):
            raise self._records.tampered("a published policy is missing")
        return policies

    def change_number(self) -> int:
        """See KeyStore."""
        return self._changes.number()

    def changes_since(self, number: int) -> Changes:
        """See KeyStore."""
        return self._changes.since(number)

    def find_unconfirmed(self, name: str) -> Sequence[UnconfirmedChange]:
        """See KeyStore."""
        return self._changes.find_unconfirmed(name) if is_storable(name) else ()

    def confirm(self, changes: Sequence[UnconfirmedChange]) -> None:
        """See KeyStore."""
        self._changes.confirm(changes)

    def remove_unconfirmed(self, before_ms: int) -> int:
        """See KeyStore."""
        return self._changes.remove_unconfirmed(before_ms)

    def is_alive(self, owner_id: int) -> bool:
        """See KeyStore."""
        return self._session.is_alive(owner_id)

    @contextmanager
    def snapshot(self, pause: Pause = lambda: None) -> Iterator[RowSnapshot]:
        """See KeyStore."""
        with self._session.snapshot() as (connection, version):
            rows = read_tables(connection, version)
        yield RowSnapshot(rows, version, self._records, pause)

    def close(self) -> None:
        """See KeyStore. In a forked child it only lets go of its references: the handles are the parent's."""
        self._session.close()

    def _read_slots(self) -> bytes:
        rows = self._session.read(_SELECT_SLOTS)
        if len(rows) != 1:
            raise self._records.tampered("its header row is missing")
        return bytes(rows[0][0])
