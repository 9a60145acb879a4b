"""What a store's servers remember together for the flow rules: EDEKs not opened yet, and the labels of sessions.

It is the one place that decides (`automaton`): what is new is granted inside a transaction that holds the lock of one
row, whichever worker or instance asks. Rules:

1. An EDEK is noted before the answer that hands it out leaves, and is stamped with this memory's epoch (`stamp`). So
   one of this epoch that is not outstanding has been opened before. At most `KEPT_PER_ZONE` of a zone are kept, the
   newest: a NameNode gives them out in the order in which it got them, and holds 500 at most for each server it asks.
2. An EDEK of no epoch or of another one, of a memory that was lost, counts as READ and WRITE while it may still be one
   that the NameNode held back, for `UNKNOWN_S` after it was made.
3. The memory is of one unbroken run of revisions with flows, begun when its first was published (`since_ms`). Between
   two runs nobody notes what is opened: with a new run there is a new epoch, and nothing is outstanding.
4. What is refused, if it is, changes nothing. What would be refused in shadow mode is opened all the same: its EDEK is
   not outstanding any more, but it leaves no label, so that shadow mode says what enforcing would refuse and no more.

Methods block; one thread of each worker uses it. Raises errors of the KeyStoreError family.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, delete, func, insert, select, update

from ringfence_agent.flow.automaton import SENT_AGAIN_S, Label, SessionLabels, decide
from ringfence_agent.flow.grants import Admitted, FlowGrant, GrantBook
from ringfence_agent.flow.stamp import MAX_EPOCH, UNTRACKED, Stamp
from ringfence_agent.flow.tables import FORMAT, FlowTables
from ringfence_agent.keystore.sql.session import SqlSession, SqlTransaction
from ringfence_zones.errors import StoreUnavailableError
from ringfence_zones.flow_labels import Crossing, Kind, Zone

KEPT_PER_ZONE = 2048
"""Four queues of 500: two NameNodes, two servers."""
UNKNOWN_S = 43_200
"""How long the NameNode keeps EDEKs that nobody asks for."""
_CLEARING_MS = 60_000
_SINGLE = (Kind.READ, Kind.WRITE)
_NONE = Kind(0)


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Ask:
    """One opening to be decided.

    session  who opens (`Session.digest`)
    stamp    what the IV says; None when it was not made here
    unknown  what the opening counts as when this memory does not know the EDEK
    edges    those of the session's user that lead from or to the zone
    user     that user, whom a grant has to name
    granted  what the asking worker remembers as granted to this session in this zone
    enforced whether a refusal is one, or only told
    """

    session: bytes
    zone: Zone
    iv: bytes
    stamp: Stamp | None
    unknown: Kind
    edges: frozenset[tuple[Zone, Zone]]
    granted: Kind = _NONE
    enforced: bool = True
    user: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the opening was, and why it is not to be made, None when it is granted.

    `is_lasting` when every further opening of the EDEK, by whomever, is a READ. `admitted` when it took a grant.
    """

    kind: Kind
    crossing: Crossing | None = None
    is_lasting: bool = field(default=False, compare=False)
    admitted: Admitted | None = None


@dataclass(slots=True)
class _Known:
    """What the tables say about the EDEKs and sessions of some asks."""

    outstanding: set[bytes]
    first: dict[bytes, tuple[bytes, Kind, int]]
    labels: dict[bytes, SessionLabels] = field(default_factory=dict)

    def kind_of(self, ask: Ask, epoch: int, now_ms: int) -> Kind:
        if ask.stamp is None or ask.stamp.epoch != epoch:
            return ask.unknown
        if ask.iv in self.outstanding:
            return Kind.WRITE
        session, kind, _ = self.first.get(ask.iv, (b"", Kind.READ, 0))
        return kind if session == ask.session and not self.is_lasting(ask, now_ms) else Kind.READ

    def is_lasting(self, ask: Ask, now_ms: int) -> bool:
        """Whether nobody has a label of the first opening any more."""
        first = self.first.get(ask.iv)
        return first is None or now_ms - first[2] >= SENT_AGAIN_S * 1000


@dataclass(slots=True)
class _Changes:
    """What a batch of decisions changes."""

    opened: dict[bytes, tuple[bytes, Kind]] = field(default_factory=dict)
    labels: dict[tuple[bytes, Zone, Kind], int] = field(default_factory=dict)


class _Granted:
    """The edges of a session with its grants, and which of those were needed."""

    def __init__(self, edges: frozenset[tuple[Zone, Zone]], grants: dict[tuple[Zone, Zone], FlowGrant]) -> None:
        self._edges = edges
        self._grants = grants
        self._used: dict[str, int] = {}

    def __call__(self, source: Zone, target: Zone) -> bool:
        if (source, target) in self._edges:
            return True
        found = self._grants.get((source, target))
        if found is not None:
            self._used[found.grant.id] = found.grant.not_after_ms
        return found is not None

    @property
    def admitted(self) -> Admitted:
        return Admitted(tuple(sorted(self._used)), min(self._used.values()))


class FlowMemory:
    """One worker's handle. `store_id` (16 bytes) is the key store's; a memory of another store is begun anew.

    `since_ms` says of which run of revisions the caller knows; a caller who knows of an earlier one changes nothing.
    """

    def __init__(
        self,
        session: SqlSession,
        tables: FlowTables,
        store_id: bytes,
        clock_ms: Callable[[], int],
        tag_key: bytes,
    ) -> None:
        self._session = session
        self._sql = _Statements(tables)
        self._clock_ms = clock_ms
        self.grants = GrantBook(session, self._sql.lock, tables.grant, tag_key, clock_ms)
        self._clear_at_ms = 0
        self._epoch = UNTRACKED
        self._since_ms = 0
        self._begin(store_id)

    def _begin(self, store_id: bytes) -> None:
        sql = self._sql
        with self._session.transaction(sql.lock) as transaction:
            row = self._checked(transaction.row)
            self._epoch, self._since_ms = int(row.epoch), int(row.since_ms)
            if bytes(row.store_id) == store_id and self._epoch != UNTRACKED:
                return
            for table in (sql.outstanding, sql.first, sql.label, sql.grant):
                transaction.connection.execute(delete(table))
            self._epoch, self._since_ms = _other_epoch(self._epoch), 0
            # Updated, never replaced: others wait for this row.
            values = {"new_store_id": store_id, "new_epoch": self._epoch}
            transaction.connection.execute(sql.begin_store, values)

    def _checked(self, row: Any | None) -> Any:
        if row is None:
            raise StoreUnavailableError(
                f"the flow memory in {self._session.label} is empty: its tables were cleared",
                hint="drop them while the key servers are stopped; they are made anew",
            )
        if row.format != FORMAT:
            raise StoreUnavailableError(
                f"the flow memory in {self._session.label} has format {row.format}; this release of Ringfence reads"
                f" format {FORMAT}",
                hint="run the release that wrote it; or drop it while the key servers are stopped: it is made anew",
            )
        return row

    def epoch(self, since_ms: int) -> int:
        """What EDEKs are stamped with that are made now."""
        if since_ms > self._since_ms:
            self.require(since_ms)
        return self._epoch

    def require(self, since_ms: int = 0) -> None:
        """That new things can be decided now. Raises StoreUnavailableError, StoreTamperedError."""
        with self._session.transaction(self._sql.lock) as transaction:
            self._adopt(transaction, since_ms)

    def note_issued(self, zone: Zone, ivs: Sequence[bytes], epoch: int, since_ms: int) -> bool:
        """Notes EDEKs of this epoch as outstanding. False, and nothing noted, when it is not the memory's any more."""
        sql, name = self._sql, zone.encode()
        made_s = self._clock_ms() // 1000
        with self._session.transaction(sql.lock) as transaction:
            self._adopt(transaction, since_ms)
            if self._epoch != epoch:
                return False
            connection = transaction.connection
            connection.execute(insert(sql.outstanding), [{"iv": iv, "zone": name, "made_s": made_s} for iv in ivs])
            count = connection.execute(sql.count_outstanding, {"name": name}).scalar_one()
            if count > KEPT_PER_ZONE:
                oldest = connection.execute(sql.oldest_kept, {"name": name}).scalar_one()
                connection.execute(sql.drop_older, {"name": name, "than_s": oldest})
        return True

    def note_opened(self, ivs: Sequence[bytes]) -> None:
        """These were opened without being decided about: they are not outstanding."""
        with self._session.transaction(self._sql.lock) as transaction:
            transaction.connection.execute(self._sql.drop_outstanding, [{"that": iv} for iv in ivs])

    def settle(self, asks: Sequence[Ask], since_ms: int) -> list[Answer]:
        """Decides, in the order given. What is granted is labelled when this returns."""
        answers = self._find_plain(asks) if since_ms <= self._since_ms else [None] * len(asks)
        rest = [ask for ask, answer in zip(asks, answers, strict=True) if answer is None]
        decided = iter(self._settle_new(rest, since_ms) if rest else [])
        return [answer or next(decided) for answer in answers]

    def _settle_new(self, asks: Sequence[Ask], since_ms: int) -> list[Answer]:
        with self._session.transaction(self._sql.lock) as transaction:
            self._adopt(transaction, since_ms)
            now_ms = self._clock_ms()
            connection = transaction.connection
            known = self._look(asks, lambda statement, **values: connection.execute(statement, values).fetchall())
            known.labels = self._read_labels(connection, asks, now_ms)
            changes = _Changes()
            answers = [self._decide(connection, ask, known, changes, now_ms) for ask in asks]
            self._write(connection, changes, now_ms)
            self._clear(connection, now_ms)
        return answers

    def close(self) -> None:
        """Idempotent."""
        self._session.close()

    # -- deciding

    def _find_plain(self, asks: Sequence[Ask]) -> list[Answer | None]:
        """The answers to openings of what was opened before, in a way that was granted; None for the others.

        That takes no lock: an EDEK that is not outstanding never is again.
        """
        candidates = [ask for ask in asks if ask.granted & Kind.READ]
        if not candidates:
            return [None] * len(asks)
        known, now_ms = self._look(candidates, self._session.read), self._clock_ms()
        # Looked at last: what was read before is then of this epoch, which never comes back.
        if [int(row.epoch) for row in self._session.read(self._sql.find_epoch)] != [self._epoch]:
            return [None] * len(asks)

        def find(ask: Ask) -> Answer | None:
            if not ask.granted & Kind.READ or ask.iv in known.outstanding:
                return None
            kind = known.kind_of(ask, self._epoch, now_ms)
            return Answer(kind, None, known.is_lasting(ask, now_ms)) if kind & ~ask.granted == 0 else None

        return [find(ask) for ask in asks]

    def _look(self, asks: Sequence[Ask], read: Callable[..., Sequence[Any]]) -> _Known:
        ivs = sorted({ask.iv for ask in asks if ask.stamp is not None and ask.stamp.epoch == self._epoch})
        if not ivs:
            return _Known(set(), {})
        outstanding = {bytes(row.iv) for row in read(self._sql.find_outstanding, ivs=ivs)}
        first = {
            bytes(row.iv): (bytes(row.session), Kind(row.kind), int(row.opened_ms))
            for row in read(self._sql.find_first, ivs=ivs)
        }
        return _Known(outstanding, first)

    def _read_labels(self, connection: Connection, asks: Sequence[Ask], now_ms: int) -> dict[bytes, SessionLabels]:
        sessions = sorted({ask.session for ask in asks})
        rows = connection.execute(self._sql.find_labels, {"sessions": sessions, "now_ms": now_ms}).fetchall()
        found: dict[bytes, dict[Label, int]] = {session: {} for session in sessions}
        for row in rows:
            found[bytes(row.session)][bytes(row.zone).decode(), Kind(row.kind)] = int(row.until_ms)
        return {session: SessionLabels(MappingProxyType(labels)) for session, labels in found.items()}

    def _decide(self, connection: Connection, ask: Ask, known: _Known, changes: _Changes, now_ms: int) -> Answer:
        kind = known.kind_of(ask, self._epoch, now_ms)
        if not kind & ~ask.granted:
            self._note_opened(ask, kind, known, changes, now_ms)
            return Answer(kind, None, known.is_lasting(ask, now_ms))
        before = known.labels[ask.session]
        after, crossing = decide(before, ask.zone, kind, lambda source, target: (source, target) in ask.edges, now_ms)
        admitted = None
        if crossing is not None:
            granted = self.grants.find_live(connection, ask.session, ask.user, now_ms)
            edges = _Granted(ask.edges, {(each.source, each.target): each for each in granted})
            after, crossing = decide(before, ask.zone, kind, edges, now_ms)
            admitted = edges.admitted if crossing is None else None
        if crossing is not None and ask.enforced:
            return Answer(kind, crossing)
        self._note_opened(ask, kind, known, changes, now_ms)
        known.labels[ask.session] = after
        for single in _SINGLE if crossing is None else ():
            if single & kind:
                changes.labels[ask.session, ask.zone, single] = after.until_ms[ask.zone, single]
        return Answer(kind, crossing, known.is_lasting(ask, now_ms), admitted)

    @staticmethod
    def _note_opened(ask: Ask, kind: Kind, known: _Known, changes: _Changes, now_ms: int) -> None:
        if ask.iv in known.outstanding:
            known.outstanding.discard(ask.iv)
            known.first[ask.iv] = (ask.session, kind, now_ms)
            changes.opened[ask.iv] = (ask.session, kind)

    # -- the tables

    def _adopt(self, transaction: SqlTransaction, since_ms: int) -> None:
        """The epoch as it is: somebody may have begun the memory anew, or this is who has to."""
        row = self._checked(transaction.row)
        self._epoch, self._since_ms = int(row.epoch), int(row.since_ms)
        if since_ms > self._since_ms:
            # Labels stay: what a session read before the flows were published anew, it has read.
            sql, epoch = self._sql, _other_epoch(self._epoch)
            for table in (sql.outstanding, sql.first):
                transaction.connection.execute(delete(table))
            transaction.connection.execute(sql.begin_run, {"new_epoch": epoch, "new_since_ms": since_ms})
            self._epoch, self._since_ms = epoch, since_ms

    def _write(self, connection: Connection, changes: _Changes, now_ms: int) -> None:
        sql = self._sql
        if changes.opened:
            connection.execute(sql.drop_outstanding, [{"that": iv} for iv in changes.opened])
            connection.execute(
                insert(sql.first),
                [
                    {"iv": iv, "session": session, "kind": int(kind), "opened_ms": now_ms}
                    for iv, (session, kind) in changes.opened.items()
                ],
            )
        if changes.labels:
            keys = [(session, zone.encode(), int(kind)) for session, zone, kind in changes.labels]
            connection.execute(sql.drop_label, [{"s": session, "z": zone, "k": kind} for session, zone, kind in keys])
            connection.execute(
                insert(sql.label),
                [
                    {"session": session, "zone": zone, "kind": kind, "until_ms": until_ms}
                    for (session, zone, kind), until_ms in zip(keys, changes.labels.values(), strict=True)
                ],
            )

    def _clear(self, connection: Connection, now_ms: int) -> None:
        if now_ms < self._clear_at_ms:
            return
        self._clear_at_ms = now_ms + _CLEARING_MS
        connection.execute(self._sql.clear_labels, {"now_ms": now_ms})
        connection.execute(self._sql.clear_first, {"before_ms": now_ms - 2 * SENT_AGAIN_S * 1000})


def _other_epoch(epoch: int) -> int:
    """A random one that is neither this nor UNTRACKED."""
    while (other := secrets.randbelow(MAX_EPOCH) + 1) == epoch:
        pass
    return other


class _Statements:
    """Everything that is executed, once."""

    def __init__(self, tables: FlowTables) -> None:
        state, outstanding, first, label = tables.state, tables.outstanding, tables.first, tables.label
        self.outstanding, self.first, self.label, self.grant = outstanding, first, label, tables.grant
        whole = select(state.c.format, state.c.store_id, state.c.epoch, state.c.since_ms).where(state.c.id == 1)
        self.lock = whole.with_for_update()
        self.find_epoch = select(state.c.epoch).where(state.c.id == 1)
        self.begin_store = (
            update(state)
            .where(state.c.id == 1)
            .values(store_id=bindparam("new_store_id"), epoch=bindparam("new_epoch"), since_ms=0)
        )
        self.begin_run = (
            update(state)
            .where(state.c.id == 1)
            .values(epoch=bindparam("new_epoch"), since_ms=bindparam("new_since_ms"))
        )
        ivs: BindParameter[Any] = bindparam("ivs", expanding=True)
        self.find_outstanding = select(outstanding.c.iv).where(outstanding.c.iv.in_(ivs))
        self.find_first = select(first).where(first.c.iv.in_(ivs))
        self.find_labels = select(label).where(
            label.c.session.in_(bindparam("sessions", expanding=True)), label.c.until_ms > bindparam("now_ms")
        )
        self.count_outstanding = select(func.count()).where(outstanding.c.zone == bindparam("name"))
        self.oldest_kept = (
            select(outstanding.c.made_s)
            .where(outstanding.c.zone == bindparam("name"))
            .order_by(outstanding.c.made_s.desc())
            .offset(KEPT_PER_ZONE - 1)
            .limit(1)
        )
        self.drop_older = delete(outstanding).where(
            outstanding.c.zone == bindparam("name"), outstanding.c.made_s < bindparam("than_s")
        )
        self.drop_outstanding = delete(outstanding).where(outstanding.c.iv == bindparam("that"))
        self.drop_label = delete(label).where(
            label.c.session == bindparam("s"), label.c.zone == bindparam("z"), label.c.kind == bindparam("k")
        )
        self.clear_labels = delete(label).where(label.c.until_ms <= bindparam("now_ms"))
        self.clear_first = delete(first).where(first.c.opened_ms < bindparam("before_ms"))
