"""Rows to values and back, with every check a row must pass before anything believes it.

Raises StoreTamperedError for a row that this store, with this root key, did not write.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ringfence_agent.keystore.authenticator import Authenticator, Ledger
from ringfence_agent.keystore.held import HeldKey, HeldVersion
from ringfence_agent.keystore.interface import PolicyRevision, SealedKey
from ringfence_agent.keystore.protection import Protection
from ringfence_agent.keystore.protector import MaterialBinding
from ringfence_agent.keystore.rows.encoding import encode_row
from ringfence_agent.keystore.rows.kinds import (
    SEAL_VERSION,
    HeaderRow,
    KeyChangeRow,
    KeyVersionRow,
    PolicyRow,
    TokenMasterKeyRow,
    TokenRow,
    TokenStateRow,
    UnconfirmedRow,
    ZoneKeyRow,
)
from ringfence_agent.keystore.sealing import SealBrokenError, seal, unseal
from ringfence_agent.keystore.slots import SlotHeader
from ringfence_agent.keystore.token_store import MasterKey
from ringfence_zones.errors import StoreTamperedError
from ringfence_zones.keys import KeyMetadata, KeyVersion
from ringfence_zones.secret import Secret

RESTORE_HINT = "stop the key server, keep the file, and restore store and log from the newest backup"
_NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})
TaggedRow = ZoneKeyRow | PolicyRow | KeyChangeRow | UnconfirmedRow | TokenStateRow | TokenRow
_NOT_A_ROW = (TypeError, OverflowError, UnicodeEncodeError, ValueError)


def attributes_text(attributes: Mapping[str, str]) -> str:
    """The one form of attributes that rests in a row."""
    return json.dumps(dict(attributes), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Records:
    """The rows of one store, opened with its root."""

    def __init__(self, header: HeaderRow, protection: Protection, label: str) -> None:
        self.header = header
        self.protection = protection
        self._store_id = header.store_id
        self._label = label
        self._authenticator = Authenticator(protection.root, header.binding())
        self._token_keys = AESGCM(protection.root.derive("wrap-token-key"))

    def tampered(self, what: str) -> StoreTamperedError:
        """`what` completes the sentence "the store fails its integrity check: ..."."""
        return StoreTamperedError(f"key store {self._label} fails its integrity check: {what}", hint=RESTORE_HINT)

    def open_ledger(self, sealed: bytes) -> Ledger:
        """The ledger of the header row."""
        try:
            return self._authenticator.unseal(sealed)
        except (SealBrokenError, TypeError):
            what = "its header was changed, or it was given a new root while this process had it open"
            raise self.tampered(what) from None

    def seal_ledger(self, ledger: Ledger) -> bytes:
        """The ledger as the header row keeps it."""
        return self._authenticator.seal(ledger)

    def adopt_slots(self, content: bytes) -> None:
        """The slots as the header row has them now, read under the write lock."""
        try:
            self.protection.adopt(bytes(content))
        except (SealBrokenError, TypeError):
            raise self.tampered("its slots were changed, or put back from an earlier state") from None

    def refresh_slots(self) -> None:
        """Reads the slots again."""
        try:
            self.protection.refresh()
        except (SealBrokenError, TypeError):
            raise self.tampered("its slots were changed") from None

    def slots_element(self, slots: SlotHeader) -> int:
        """The slots' share of the ledger; headers of formats 1 and 2 have none."""
        return self._authenticator.element(slots.encode(self._store_id))

    def element(self, row: ZoneKeyRow | KeyVersionRow | PolicyRow) -> int:
        """The row's share of the ledger."""
        try:
            return self._authenticator.element(row.encode())
        except _NOT_A_ROW:
            raise self.tampered("a row holds values of the wrong type") from None

    def tag(self, row: TaggedRow) -> bytes:
        """The tag to keep beside the row."""
        return self._authenticator.tag(row.encode())

    def tagged(self, row: TaggedRow) -> dict[str, object]:
        """The row with its tag, as an insert takes it."""
        return row._asdict() | {"tag": self.tag(row)}

    def check_tag(self, row: TaggedRow, tag: bytes) -> None:
        """That this store wrote the row as it is."""
        try:
            genuine = self._authenticator.is_tag_of(tag, row.encode())
        except _NOT_A_ROW:
            genuine = False
        if not genuine:
            raise self.tampered(f"the row {row[0]!r} was changed")

    def version_row(
        self, key: ZoneKeyRow, version: int, created_ms: int, seal_material: Callable[[MaterialBinding], bytes]
    ) -> KeyVersionRow:
        """A new version's row, its material sealed to exactly this place."""
        row = KeyVersionRow(key.name, version, key.cipher, key.length_bits, created_ms, b"")
        return row._replace(sealed=seal_material(self.binding(row)))

    def binding(self, row: KeyVersionRow) -> MaterialBinding:
        """What a version's seal is bound to."""
        return MaterialBinding(
            SEAL_VERSION, self._store_id, row.key_name, row.version, row.cipher, row.length_bits, row.created_ms
        )

    def sealed_key(self, key: ZoneKeyRow, versions: Sequence[KeyVersionRow]) -> SealedKey | HeldKey:
        """A live key and all its live versions, oldest first; `key` has passed `check_tag`."""
        numbers = tuple(row.version for row in versions)
        if numbers != tuple(range(key.first_version, key.next_version)):
            raise self.tampered(f"versions of key {key.name!r} are missing, or are not its own")
        if any(self.protection.is_held(row.sealed) for row in versions):
            return self._held_key(key, versions)
        rows = {row.version: (self.binding(row), row) for row in versions}
        found = {row.version: self.protection.find_slot_id(row.sealed) for row in versions}
        slots = {number: slot_id for number, slot_id in found.items() if slot_id is not None}
        opening = functools.partial(self._open_versions, key, rows)
        return SealedKey(self.metadata(key), numbers, opening, frozenset(slots), slots)

    def _held_key(self, key: ZoneKeyRow, rows: Sequence[KeyVersionRow]) -> HeldKey:
        for row in rows:
            self._require_own(key, row)
        held = tuple(self.held_version(row) for row in rows)
        # Every version in one Transit key, each in a later version of it: no store writes anything else.
        places = [version.place for version in held]
        if len({place.key for place in places}) != 1 or sorted({place.version for place in places}) != [
            place.version for place in places
        ]:
            raise self.tampered(f"the versions of key {key.name!r} are not held as this store would write it")
        return HeldKey(self.metadata(key), held)

    def held_version(self, row: KeyVersionRow) -> HeldVersion:
        """A version that is held."""
        try:
            return HeldVersion(row.key_name, row.version, self.protection.open_held(self.binding(row), row.sealed))
        except (SealBrokenError, *_NOT_A_ROW):
            raise self._changed(row) from None

    def open_rows(self, rows: Sequence[KeyVersionRow]) -> list[Secret]:
        """The material of rows of any keys. May ask a remote protector."""
        try:
            return self.protection.open([(self.binding(row), row.sealed) for row in rows])
        except (SealBrokenError, *_NOT_A_ROW):
            if len(rows) > 1:  # one at a time, so that the error names the one
                return [self.open_rows([row])[0] for row in rows]
            raise self._changed(rows[0]) from None

    def _open_versions(
        self, key: ZoneKeyRow, rows: Mapping[int, tuple[MaterialBinding, KeyVersionRow]], numbers: Collection[int]
    ) -> Sequence[KeyVersion]:
        chosen = [rows[number] for number in numbers]
        for _, row in chosen:
            self._require_own(key, row)
        if any(self.protection.is_remote(row.sealed) for _, row in chosen):
            materials = self.open_rows([row for _, row in chosen])
        else:
            materials = [self._open_here(binding, row) for binding, row in chosen]
        return [KeyVersion(key.name, number, material) for number, material in zip(numbers, materials, strict=True)]

    def _open_here(self, binding: MaterialBinding, row: KeyVersionRow) -> Secret:
        # With a key memory of 0 this is done for each request.
        try:
            return self.protection.open_here(binding, row.sealed)
        except (SealBrokenError, *_NOT_A_ROW):
            raise self._changed(row) from None

    def _require_own(self, key: ZoneKeyRow, row: KeyVersionRow) -> None:
        if (row.cipher, row.length_bits) != (key.cipher, key.length_bits):
            raise self.tampered(f"version {row.version} of key {key.name!r} belongs to an earlier key of that name")

    def _changed(self, row: KeyVersionRow) -> StoreTamperedError:
        return self.tampered(f"version {row.version} of key {row.key_name!r} was changed")

    def metadata(self, key: ZoneKeyRow) -> KeyMetadata:
        """What is told about a key; `key` has passed `check_tag`."""
        attributes = _NO_ATTRIBUTES if key.attributes == "{}" else MappingProxyType(json.loads(key.attributes))
        return KeyMetadata(
            key.name, key.cipher, key.length_bits, key.created_ms, key.next_version, key.description, attributes
        )

    def policy(self, row: PolicyRow) -> PolicyRevision:
        """A published policy; `row` has passed `check_tag`."""
        digest = hashlib.sha256(row.document).hexdigest()
        return PolicyRevision(row.revision, row.document, digest, row.published_by, row.published_ms)

    def derive_secret(self, purpose: str) -> Secret:
        """See KeyStore. Purposes have a name space of their own, apart from the store's own keys."""
        return Secret(self.protection.root.derive(f"for/{purpose}"))

    def seal_master_key(self, key: MasterKey) -> TokenMasterKeyRow:
        """A master key's row, its secret sealed to exactly this place."""
        sealed = seal(
            self._token_keys, key.secret.reveal(), self._master_key_binding(key.key_id, key.created_ms, key.expires_ms)
        )
        return TokenMasterKeyRow(key.key_id, key.created_ms, key.expires_ms, sealed)

    def open_master_key(self, row: TokenMasterKeyRow) -> MasterKey:
        """A master key again."""
        try:
            binding = self._master_key_binding(row.key_id, row.created_ms, row.expires_ms)
            secret = Secret(unseal(self._token_keys, row.sealed, binding))
        except (SealBrokenError, *_NOT_A_ROW):
            raise self.tampered(f"master key {row.key_id} of delegation tokens was changed") from None
        return MasterKey(row.key_id, secret, row.created_ms, row.expires_ms)

    def _master_key_binding(self, key_id: int, created_ms: int, expires_ms: int) -> bytes:
        return encode_row("ringfence/token-key", SEAL_VERSION, self._store_id, key_id, created_ms, expires_ms)
