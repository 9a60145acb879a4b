"""The documents of one store in a KV version 2 engine: a text and its tag, written by check-and-set alone.

Rules:

1. A tag covers path, text and KV version. So what was edited, moved, or written again from an earlier version is not
   believed, and a document is believed before anything of it is used.
2. Nothing goes back: an answer older than what this process has seen is refused. It comes from a node that lost its
   place, or from a Vault that was put back in time.
3. A write that may have been carried out is settled before its outcome is told. Two writes of one text are told apart:
   each carries a random `nonce`.
4. Errors of Vault leave as errors of a key store.

It knows nothing of what documents mean. Used from any thread.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ringfence_agent.keystore.rows.encoding import encode_row
from ringfence_agent.keystore.store_root import StoreRoot
from ringfence_agent.keystore.vault_kv.address import VaultKvAddress
from ringfence_agent.vault.control import VaultControl
from ringfence_agent.vault.kv import KvRecord
from ringfence_zones.errors import (
    KeyStoreError,
    ProtectorRefusedError,
    ProtectorUnavailableError,
    StoreTamperedError,
    StoreUnavailableError,
)

MAX_DOCUMENT_BYTES = 1_000_000
"""As it travels. Vault's own limit is 1 MiB for what it stores."""

VAULT_RESTORE_HINT = (
    "stop the key server, find out who can write there, and restore the store from the newest backup to another place"
)
_TAG_PURPOSE = "vault-kv-document"
_NONCE_BYTES = 8
_OLDER_ANSWERS = 3

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RawDocument:
    """A document before anything of it is believed."""

    path: str
    version: int
    text: str = field(repr=False)
    tag: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Document:
    """What the store wrote as `version` of `path`."""

    path: str
    version: int
    body: Body = field(repr=False)


class VaultDocuments:
    """See the module. Belongs to the process that made it."""

    def __init__(self, control: VaultControl, address: VaultKvAddress) -> None:
        self.label = address.label
        self._control = control
        self._kv = control.kv
        self._address = address
        self._prefix = address.prefix
        self._tag_key = b""
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}
        self._process_id = os.getpid()
        self._closed = False

    def use_root(self, root: StoreRoot) -> None:
        """From here on documents can be told from what others wrote."""
        self._tag_key = root.derive(_TAG_PURPOSE)

    def under(self, root: StoreRoot) -> VaultDocuments:
        """The same place under another root, with nothing seen of it yet."""
        other = VaultDocuments(self._control, self._address)
        other.use_root(root)
        return other

    def find(self, path: str) -> Document | None:
        """The newest version. Raises StoreTamperedError, StoreUnavailableError, KeyStoreError."""
        raw = self.find_raw(path)
        return None if raw is None else self.check(raw)

    def find_version(self, path: str, version: int) -> Document | None:
        """An earlier version; None when it is not kept any more, or never was."""
        raw = self._parse(path, self._read(path, version))
        return None if raw is None else self.check(raw)

    def find_first_raw(self, path: str) -> RawDocument | None:
        """The first version, to be checked later: of documents that never change."""
        return self._parse(path, self._read(path, 1))

    def find_raw(self, path: str) -> RawDocument | None:
        """The newest version, to be checked later. Raises as `find`."""
        for _ in range(_OLDER_ANSWERS):
            seen = self._seen.get(path, 0)  # before the question: what others see meanwhile may be newer
            raw = self._parse(path, self._read(path, None))
            if raw is not None and raw.version >= seen:
                self._note_seen(path, raw.version)
                return raw
            if not seen:
                return None
        if raw is None:
            raise self.tampered(f"its document {path} was there and is gone")
        raise StoreUnavailableError(
            f"{self.label}/{path} is answered as it was before (version {raw.version} after {seen})",
            hint="the node that answers may have lost its place, which passes; or Vault was put back in time: then stop"
            " the key servers, and compare the store with its newest backup",
        )

    def check(self, raw: RawDocument) -> Document:
        """Raises StoreTamperedError for what this store did not write as this version."""
        if not hmac.compare_digest(raw.tag, self._tag(raw.path, raw.version, raw.text)):
            raise self.tampered(
                f"its document {raw.path} was changed or put back, or the store was given a new root while this process"
                " had it open"
            )
        body = json.loads(raw.text)
        assert isinstance(body, dict), "the store writes objects"
        return Document(raw.path, raw.version, body)

    def write(self, path: str, body: Mapping[str, Any], replaces: int) -> bool:
        """Writes the version after `replaces` (0: none was there). False when somebody else was first.

        Raises KeyStoreError for what is too large, StoreUnavailableError with `may_have_changed` when nobody can tell.
        """
        text = json.dumps({**body, "nonce": secrets.token_hex(_NONCE_BYTES)}, separators=(",", ":"))
        tag = self._tag(path, replaces + 1, text)
        data = {"body": text, "tag": base64.b64encode(tag).decode()}
        if len(json.dumps(data)) > MAX_DOCUMENT_BYTES:
            raise KeyStoreError(
                f"{self.label}/{path} would have more than {MAX_DOCUMENT_BYTES} bytes, which Vault does not take;"
                " nothing was changed",
                hint="a key store in a database has no such limit",
            )
        made = self._write(path, data, replaces, tag)
        if made:
            self._note_seen(path, replaces + 1)
        return made

    def list_names(self, folder: str) -> list[str]:
        """The documents of a folder."""
        with self._translated():
            names = self._kv.list_pages(f"{self._prefix}/{folder}")
            return [name for name in names if not name.endswith("/")]

    def list_all(self) -> list[str]:
        """Whatever lies directly below the store's place, folders with a slash."""
        with self._translated():
            return list(self._kv.list_pages(self._prefix))

    def tampered(self, what: str) -> StoreTamperedError:
        """`what` completes the sentence "the store fails its integrity check: ..."."""
        return StoreTamperedError(f"key store {self.label} fails its integrity check: {what}", hint=VAULT_RESTORE_HINT)

    @property
    def is_usable(self) -> bool:
        """Whether it is open, and in the process that opened it."""
        return not self._closed and os.getpid() == self._process_id

    def check_usable(self) -> None:
        """Raises StoreUnavailableError once it is closed, and after a fork."""
        if self._closed:
            raise StoreUnavailableError(f"key store {self.label} is closed")
        if os.getpid() != self._process_id:
            raise StoreUnavailableError(
                f"key store {self.label} was opened by process {self._process_id} and cannot be used after a fork"
            )

    def close(self) -> None:
        """Closes the connections; idempotent. In a forked child it does nothing: they are the parent's."""
        if self.is_usable:
            self._closed = True
            self._control.close()

    def _note_seen(self, path: str, version: int) -> None:
        with self._lock:
            self._seen[path] = max(self._seen.get(path, 0), version)

    def _read(self, path: str, version: int | None) -> KvRecord | None:
        with self._translated():
            return self._kv.find(f"{self._prefix}/{path}", version)

    def _parse(self, path: str, record: KvRecord | None) -> RawDocument | None:
        if record is None:
            return None
        if record.data is None:
            raise self.tampered(f"version {record.version} of its document {path} was deleted")
        text, tag = record.data.get("body"), record.data.get("tag")
        try:
            if isinstance(text, str) and isinstance(tag, str) and record.data.keys() == {"body", "tag"}:
                return RawDocument(path, record.version, text, base64.b64decode(tag, validate=True))
        except binascii.Error:
            pass
        raise self.tampered(f"its document {path} is not one that Ringfence wrote")

    def _tag(self, path: str, version: int, text: str) -> bytes:
        assert self._tag_key, "the root comes first"
        try:
            encoded = encode_row("ringfence/vault-kv", path, version, text)
        except (UnicodeEncodeError, OverflowError):
            return b""  # none that a store ever made
        return hmac.digest(self._tag_key, encoded, "sha256")

    def _write(self, path: str, data: Mapping[str, str], replaces: int, tag: bytes) -> bool:
        place = f"{self._prefix}/{path}"
        with self._translated():
            try:
                return self._kv.write(place, data, replaces) is not None
            except ProtectorUnavailableError as error:
                if not error.may_have_changed:
                    raise
            # Should the first one still be under way, one of the two loses.
            try:
                if self._kv.write(place, data, replaces) is not None:
                    return True
                later = self._parse(path, self._kv.find(place, replaces + 1))
            except ProtectorUnavailableError as error:
                error.may_have_changed = True
                raise
        return later is not None and hmac.compare_digest(later.tag, tag)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        self.check_usable()
        try:
            yield
        except ProtectorUnavailableError as error:
            unknown = ": whether a change was made is not known" if error.may_have_changed else ""
            raise StoreUnavailableError(
                f"key store {self.label} does not answer{unknown} ({error.message})",
                hint=error.hint,
                may_have_changed=error.may_have_changed,
            ) from None
        except ProtectorRefusedError as error:
            raise KeyStoreError(f"key store {self.label} cannot be used: {error.message}", hint=error.hint) from None
