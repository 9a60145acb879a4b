"""Grants: one job's leave past the flow rules, beside the labels that they are decided by.

A grant counts as an edge of the policy for one session of one user, from one zone to one other, until it ends: by its
time, because somebody ended it, or with its delegation token. Rules:

1. It is looked for where an opening would be refused, in the transaction that decides (`memory`), by whichever worker
   or instance. So nobody has to be told of a new or an ended one, and nobody decides by an older view of them. What a
   worker remembers of a session it remembers for at most the revocation bound.
2. Each row carries a tag under a secret of the key store: one that somebody wrote into the database, or changed there,
   admits nothing. (An earlier genuine row put back does, until its time is over.)
3. A grant that ended stays in the table for a day, so that a request that made it, sent again, does not make it anew.

Methods of the book block. Times are epoch milliseconds by the clock of whoever looks.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, bindparam, delete, func, insert, select, update

from ringfence_agent.flow.sessions import client_session, session_digest, token_session
from ringfence_agent.keystore.sql.session import SqlSession
from ringfence_zones.flow_labels import Zone
from ringfence_zones.grants import Grant

_log = logging.getLogger(__name__)

PURPOSE = "flow grants"
"""Of the key store's secret that rows are tagged with."""
MAX_GRANTS = 5000
"""Of those that are kept: so that a caller that has gone wild fills no disk."""
KEPT_MS = 86_400_000
_NEVER = 0
_CONTEXT = b"ringfence/flow-grant/1"

DELETED, TIME, TOKEN = "deleted", "time", "token"
"""Why a grant ended."""


class FlowGrant(msgspec.Struct, frozen=True):
    """A grant, with the keys of its zones: those are what the rules know a zone by."""

    grant: Grant
    source: Zone
    target: Zone

    @property
    def session(self) -> bytes:
        """Who it is for, as the memory knows sessions."""
        grant = self.grant
        if grant.token is not None:
            return session_digest(token_session(grant.token))
        return session_digest(client_session(grant.user, grant.real_user, grant.address))

    def is_live(self, now_ms: int) -> bool:
        """Whether it admits anything."""
        return self.grant.ended_ms is None and now_ms < self.grant.not_after_ms

    def ended(self, now_ms: int, why: str) -> FlowGrant:
        """The same, ended now."""
        return FlowGrant(replace(self.grant, ended_ms=now_ms, ended_by=why), self.source, self.target)


@dataclass(frozen=True, slots=True)
class Admitted:
    """What an opening was admitted by: the grants that were needed, and until when they all hold."""

    ids: tuple[str, ...]
    until_ms: int


_DECODER = msgspec.json.Decoder(FlowGrant)


class GrantBook:
    """The grants in a flow memory. Writers take turns by the memory's row, which `lock` selects."""

    def __init__(
        self, session: SqlSession, lock: Any, table: Table, tag_key: bytes, clock_ms: Callable[[], int]
    ) -> None:
        self._session = session
        self._lock = lock
        self._tag_key = tag_key
        self._clock_ms = clock_ms
        self._table = table
        self._find = select(table).where(table.c.id == bindparam("that"))
        self._all = select(table).order_by(table.c.made_ms.desc())
        self._open = select(table).where(table.c.ended_ms == _NEVER)
        self._of_session = self._open.where(table.c.session == bindparam("of"))
        self._count = select(func.count()).select_from(table)
        self._update = update(table).where(table.c.id == bindparam("that"))
        self._clear = delete(table).where(table.c.ended_ms != _NEVER, table.c.ended_ms < bindparam("before_ms"))

    def create(self, new: FlowGrant) -> FlowGrant | None:
        """The grant of this id as it is now, made when there is none; None when there are too many."""
        with self._session.transaction(self._lock) as transaction:
            connection = transaction.connection
            found = self._read(connection.execute(self._find, {"that": new.grant.id.encode()}).fetchall())
            if found:
                return found[0]
            connection.execute(self._clear, {"before_ms": self._clock_ms() - KEPT_MS})
            if connection.execute(self._count).scalar_one() >= MAX_GRANTS:
                return None
            connection.execute(insert(self._table), self._row(new))
        return new

    def end(self, grant_id: str, why: str) -> FlowGrant | None:
        """The grant, ended now or before; None without one."""
        with self._session.transaction(self._lock) as transaction:
            connection = transaction.connection
            found = self._read(connection.execute(self._find, {"that": grant_id.encode()}).fetchall())
            if not found:
                return None
            if found[0].grant.ended_ms is not None:
                return found[0]
            return self._end(connection, found[0], self._is_due(found[0], ()) or why)

    def end_due(self, dead_tokens: Collection[int]) -> Sequence[FlowGrant]:
        """Ends what is over by its time, or with one of these tokens; gives those that nobody ended before."""
        if not any(self._is_due(each, dead_tokens) for each in self._read(self._session.read(self._open))):
            return []
        with self._session.transaction(self._lock) as transaction:
            connection = transaction.connection
            due = {
                each: why
                for each in self._read(connection.execute(self._open).fetchall())
                if (why := self._is_due(each, dead_tokens))
            }
            return [self._end(connection, each, why) for each, why in due.items()]

    def list_kept(self) -> Sequence[FlowGrant]:
        """Those in force and those that ended lately, the newest first."""
        return self._read(self._session.read(self._all))

    def live_tokens(self) -> set[int]:
        """The delegation tokens that grants in force are for."""
        now_ms = self._clock_ms()
        live = (each for each in self._read(self._session.read(self._open)) if each.is_live(now_ms))
        return {each.grant.token for each in live if each.grant.token is not None}

    def find_live(self, connection: Connection, session: bytes, user: str, now_ms: int) -> Sequence[FlowGrant]:
        """What this session of this user is granted now."""
        found = self._read(connection.execute(self._of_session, {"of": session}).fetchall())
        return [each for each in found if each.session == session and each.grant.user == user and each.is_live(now_ms)]

    # -- rows

    def _is_due(self, each: FlowGrant, dead_tokens: Collection[int]) -> str | None:
        if each.grant.ended_ms is not None:
            return None
        if self._clock_ms() >= each.grant.not_after_ms:
            return TIME
        return TOKEN if each.grant.token in dead_tokens else None

    def _end(self, connection: Connection, found: FlowGrant, why: str) -> FlowGrant:
        ended = found.ended(self._clock_ms(), why)
        row = self._row(ended)
        connection.execute(self._update.values({**row, "id": bindparam("that")}), {"that": row["id"]})
        return ended

    def _row(self, new: FlowGrant) -> dict[str, Any]:
        document = msgspec.json.encode(new)
        return {
            "id": new.grant.id.encode(),
            "session": new.session,
            "made_ms": new.grant.created_ms,
            "ended_ms": _NEVER if new.grant.ended_ms is None else new.grant.ended_ms,
            "document": document,
            "tag": self._tag(document),
        }

    def _read(self, rows: Sequence[Any]) -> list[FlowGrant]:
        """What is written in those rows that this store wrote; the columns beside the document only find them."""
        found = []
        for row in rows:
            document = bytes(row.document)
            if hmac.compare_digest(bytes(row.tag), self._tag(document)):
                found.append(_DECODER.decode(document))
            else:
                _log.error("a grant in the flow memory is not one that this key store wrote: it admits nothing")
        return found

    def _tag(self, document: bytes) -> bytes:
        return hmac.digest(self._tag_key, _CONTEXT + document, "sha256")
