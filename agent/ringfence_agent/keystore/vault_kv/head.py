"""The head: the one document whose writes commit every change of a store.

It holds what is asked for all the time, so that one read answers it, and what the newest change still has to write to
other documents (`pending`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from ringfence_agent.keystore.interface import ChangeOrigin, UnconfirmedChange
from ringfence_agent.keystore.rows.changes import KEPT_CHANGES, NO_KEY, SEVERAL_KEYS
from ringfence_agent.keystore.rows.header import FIRST_TOKEN_STATE
from ringfence_agent.keystore.rows.kinds import SCHEMA_VERSION, HeaderRow, TokenMasterKeyRow, TokenStateRow
from ringfence_agent.keystore.vault_kv.documents import Body, Document, RawDocument, VaultDocuments
from ringfence_agent.keystore.vault_kv.rows import bytes_of, text_of
from ringfence_zones.errors import StoreUnavailableError

LAYOUT = 1
"""Of documents, as this release writes them. A release that knows a newer one writes a greater number."""
_MAX_CHANGES_BYTES = 16 * 1024

Redo = list[Any]
"""One thing to write: `["put", path, body]`; `["over", path, body, version]` over exactly that version, which another
root tagged; `["tokens", path, operation, argument, ...]`; or `["redo", path]`, a document with more of them."""


@dataclass(slots=True)
class Head:
    """One version of it. `version` is KV's, 0 before the first; `format` that of the rows (`rows.kinds`).

    `changed` has the newest change of each key that changed after `changes_after`, by the number of the change.
    """

    version: int
    format: int
    header: HeaderRow
    policy: str | None = None
    changes_after: int = 0
    changed: dict[str, int] = field(default_factory=dict)
    notes: list[UnconfirmedChange] = field(default_factory=list)
    tokens: TokenStateRow = FIRST_TOKEN_STATE
    master_keys: list[TokenMasterKeyRow] = field(default_factory=list)
    pending: list[Redo] = field(default_factory=list)

    def successor(self) -> Head:
        """A copy to be changed into the next version, with nothing pending."""
        return replace(
            self,
            version=self.version + 1,
            changed=dict(self.changed),
            notes=list(self.notes),
            master_keys=list(self.master_keys),
            pending=[],
        )

    def note_change(self, number: int, key_name: str | None) -> None:
        """Writes down which key a change changed; `NO_KEY` for none, `SEVERAL_KEYS` for more than one."""
        if key_name is SEVERAL_KEYS:
            self.changes_after, self.changed = number, {}
            return
        if key_name != NO_KEY:
            self.changed.pop(key_name, None)  # it is the newest now
            self.changed[key_name] = number
        self._forget_changes(max(self.changes_after, number - KEPT_CHANGES))
        size = len(json.dumps(self.changed))
        while size > _MAX_CHANGES_BYTES:
            oldest = next(iter(self.changed))
            size -= len(json.dumps(oldest))
            self._forget_changes(self.changed[oldest])

    def _forget_changes(self, until: int) -> None:
        self.changes_after = until
        self.changed = {name: number for name, number in self.changed.items() if number > until}

    def to_body(self) -> Body:
        """As it rests."""
        header = self.header
        return {
            "layout": LAYOUT,
            "format": self.format,
            "store_id": header.store_id.hex(),
            "created_ms": header.created_ms,
            "protector": header.protector,
            "slots": text_of(header.protector_header),
            "ledger": text_of(header.ledger),
            "policy": self.policy,
            "changes_after": self.changes_after,
            "changed": self.changed,
            "notes": [_note_fields(note) for note in self.notes],
            "tokens": list(self.tokens),
            "master_keys": [
                [key.key_id, key.created_ms, key.expires_ms, text_of(key.sealed)] for key in self.master_keys
            ],
            "pending": self.pending,
        }

    @classmethod
    def of(cls, document: Document) -> Head:
        """The head in a document that was checked."""
        body = document.body
        return cls(
            version=document.version,
            format=body["format"],
            header=_header(body),
            policy=body["policy"],
            changes_after=body["changes_after"],
            changed=body["changed"],
            notes=[_note(fields) for fields in body["notes"]],
            tokens=TokenStateRow(*body["tokens"]),
            master_keys=[
                TokenMasterKeyRow(key_id, created_ms, expires_ms, bytes_of(sealed))
                for key_id, created_ms, expires_ms, sealed in body["master_keys"]
            ],
            pending=body["pending"],
        )


def read_unproven_header(documents: VaultDocuments, raw: RawDocument) -> tuple[int, HeaderRow]:
    """Format and header row of a head that nobody can check yet, since the root is in it.

    Raises StoreTamperedError, StoreUnavailableError for one that only a newer release can read.
    """
    try:
        body = json.loads(raw.text)
        layout, version = body["layout"], body["format"]
        if type(layout) is not int or type(version) is not int:
            raise documents.tampered("its head was changed")
        if layout > LAYOUT or version > SCHEMA_VERSION:
            raise StoreUnavailableError(
                f"key store {documents.label} has layout {layout} and format {version}; this release of Ringfence reads"
                f" them up to {LAYOUT} and {SCHEMA_VERSION}",
                hint="run the newer release that wrote it, or upgrade this one",
            )
        header = _header(body)
        if type(header.created_ms) is int and isinstance(header.protector, str):
            return version, header
    except (ValueError, KeyError, TypeError):
        pass
    raise documents.tampered("its head was changed")


def _header(body: Body) -> HeaderRow:
    return HeaderRow(
        bytes.fromhex(body["store_id"]),
        body["created_ms"],
        body["protector"],
        bytes_of(body["slots"]),
        bytes_of(body["ledger"]),
    )


def _note_fields(note: UnconfirmedChange) -> list[object]:
    origin = note.origin
    return [note.key_name, note.version, origin.user, text_of(origin.request_digest), note.owner_id, note.made_ms]


def _note(fields: list[Any]) -> UnconfirmedChange:
    key_name, version, user, digest, owner_id, made_ms = fields
    return UnconfirmedChange(key_name, version, ChangeOrigin(user, bytes_of(digest)), owner_id, made_ms)
