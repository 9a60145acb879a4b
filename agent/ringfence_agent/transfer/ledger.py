"""What the agent remembers of transfers, in a SQLite file of its state directory: on disk before anybody is told.

Rules:

1. Every change is one transaction, written through to the disk (`synchronous=FULL`) before the method returns. A step
   of a transfer is recorded after what it claims was done, and before the next one begins.
2. A transfer only moves forward: a step names the state that it leaves, and is refused when it is another.
3. One process has it (the agent's state directory is locked); its threads share one connection behind a lock.
4. Nothing in it is secret: paths, digests, names. It holds receipts, for as long as the file is kept.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ringfence_agent.transfer.record import Allowed, Grant, Item, Job, Problem, Request, State, Tally, Transfer
from ringfence_zones.errors import ConfigError, TransferError, TransferNotFoundError

_VERSION = 1
_BUSY_S = 10.0
_SCHEMA = """
CREATE TABLE transfers (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    owner TEXT NOT NULL,
    idempotency_key TEXT,
    request TEXT NOT NULL,
    allowed TEXT NOT NULL,
    granted TEXT,
    problem TEXT,
    submitted_ms INTEGER NOT NULL,
    finished_ms INTEGER,
    source_id INTEGER,
    staging_id INTEGER,
    source_removed INTEGER NOT NULL DEFAULT 0,
    files INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    files_verified INTEGER NOT NULL DEFAULT 0,
    bytes_verified INTEGER NOT NULL DEFAULT 0,
    receipt BLOB,
    UNIQUE (owner, idempotency_key)
) STRICT;
CREATE TABLE items (
    transfer TEXT NOT NULL REFERENCES transfers (id),
    path TEXT NOT NULL,
    is_directory INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    owner TEXT NOT NULL,
    owning_group TEXT NOT NULL,
    modified_ms INTEGER NOT NULL,
    accessed_ms INTEGER NOT NULL,
    file_id INTEGER NOT NULL,
    key_version TEXT,
    sha256 TEXT,
    copy_id INTEGER,
    copy_modified_ms INTEGER,
    copy_key_version TEXT,
    PRIMARY KEY (transfer, path)
) STRICT, WITHOUT ROWID;
"""
# Of the transfers that are copied on YARN; younger than version 1, which has no transfer of that kind.
_JOBS = """
CREATE TABLE IF NOT EXISTS jobs (
    transfer TEXT PRIMARY KEY REFERENCES transfers (id),
    number INTEGER NOT NULL,
    application TEXT
) STRICT, WITHOUT ROWID
"""
_TRANSFER = """
SELECT id, state, request, allowed, granted, problem, submitted_ms, finished_ms, source_id, staging_id, source_removed,
    files, bytes, files_verified, bytes_verified
FROM transfers
"""
_ITEM = """
SELECT path, is_directory, bytes, mode, owner, owning_group, modified_ms, accessed_ms, file_id, key_version, sha256,
    copy_id, copy_modified_ms, copy_key_version
FROM items WHERE transfer = ? ORDER BY path
"""
_COUNT_FILE = "UPDATE transfers SET files = files + 1, bytes = bytes + ? WHERE id = ?"


class Ledger:
    """See the module."""

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes it (0600). Raises ConfigError when it cannot be used."""
        self._lock = threading.RLock()
        try:
            path.touch(0o600, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=64
            )
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"cannot use the ledger of transfers {path}: {error}",
                hint="give the agent's state directory room and rights; a damaged file may be moved away, but transfers"
                " that were under way then leave what they staged",
            ) from error

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA foreign_keys = ON")
        (found,) = run("PRAGMA user_version").fetchone()
        if found not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"its format {found} is of another release")
        with self._transaction():
            if found == 0:
                for statement in _SCHEMA.split(";\n"):
                    run(statement)
                run(f"PRAGMA user_version = {_VERSION}")
            run(_JOBS)

    def close(self) -> None:
        """Lets go of the file."""
        with self._lock:
            self._connection.close()

    # Reading

    def get(self, transfer_id: str) -> Transfer:
        """One transfer. Raises TransferNotFoundError."""
        found = self._read(_TRANSFER + " WHERE id = ?", (transfer_id,))
        if not found:
            raise TransferNotFoundError(f"there is no transfer {transfer_id}")
        return _transfer(found[0])

    def list_transfers(self, owner: str | None, limit: int) -> list[Transfer]:
        """The newest ones of a user (of all when None), newest first."""
        where = " WHERE ? IN (owner, '') ORDER BY number DESC LIMIT ?"
        return [_transfer(row) for row in self._read(_TRANSFER + where, (owner or "", limit))]

    def list_unfinished(self) -> list[Transfer]:
        """Those under way, oldest first."""
        final = tuple(state.value for state in State if state.is_final)
        return [_transfer(row) for row in self._read(_TRANSFER + " WHERE state NOT IN (?, ?) ORDER BY number", final)]

    def tally(self) -> Tally:
        """All transfers, counted."""
        rows = self._read("SELECT state, count(*), sum(bytes_verified) FROM transfers GROUP BY state", ())
        return Tally({State(state): count for state, count, _ in rows}, sum(size for _, _, size in rows))

    def count_unfinished(self, owner: str) -> int:
        """How many of a user's are not over."""
        final = tuple(state.value for state in State if state.is_final)
        where = "SELECT count(*) FROM transfers WHERE owner = ? AND state NOT IN (?, ?)"
        return int(self._read(where, (owner, *final))[0][0])

    def find_repeated(self, owner: str, idempotency_key: str) -> Transfer | None:
        """The transfer that a user asked for with this key."""
        found = self._read(_TRANSFER + " WHERE owner = ? AND idempotency_key = ?", (owner, idempotency_key))
        return _transfer(found[0]) if found else None

    def items(self, transfer_id: str) -> list[Item]:
        """What a transfer consists of, by path: a directory before what it holds."""
        return [_item(row) for row in self._read(_ITEM, (transfer_id,))]

    def find_job(self, transfer_id: str) -> Job | None:
        """The job of a transfer that is copied on YARN; None for one that is not."""
        found = self._read("SELECT number, application FROM jobs WHERE transfer = ?", (transfer_id,))
        return Job(*found[0]) if found else None

    def get_job(self, transfer_id: str) -> Job:
        """As `find_job`, of a transfer that is known to be copied on YARN."""
        job = self.find_job(transfer_id)
        assert job is not None
        return job

    def find_receipt(self, transfer_id: str) -> bytes | None:
        """The signed receipt; None before there is one."""
        found = self._read("SELECT receipt FROM transfers WHERE id = ?", (transfer_id,))
        return found[0][0] if found else None

    def _read(self, query: str, arguments: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._connection.execute(query, arguments).fetchall()
            except sqlite3.Error as error:
                raise TransferError(f"the ledger of transfers cannot be read: {error}") from error

    # Steps

    def add(
        self,
        transfer_id: str,
        request: Request,
        allowed: Allowed,
        submitted_ms: int,
        state: State,
        idempotency_key: str | None = None,
    ) -> None:
        """A new transfer, QUEUED or WAITING. A user's idempotency key is used once."""
        with self._transaction() as run:
            run(
                "INSERT INTO transfers (id, state, owner, idempotency_key, request, allowed, submitted_ms)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    transfer_id,
                    state,
                    request.user,
                    idempotency_key,
                    request.model_dump_json(),
                    allowed.model_dump_json(),
                    submitted_ms,
                ),
            )

    def approve(self, transfer_id: str, grant: Grant) -> None:
        """Somebody said yes: WAITING becomes QUEUED."""
        with self._step(transfer_id, State.WAITING, State.QUEUED) as run:
            run("UPDATE transfers SET granted = ? WHERE id = ?", (grant.model_dump_json(), transfer_id))

    def begin(self, transfer_id: str, items: Iterable[Item], source_id: int, *, by_job: bool = False) -> None:
        """What the source holds, and whether it is copied on YARN: QUEUED becomes COPYING."""
        with self._step(transfer_id, State.QUEUED, State.COPYING) as run:
            if by_job:
                run("INSERT INTO jobs (transfer, number) VALUES (?, 0)", (transfer_id,))
            run("UPDATE transfers SET source_id = ? WHERE id = ?", (source_id, transfer_id))
            for item in items:
                if not item.is_directory:
                    run(_COUNT_FILE, (item.bytes, transfer_id))
                run(
                    "INSERT INTO items (transfer, path, is_directory, bytes, mode, owner, owning_group, modified_ms,"
                    " accessed_ms, file_id, key_version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        transfer_id,
                        item.path,
                        item.is_directory,
                        item.bytes,
                        item.mode,
                        item.owner,
                        item.group,
                        item.modified_ms,
                        item.accessed_ms,
                        item.file_id,
                        item.key_version,
                    ),
                )

    def job_started(self, transfer_id: str, number: int) -> None:
        """A job of this number is about to be submitted; of those before it nothing counts any more."""
        with self._transaction() as run:
            run("UPDATE jobs SET number = ?, application = NULL WHERE transfer = ?", (number, transfer_id))

    def job_found(self, transfer_id: str, application: str) -> None:
        """YARN has the job under this id."""
        with self._transaction() as run:
            run("UPDATE jobs SET application = ? WHERE transfer = ?", (application, transfer_id))

    def verified(self, transfer_id: str, path: str, sha256: str) -> None:
        """One file was copied and its copy read back as the same. Said again, it changes nothing."""
        with self._transaction() as run:
            run(
                "UPDATE transfers SET files_verified = files_verified + 1, bytes_verified = bytes_verified + item.bytes"
                " FROM (SELECT bytes FROM items WHERE transfer = ?1 AND path = ?2 AND sha256 IS NULL) AS item"
                " WHERE id = ?1",
                (transfer_id, path),
            )
            run(
                "UPDATE items SET sha256 = ? WHERE transfer = ? AND path = ? AND sha256 IS NULL",
                (sha256, transfer_id, path),
            )

    def ready(self, transfer_id: str, copies: Iterable[Item], staging_id: int) -> None:
        """Everything is verified, with what the copies are: COPYING becomes PLACING."""
        with self._step(transfer_id, State.COPYING, State.PLACING) as run:
            run("UPDATE transfers SET staging_id = ? WHERE id = ?", (staging_id, transfer_id))
            for item in copies:
                run(
                    "UPDATE items SET copy_id = ?, copy_modified_ms = ?, copy_key_version = ?"
                    " WHERE transfer = ? AND path = ?",
                    (item.copy_id, item.copy_modified_ms, item.copy_key_version, transfer_id, item.path),
                )

    def placed(self, transfer_id: str) -> None:
        """The copy is where it belongs and the source is to go: PLACING becomes REMOVING."""
        with self._step(transfer_id, State.PLACING, State.REMOVING):
            pass

    def removed(self, transfer_id: str, problem: Problem | None) -> None:
        """The source is gone, or stays for this reason."""
        with self._transaction() as run:
            run(
                "UPDATE transfers SET source_removed = ?, problem = ? WHERE id = ?",
                (problem is None, _json(problem), transfer_id),
            )

    def done(self, transfer_id: str, receipt: bytes, finished_ms: int) -> None:
        """It is over and receipted."""
        state = self.get(transfer_id).state
        if state not in (State.PLACING, State.REMOVING):
            raise _wrong_state(transfer_id, state)
        with self._step(transfer_id, state, State.DONE) as run:
            run("UPDATE transfers SET receipt = ?, finished_ms = ? WHERE id = ?", (receipt, finished_ms, transfer_id))

    def failing(self, transfer_id: str, problem: Problem) -> None:
        """It failed for this reason: what was staged is to be removed."""
        with self._transaction() as run:
            run(
                "UPDATE transfers SET state = ?, problem = ? WHERE id = ? AND state NOT IN (?, ?, ?)",
                (State.CLEANING, _json(problem), transfer_id, State.CLEANING, State.DONE, State.FAILED),
            )

    def cancel(self, transfer_id: str, problem: Problem, finished_ms: int) -> None:
        """Somebody wants no more of it: WAITING becomes FAILED; QUEUED and COPYING, where something may be staged,
        CLEANING. Raises TransferError when it is placed, or about to be."""
        waiting, open_states = State.WAITING, (State.WAITING, State.QUEUED, State.COPYING)
        with self._transaction():
            # One statement: between a look and a change the transfer goes on.
            changed = self._connection.execute(
                "UPDATE transfers SET problem = ?, state = iif(state = ?, ?, ?), finished_ms = iif(state = ?, ?, NULL)"
                " WHERE id = ? AND state IN (?, ?, ?)",
                (
                    *(_json(problem), waiting, State.FAILED, State.CLEANING, waiting, finished_ms),
                    *(transfer_id, *open_states),
                ),
            ).rowcount
            if changed != 1:
                raise TransferError(f"{_wrong_state(transfer_id, self.get(transfer_id).state).message}: too late")

    def failed(self, transfer_id: str, problem: Problem, finished_ms: int) -> None:
        """It is over."""
        with self._transaction() as run:
            run(
                "UPDATE transfers SET state = ?, problem = ?, finished_ms = ? WHERE id = ?",
                (State.FAILED, _json(problem), finished_ms, transfer_id),
            )

    @contextmanager
    def _step(self, transfer_id: str, before: State, after: State) -> Iterator[Callable[..., object]]:
        with self._transaction() as run:
            changed = self._connection.execute(
                "UPDATE transfers SET state = ? WHERE id = ? AND state = ?", (after, transfer_id, before)
            ).rowcount
            if changed != 1:
                raise _wrong_state(transfer_id, self.get(transfer_id).state)
            yield run

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., object]]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection.execute
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise TransferError(
                    f"the ledger of transfers cannot be written: {error}",
                    hint="is the disk of the agent's state directory full?",
                ) from error


def _wrong_state(transfer_id: str, state: State) -> TransferError:
    return TransferError(f"the transfer {transfer_id} is {state.value.replace('_', ' ')}")


def _json(problem: Problem | None) -> str | None:
    return None if problem is None else problem.model_dump_json()


def _transfer(row: tuple[Any, ...]) -> Transfer:
    return Transfer(
        id=row[0],
        state=State(row[1]),
        request=Request.model_validate_json(row[2]),
        allowed=Allowed.model_validate_json(row[3]),
        grant=None if row[4] is None else Grant.model_validate_json(row[4]),
        problem=None if row[5] is None else Problem.model_validate_json(row[5]),
        submitted_ms=row[6],
        finished_ms=row[7],
        source_id=row[8],
        staging_id=row[9],
        source_removed=bool(row[10]),
        files=row[11],
        bytes=row[12],
        files_verified=row[13],
        bytes_verified=row[14],
    )


def _item(row: tuple[Any, ...]) -> Item:
    names = ("bytes", "mode", "owner", "group", "modified_ms", "accessed_ms", "file_id", "key_version", "sha256")
    copies = ("copy_id", "copy_modified_ms", "copy_key_version")
    return Item(path=row[0], is_directory=bool(row[1]), **dict(zip((*names, *copies), row[2:], strict=True)))
