"""Delegation tokens in SQL tables: see `token_store` for the rules and `session` for the transactions.

Writers of tokens take turns by the one row of `token_state`, apart from writers of keys. Numbers of tokens are taken
from it in blocks, so that most new tokens cost one transaction; what is left of a block at the end is a gap.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from ringfence_agent.keystore.rows.kinds import TokenMasterKeyRow, TokenRow, TokenStateRow
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.sql.session import SqlSession
from ringfence_agent.keystore.sql.tables import DELEGATION_TOKEN, TOKEN_MASTER_KEY, TOKEN_STATE
from ringfence_agent.keystore.token_store import MasterKey, TokenRecord
from ringfence_zones.secret import Secret

_BLOCK = 64

_MASTER_KEY_COLUMNS = [TOKEN_MASTER_KEY.c[name] for name in TokenMasterKeyRow._fields]
_SELECT_STATE = select(*(TOKEN_STATE.c[name] for name in TokenStateRow._fields), TOKEN_STATE.c.tag)
_LOCK_STATE = _SELECT_STATE.with_for_update()
_SELECT_MASTER_KEYS = select(*_MASTER_KEY_COLUMNS).order_by(TOKEN_MASTER_KEY.c.key_id)
_SELECT_TOKEN = select(*(DELEGATION_TOKEN.c[name] for name in TokenRow._fields), DELEGATION_TOKEN.c.tag).where(
    DELEGATION_TOKEN.c.sequence == bindparam("number")
)
_UPDATE_STATE = update(TOKEN_STATE)
_UPDATE_TOKEN = update(DELEGATION_TOKEN).where(DELEGATION_TOKEN.c.sequence == bindparam("number"))
_DELETE_TOKEN = delete(DELEGATION_TOKEN).where(DELEGATION_TOKEN.c.sequence == bindparam("number"))
_DELETE_EXPIRED_TOKENS = delete(DELEGATION_TOKEN).where(DELEGATION_TOKEN.c.expires_ms < bindparam("now_ms"))
_DELETE_EXPIRED_KEYS = delete(TOKEN_MASTER_KEY).where(
    TOKEN_MASTER_KEY.c.expires_ms < bindparam("now_ms"), TOKEN_MASTER_KEY.c.key_id < bindparam("newest")
)


@dataclass(slots=True)
class _TokenChange:
    """A write transaction under way; `state` is written back at its end when it is another one."""

    connection: Connection
    state: TokenStateRow

    def count(self) -> None:
        """Something that others may remember is no longer so."""
        self.state = self.state._replace(changes=self.state.changes + 1)


class SqlTokens:
    """See `token_store.TokenStore`."""

    def __init__(self, session: SqlSession, records: Records) -> None:
        self._session = session
        self._records = records
        self._block = iter(range(0))
        self._block_lock = threading.Lock()

    def list_master_keys(self) -> Sequence[MasterKey]:
        """See TokenStore."""
        return [
            self._records.open_master_key(TokenMasterKeyRow(*row)) for row in self._session.read(_SELECT_MASTER_KEYS)
        ]

    def add_master_key(self, after: int, secret: Secret, created_ms: int, expires_ms: int) -> MasterKey:
        """See TokenStore."""
        with self._token_change() as change:
            if change.state.newest_key_id == after:
                change.state = change.state._replace(newest_key_id=after + 1)
                change.count()
                row = self._records.seal_master_key(MasterKey(after + 1, secret, created_ms, expires_ms))
                change.connection.execute(insert(TOKEN_MASTER_KEY), row._asdict())
            rows = change.connection.execute(_SELECT_MASTER_KEYS).fetchall()
            newest = TokenMasterKeyRow(*rows[-1]) if rows else None
            if newest is None or newest.key_id != change.state.newest_key_id:
                raise self._records.tampered("the newest master key of delegation tokens is missing")
        return self._records.open_master_key(newest)

    def next_sequence(self) -> int:
        """See TokenStore."""
        with self._block_lock:
            number = next(self._block, None)
            if number is None:
                with self._token_change() as change:
                    first = change.state.next_sequence
                    change.state = change.state._replace(next_sequence=first + _BLOCK)
                self._block = iter(range(first, first + _BLOCK))
                number = next(self._block)
            return number

    def skip_sequences(self, count: int) -> None:
        """Leaves a gap, for a restore of an earlier state: the numbers after it were given out."""
        with self._token_change() as change:
            change.state = change.state._replace(next_sequence=change.state.next_sequence + count)

    def add_token(self, token: TokenRecord) -> None:
        """See TokenStore."""
        row = TokenRow(token.sequence, token.identifier, token.expires_ms)
        with self._token_change() as change:
            change.connection.execute(insert(DELEGATION_TOKEN), self._records.tagged(row))

    def find_token(self, sequence: int) -> TokenRecord | None:
        """See TokenStore."""
        rows = self._session.read(_SELECT_TOKEN, number=sequence)
        return TokenRecord(*self._open_token(rows[0])) if rows else None

    def renew_token(self, sequence: int, expires_ms: int) -> TokenRecord | None:
        """See TokenStore."""
        with self._token_change() as change:
            found = change.connection.execute(_SELECT_TOKEN, {"number": sequence}).one_or_none()
            if found is None:
                return None
            old = self._open_token(found)
            new = old._replace(expires_ms=max(old.expires_ms, expires_ms))
            change.connection.execute(_UPDATE_TOKEN, {"number": sequence, **self._records.tagged(new)})
            change.count()
        return TokenRecord(*new)

    def cancel_token(self, sequence: int) -> bool:
        """See TokenStore."""
        with self._token_change() as change:
            found = change.connection.execute(_DELETE_TOKEN, {"number": sequence}).rowcount == 1
            if found:
                change.count()
        return found

    def remove_expired(self, now_ms: int) -> int:
        """See TokenStore."""
        with self._token_change() as change:
            tokens = change.connection.execute(_DELETE_EXPIRED_TOKENS, {"now_ms": now_ms}).rowcount
            newest = {"now_ms": now_ms, "newest": change.state.newest_key_id}
            if tokens + change.connection.execute(_DELETE_EXPIRED_KEYS, newest).rowcount:
                change.count()
        return tokens

    def token_change_number(self) -> int:
        """See TokenStore."""
        rows = self._session.read(_SELECT_STATE)
        return self._open_state(rows[0] if len(rows) == 1 else None).changes

    @contextmanager
    def _token_change(self) -> Iterator[_TokenChange]:
        with self._session.transaction(_LOCK_STATE) as transaction:
            before = self._open_state(transaction.row)
            change = _TokenChange(transaction.connection, before)
            yield change
            if change.state != before:
                change.connection.execute(_UPDATE_STATE, self._records.tagged(change.state))

    def _open_state(self, row: Sequence[object] | None) -> TokenStateRow:
        if row is None:
            raise self._records.tampered("the row that numbers delegation tokens is missing")
        *fields, tag = row
        state = TokenStateRow(*fields)  # type: ignore[arg-type]  # check_tag is what looks at the types
        self._records.check_tag(state, tag)  # type: ignore[arg-type]
        return state

    def _open_token(self, found: Sequence[object]) -> TokenRow:
        *fields, tag = found
        row = TokenRow(*fields)  # type: ignore[arg-type]
        self._records.check_tag(row, tag)  # type: ignore[arg-type]
        return row
