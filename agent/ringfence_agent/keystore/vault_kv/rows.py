"""Rows of the store's tables as they rest in documents, and which document holds what.

A document was checked as a whole before it comes here, so what does not fit is a defect of ours, not a stranger's.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ringfence_agent.keystore.rows.kinds import KeyVersionRow, PolicyRow, TokenRow, ZoneKeyRow
from ringfence_agent.keystore.vault_kv.documents import Body, Document

HEAD = "head"
OWNERS = "owners"
KEYS, POLICIES, TOKENS, REDO = "keys", "policies", "tokens", "redo"

_BLOCK_DOCUMENTS = 256
_NAME_BYTES = 8
TOKEN_BLOCK = 16
"""Numbers of delegation tokens that a handle takes at a time; one document holds those of a block."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key and every version there ever was of its name, oldest first."""

    key: ZoneKeyRow
    versions: Sequence[KeyVersionRow]

    @property
    def live_versions(self) -> Sequence[KeyVersionRow]:
        """Those of the key as it is now, not of an earlier one of its name."""
        return [row for row in self.versions if row.version >= self.key.first_version]

    def to_body(self) -> Body:
        """As it rests."""
        versions = [
            [row.version, row.cipher, row.length_bits, row.created_ms, text_of(row.sealed)] for row in self.versions
        ]
        return {"key": list(self.key), "versions": versions}

    @classmethod
    def of(cls, document: Document) -> KeyRecord:
        """The record in a document."""
        key = ZoneKeyRow(*document.body["key"])
        versions = [
            KeyVersionRow(key.name, number, cipher, length_bits, created_ms, bytes_of(sealed))
            for number, cipher, length_bits, created_ms, sealed in document.body["versions"]
        ]
        return cls(key, versions)


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """A published policy, and the document of the one before it; None for the first."""

    row: PolicyRow
    previous: str | None

    def to_body(self) -> Body:
        """As it rests."""
        row = self.row
        document = text_of(row.document)
        return {"policy": [row.revision, document, row.published_by, row.published_ms], "previous": self.previous}

    @classmethod
    def of(cls, document: Document) -> PolicyRecord:
        """The record in a document."""
        revision, content, published_by, published_ms = document.body["policy"]
        return cls(PolicyRow(revision, bytes_of(content), published_by, published_ms), document.body["previous"])


def key_path(name: str) -> str:
    """The document of a key. Its name is not in it: names may be longer than storages take, and of any characters."""
    digest = hashlib.sha256(name.encode()).digest()
    return f"{KEYS}/{base64.b32encode(digest).decode().rstrip('=').lower()}"


def new_policy_path(revision: int) -> str:
    """A document that nobody else writes: it is written before the head says that it is the revision's."""
    return f"{POLICIES}/{revision}-{secrets.token_hex(_NAME_BYTES)}"


def token_path(sequence: int) -> str:
    """The document of a delegation token."""
    return f"{TOKENS}/{sequence // TOKEN_BLOCK % _BLOCK_DOCUMENTS}"


def tokens_of(document: Document | None) -> dict[int, TokenRow]:
    """The tokens in a document, by number."""
    rows = [] if document is None else document.body["tokens"]
    return {sequence: TokenRow(sequence, bytes_of(identifier), expires) for sequence, identifier, expires in rows}


def tokens_body(tokens: dict[int, TokenRow]) -> Body:
    """As they rest."""
    return {"tokens": [[row.sequence, text_of(row.identifier), row.expires_ms] for _, row in sorted(tokens.items())]}


def text_of(content: bytes) -> str:
    """Bytes in a document."""
    return base64.b64encode(content).decode()


def bytes_of(text: Any) -> bytes:
    """Bytes from a document."""
    return base64.b64decode(text, validate=True)
