"""Changes of a store: each is committed by one write of the head, which says what it writes to other documents.

Rules:

1. What a head has pending is written out before anything else is done with that head, by whoever reads it. Every
   document says in `as_of` which version of the head told it, and is never written over by an earlier one: so it does
   not matter who writes it out, nor how often.
2. A change is acknowledged when its documents are there, so that a single read finds it.
3. Whoever loses the head begins again with the new one. Nothing is locked; writers of one process take turns.
"""

from __future__ import annotations

import json
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from ringfence_agent.keystore.authenticator import Ledger
from ringfence_agent.keystore.rows.changes import WRITE_WAIT_S
from ringfence_agent.keystore.rows.kinds import KeyVersionRow, PolicyRow, ZoneKeyRow
from ringfence_agent.keystore.rows.prepared import Prepared
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.slots import read_slots
from ringfence_agent.keystore.vault_kv.documents import Body, Document, VaultDocuments
from ringfence_agent.keystore.vault_kv.head import Head, Redo
from ringfence_agent.keystore.vault_kv.rows import HEAD, REDO, tokens_body, tokens_of
from ringfence_zones.errors import StoreUnavailableError

T = TypeVar("T")

# Within the patience of whoever waits for a change, with room for one write that hangs.
_DEADLINE_S = 12.0
_BACKOFF_S, _MAX_BACKOFF_S = 0.005, 0.1
# What is more goes to documents of its own, and out of the head as soon as it is done.
_MAX_INLINE_BYTES = 128 * 1024
_MAX_KEPT_BYTES = 8 * 1024
_REDO_BYTES = 500_000
_NAME_BYTES = 16


@dataclass(slots=True)
class HeadChange:
    """One attempt at a change: `head` becomes the next one, and `ledger` what it seals."""

    head: Head
    ledger: Ledger
    documents: VaultDocuments = field(repr=False)
    records: Records = field(repr=False)
    is_dropped: bool = False
    versions: dict[str, int] = field(default_factory=dict)
    bodies: dict[str, Body] = field(default_factory=dict)

    def find(self, path: str) -> Document | None:
        """A document as this change leaves it so far; no other change comes between this and the commit."""
        if path in self.bodies:
            return Document(path, self.versions[path], self.bodies[path])
        found = self.documents.find(path)
        self.versions[path] = 0 if found is None else found.version
        return found

    def put(self, path: str, body: Body) -> None:
        """Writes a document, which was looked for before, when the change is committed."""
        self.bodies[path] = body

    def change_tokens(self, path: str, operation: str, *arguments: int) -> None:
        """Changes a document of tokens when the change is committed: see `_changed_tokens`."""
        self.head.pending.append(["tokens", path, operation, *arguments])

    def add(self, row: ZoneKeyRow | KeyVersionRow | PolicyRow) -> None:
        """A row comes in."""
        self.ledger.add(self.records.element(row))

    def remove(self, row: ZoneKeyRow | KeyVersionRow | PolicyRow) -> None:
        """A row, or the earlier state of one, goes out."""
        self.ledger.remove(self.records.element(row))

    def drop(self) -> None:
        """There is nothing to change after all."""
        self.is_dropped = True


class Journal:
    """See the module. Used from any thread."""

    def __init__(self, documents: VaultDocuments, records: Records) -> None:
        self._documents = documents
        self._records = records
        self._turn = threading.Lock()
        self._written_out = 0

    def read(self) -> Head:
        """The newest head, with all that it told written out. Raises StoreTamperedError, StoreUnavailableError."""
        document = self._documents.find(HEAD)
        if document is None:
            raise self._documents.tampered("its head is missing")
        head = Head.of(document)
        self._write_out(head, {})
        return head

    def change(self, key_name: str | None, attempt: Callable[[HeadChange], T], prepared: Prepared | None = None) -> T:
        """One change of keys, policy or slots; `key_name` as `Head.note_change` takes it. An exception in `attempt`
        changes nothing; it may be called again. Raises SealsMissing, without a change, as `prepared` does.
        """

        def counted(change: HeadChange) -> T:
            value = attempt(change)
            if prepared is not None and not change.is_dropped:
                prepared.check_complete()
            change.ledger.writes += 1
            change.head.note_change(change.ledger.writes, key_name)
            sealed = self._records.seal_ledger(change.ledger)
            change.head.header = change.head.header._replace(ledger=sealed)
            return value

        return self.change_rest(counted)

    def change_rest(self, attempt: Callable[[HeadChange], T]) -> T:
        """One change of what is not counted: notes and tokens."""
        with self._my_turn():
            deadline = time.monotonic() + _DEADLINE_S
            tries = 0
            while True:
                head = self.read()
                change = self._begin(head)
                if change is not None:
                    value = attempt(change)
                    if change.is_dropped:
                        return value
                    if self._commit(change):
                        self._finish(change)
                        return value
                if time.monotonic() > deadline:
                    raise StoreUnavailableError(
                        f"others changed key store {self._documents.label} each time this change was to be made;"
                        " nothing was changed",
                        hint="try again",
                    )
                time.sleep(random.uniform(0, min(_BACKOFF_S * 2**tries, _MAX_BACKOFF_S)))  # noqa: S311 - jitter
                tries += 1

    def commit_whole(self, head: Head) -> bool:
        """Writes a head that was made without an attempt, and what it has pending. False when somebody was first."""
        change = HeadChange(head, Ledger(), self._documents, self._records)
        if not self._commit(change):
            return False
        self._finish(change)
        return True

    def _begin(self, head: Head) -> HeadChange | None:
        """None for a head that is not the newest any more, by what another thread has seen since."""
        slots = head.header.protector_header
        if read_slots(slots).revision < self._records.protection.header.revision:
            return None
        self._records.adopt_slots(slots)
        ledger = self._records.open_ledger(head.header.ledger)
        return HeadChange(head.successor(), ledger, self._documents, self._records)

    def _commit(self, change: HeadChange) -> bool:
        head = change.head
        head.pending += [["put", path, body] for path, body in change.bodies.items()]
        if len(json.dumps(head.pending)) > _MAX_INLINE_BYTES:
            head.pending = [["redo", path] for path in self._write_redo(head.pending)]
        return self._documents.write(HEAD, head.to_body(), head.version - 1)

    def _finish(self, change: HeadChange) -> None:
        """Writes out what was committed. It was made, so what stands in the way is tried again for a while."""
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            try:
                return self._write_out(change.head, change.versions)
            except StoreUnavailableError as error:
                if time.monotonic() > deadline:
                    raise StoreUnavailableError(
                        f"a change of key store {self._documents.label} was made, but it is not to be seen everywhere"
                        f" before Vault answers again ({error.message})",
                        hint=error.hint,
                        may_have_changed=True,
                    ) from None
                time.sleep(_MAX_BACKOFF_S)

    def _write_out(self, head: Head, versions: Mapping[str, int]) -> None:
        if not head.pending or head.version <= self._written_out:
            return
        for redo in self._expanded(head.pending):
            self._apply(redo, head.version, versions.get(redo[1]))
        self._written_out = max(self._written_out, head.version)
        if len(json.dumps(head.pending)) > _MAX_KEPT_BYTES or head.pending[0][0] == "redo":
            # Each look would read it. When another change comes first, that takes it out.
            self._documents.write(HEAD, head.successor().to_body(), head.version)

    def _apply(self, redo: Redo, as_of: int, version: int | None) -> None:
        kind, path, *arguments = redo
        if kind == "over":
            body, replaced = arguments
            if not self._documents.write(path, {**body, "as_of": as_of}, replaced):
                self._documents.find(path)  # it is there, and ours
            return
        while True:
            there = self._documents.find(path) if version is None or kind != "put" else None
            if there is not None and there.body["as_of"] >= as_of:
                return
            body = arguments[0] if kind == "put" else _changed_tokens(there, *arguments)
            replaced = there.version if there is not None else version or 0
            if self._documents.write(path, {**body, "as_of": as_of}, replaced):
                return
            version = None

    def _expanded(self, pending: list[Redo]) -> Iterator[Redo]:
        for redo in pending:
            if redo[0] != "redo":
                yield redo
                continue
            document = self._documents.find_version(redo[1], 1)
            if document is None:
                raise self._documents.tampered(f"its document {redo[1]}, which a change has yet to follow, is missing")
            yield from document.body["redo"]

    def _write_redo(self, pending: list[Redo]) -> Iterator[str]:
        batch: list[Redo] = []
        size = 0
        for redo in [*pending, None]:
            length = 0 if redo is None else len(json.dumps(redo))
            if batch and (redo is None or size + length > _REDO_BYTES):
                path = f"{REDO}/{secrets.token_hex(_NAME_BYTES)}"
                self._documents.write(path, {"redo": batch}, 0)
                yield path
                batch, size = [], 0
            if redo is not None:
                batch.append(redo)
                size += length

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        self._documents.check_usable()
        if not self._turn.acquire(timeout=WRITE_WAIT_S):
            raise StoreUnavailableError(
                f"key store {self._documents.label} was busy in another thread for {WRITE_WAIT_S:g} s;"
                " nothing was changed"
            )
        try:
            yield
        finally:
            self._turn.release()


def _changed_tokens(document: Document | None, operation: str, *arguments: int) -> Body:
    """`cancel NUMBER`, `renew NUMBER EXPIRES_MS` (never backwards), `expire NOW_MS`."""
    tokens = tokens_of(document)
    if operation == "cancel":
        tokens.pop(arguments[0], None)
    elif operation == "renew":
        number, expires_ms = arguments
        if number in tokens:
            tokens[number] = tokens[number]._replace(expires_ms=max(tokens[number].expires_ms, expires_ms))
    else:
        tokens = {number: row for number, row in tokens.items() if row.expires_ms >= arguments[0]}
    return tokens_body(tokens)
