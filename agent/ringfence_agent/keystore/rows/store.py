"""The part of a key store that is the same wherever its rows rest: how keys are made, rolled, deleted, brought back and
taken over.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence

from ringfence_agent.keystore.held import AnyVersion, HeldVersion, Material, made_version
from ringfence_agent.keystore.interface import ChangeOrigin, ImportedKey, KeyImport, NewKey, UnconfirmedChange
from ringfence_agent.keystore.protected_store import StoreSlots
from ringfence_agent.keystore.rows.changes import SEVERAL_KEYS, RowChange, StoreRows
from ringfence_agent.keystore.rows.imports import KeyImports
from ringfence_agent.keystore.rows.kinds import ZoneKeyRow
from ringfence_agent.keystore.rows.new_keys import (
    check_length,
    check_new_key,
    is_storable,
    new_version_row,
    require_next,
)
from ringfence_agent.keystore.rows.prepared import Prepared, with_seals
from ringfence_agent.keystore.rows.records import Records, attributes_text
from ringfence_agent.keystore.rows.slot_changes import SlotChanges, make_newest
from ringfence_zones.errors import KeyExistsError, KeyNotFoundError, UnconfirmedChangeError
from ringfence_zones.keys import KeyMetadata
from ringfence_zones.secret import Secret


def now_ms() -> int:
    """Epoch milliseconds, by this machine's clock."""
    return time.time_ns() // 1_000_000


class RowKeyStore:
    """The part of `protected_store.ProtectedStore` that changes keys and slots, and says which store it is."""

    def __init__(self, records: Records, rows: StoreRows, clock: Callable[[], int] = now_ms) -> None:
        """`clock` tells epoch milliseconds."""
        self._records = records
        self._rows = rows
        self._clock = clock
        self._imports = KeyImports(records, rows)
        self.slots: StoreSlots = SlotChanges(records, rows)

    @property
    def label(self) -> str:
        """See KeyStore."""
        return self._rows.label

    @property
    def store_id(self) -> str:
        """See KeyStore."""
        return self._records.protection.root.store_id.hex()

    def derive_secret(self, purpose: str) -> Secret:
        """See KeyStore."""
        return self._records.derive_secret(purpose)

    def create_key(self, new: NewKey, origin: ChangeOrigin | None = None) -> AnyVersion:
        """See KeyStore. Raises InputError too, for a name or material that no key can have."""
        check_new_key(new)
        note, made_ms = self._note_of(origin), self._clock()

        def attempt(change: RowChange, prepared: Prepared) -> AnyVersion:
            old = change.find_key(new.name)
            if old is not None and old.deleted_ms is None:
                raise KeyExistsError(new.name, self.label)
            number = old.next_version if old else 0
            key = ZoneKeyRow(
                name=new.name,
                cipher=new.cipher,
                length_bits=new.length_bits,
                created_ms=made_ms,
                first_version=number,
                next_version=number + 1,
                deleted_ms=None,
                description=new.description,
                attributes=attributes_text(new.attributes),
            )
            made = made_version(new.name, number, new.material)
            if isinstance(made, HeldVersion):
                make_newest(self._records.protection, change)
            change.write_key(old, key, [new_version_row(self._records, key, made, made_ms, prepared)])
            note(change, made, made_ms)
            return made

        made = self._sealed_change(new.name, attempt)
        if isinstance(made, HeldVersion):
            self._records.refresh_slots()
        return made

    def roll_key(self, name: str, material: Material | None, origin: ChangeOrigin | None = None) -> AnyVersion:
        """See KeyStore."""
        note, made_ms = self._note_of(origin), self._clock()
        drawn: dict[int, Secret] = {}  # by length: the same material each time the change runs

        def attempt(change: RowChange, prepared: Prepared) -> AnyVersion:
            old = _get_live(change, name)
            if origin is not None and _is_unconfirmed(change, old, origin):
                raise UnconfirmedChangeError(name)
            chosen = material
            if chosen is None:
                chosen = drawn.setdefault(old.length_bits, Secret(secrets.token_bytes(old.length_bits // 8)))
            check_length(chosen, old.length_bits)
            current = change.find_version(name, old.next_version - 1)
            if current is None:
                raise self._records.tampered(f"the current version of key {name!r} is missing")
            require_next(self._records, current, chosen)
            key = old._replace(next_version=old.next_version + 1)
            made = made_version(name, old.next_version, chosen)
            change.write_key(old, key, [new_version_row(self._records, key, made, made_ms, prepared)])
            note(change, made, made_ms)
            return made

        return self._sealed_change(name, attempt)

    def delete_key(self, name: str) -> None:
        """See KeyStore."""

        def attempt(change: RowChange) -> None:
            old = _get_live(change, name)
            change.write_key(old, old._replace(deleted_ms=self._clock()))

        self._rows.change(name, attempt)

    def undelete_key(self, name: str, not_before_ms: int) -> KeyMetadata:
        """See KeyStore."""

        def attempt(change: RowChange) -> ZoneKeyRow:
            old = change.find_key(name) if is_storable(name) else None
            if old is None:
                raise KeyNotFoundError(name)
            if old.deleted_ms is None:
                raise KeyExistsError(name, self.label)
            if old.deleted_ms < not_before_ms:
                raise KeyNotFoundError(name, f"Key {name} was deleted too long ago to be brought back")
            key = old._replace(deleted_ms=None)
            change.write_key(old, key)
            return key

        return self._records.metadata(self._rows.change(name, attempt))

    def import_keys(self, keys: Sequence[ImportedKey], *, dry_run: bool = False) -> Sequence[KeyImport]:
        """See KeyStore."""
        return self._imports.run(keys, dry_run=dry_run)

    def skip_changes(self, number: int) -> None:
        """Makes `number` the store's change number, for a restore of an earlier state: later ones were given out."""

        def attempt(change: RowChange) -> None:
            change.ledger.writes = max(change.ledger.writes, number - 1)

        self._rows.change(SEVERAL_KEYS, attempt)

    def _sealed_change(self, name: str, attempt: Callable[[RowChange, Prepared], AnyVersion]) -> AnyVersion:
        return with_seals(
            self._records,
            lambda prepared: self._rows.change(name, lambda change: attempt(change, prepared), prepared),
        )

    def _note_of(self, origin: ChangeOrigin | None) -> Callable[[RowChange, AnyVersion, int], None]:
        """What keeps a version's origin until its answer has left."""
        if origin is None:
            return lambda _change, _version, _made_ms: None
        owner_id = self._rows.hold_owner()

        def note(change: RowChange, version: AnyVersion, made_ms: int) -> None:
            made = UnconfirmedChange(version.key_name, version.version, origin, owner_id, made_ms)
            change.note_unconfirmed(made)

        return note


def _get_live(change: RowChange, name: str) -> ZoneKeyRow:
    """Raises KeyNotFoundError for a deleted key as well."""
    key = change.find_key(name) if is_storable(name) else None
    if key is None or key.deleted_ms is not None:
        raise KeyNotFoundError(name)
    return key


def _is_unconfirmed(change: RowChange, key: ZoneKeyRow, origin: ChangeOrigin) -> bool:
    """Whether a live version of a key with this origin is unconfirmed."""
    notes = change.find_unconfirmed(key.name)
    return any(note.origin == origin and note.version >= key.first_version for note in notes)
