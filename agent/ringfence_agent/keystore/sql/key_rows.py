"""Rows of keys and versions as a change reads and writes them, and what a key must be to have rows at all."""

from __future__ import annotations

from sqlalchemy import bindparam, insert, select, update

from ringfence_agent.keystore.held import AnyVersion, HeldVersion, Material, TransitVersion
from ringfence_agent.keystore.interface import NewKey
from ringfence_agent.keystore.sql.prepared import Prepared
from ringfence_agent.keystore.sql.records import Records
from ringfence_agent.keystore.sql.tables import KEY_VERSION, ZONE_KEY, KeyVersionRow, ZoneKeyRow
from ringfence_agent.keystore.sql.transactions import Change
from ringfence_zones.errors import InputError, KeyChangedError, KeyNotFoundError

MAX_NAME_BYTES = 1000
"""The longest key name in UTF-8, so that every SQL engine can index it."""

_SELECT_KEY = select(*(ZONE_KEY.c[name] for name in ZoneKeyRow._fields), ZONE_KEY.c.tag).where(
    ZONE_KEY.c.name == bindparam("name")
)
_SELECT_VERSION = select(*(KEY_VERSION.c[name] for name in KeyVersionRow._fields)).where(
    KEY_VERSION.c.key_name == bindparam("name"), KEY_VERSION.c.version == bindparam("number")
)
_UPDATE_KEY = update(ZONE_KEY).where(ZONE_KEY.c.name == bindparam("key"))


class KeyRows:
    """Each method works inside a change, and keeps its ledger."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def find(self, change: Change, name: str) -> ZoneKeyRow | None:
        """A key, deleted or not; its tag is checked."""
        found = change.connection.execute(_SELECT_KEY, {"name": name}).one_or_none()
        if found is None:
            return None
        *fields, tag = found
        key = ZoneKeyRow(*fields)
        self._records.check_tag(key, tag)
        return key

    def get_live(self, change: Change, name: str) -> ZoneKeyRow:
        """Raises KeyNotFoundError for a deleted key as well."""
        key = self.find(change, name) if is_storable(name) else None
        if key is None or key.deleted_ms is not None:
            raise KeyNotFoundError(name)
        return key

    def write(self, change: Change, old: ZoneKeyRow | None, new: ZoneKeyRow) -> None:
        """`new` in the place of `old`, or beside the others."""
        values = new._asdict() | {"tag": self._records.tag(new)}
        if old is None:
            change.connection.execute(insert(ZONE_KEY), values)
        else:
            change.connection.execute(_UPDATE_KEY, values | {"key": old.name})
            change.ledger.remove(self._records.element(old))
        change.ledger.add(self._records.element(new))

    def require_next(self, change: Change, key: ZoneKeyRow, material: Material) -> None:
        """See `require_next`, of the current version."""
        place = {"name": key.name, "number": key.next_version - 1}
        row = change.connection.execute(_SELECT_VERSION, place).one_or_none()
        if row is None:
            raise self._records.tampered(f"the current version of key {key.name!r} is missing")
        require_next(self._records, KeyVersionRow(*row), material)

    def insert_version(
        self, change: Change, key: ZoneKeyRow, version: AnyVersion, created_ms: int, prepared: Prepared
    ) -> None:
        """A version of `key`: sealed by the slot that is active now, or where it is held."""
        row = new_version_row(self._records, key, version, created_ms, prepared)
        change.connection.execute(insert(KEY_VERSION), row._asdict())
        change.ledger.add(self._records.element(row))


def require_next(records: Records, current: KeyVersionRow, material: Material) -> None:
    """That this can be the version after the current one: material after material, and in a held key a later version
    of the same Transit key. Raises InputError, and KeyChangedError for what no longer follows.
    """
    is_held = records.protection.is_held(current.sealed)
    if is_held != isinstance(material, TransitVersion):
        raise InputError(
            f"key {current.key_name} is held by Vault, and takes no material"
            if is_held
            else f"the material of key {current.key_name} is in the key store, and cannot go on in Vault",
            hint="a key keeps its custody: make a new key, and a new zone",
        )
    if isinstance(material, TransitVersion):
        before = records.held_version(current).place
        if material.key != before.key or material.version <= before.version:
            raise KeyChangedError(current.key_name)


def new_version_row(
    records: Records, key: ZoneKeyRow, version: AnyVersion, created_ms: int, prepared: Prepared
) -> KeyVersionRow:
    """The row of a new version: sealed by the slot that is active now, or where it is held."""
    made_of = version.place if isinstance(version, HeldVersion) else version.material
    return records.version_row(key, version.version, created_ms, lambda binding: prepared.seal(binding, made_of))


def check_new_key(new: NewKey) -> None:
    """Raises InputError for a name, texts or material that no store keeps."""
    if not new.name or not is_storable(new.name):
        raise InputError(f"a key name has 1 to {MAX_NAME_BYTES} bytes of Unicode text; this one has not")
    texts = [new.cipher, new.description or "", *new.attributes.keys(), *new.attributes.values()]
    if not all(_is_unicode(text) for text in texts):
        raise InputError(f"cipher, description or attributes of key {new.name} are not Unicode text")
    check_length(new.material, new.length_bits)


def check_length(material: Material, length_bits: int) -> None:
    """Raises InputError for material that is not `length_bits` long. A key that is held has its length in Vault."""
    if not isinstance(material, TransitVersion) and len(material) * 8 != length_bits:
        raise InputError(
            f"the key material has {len(material) * 8} bits, but the key has {length_bits}",
            hint="leave the material out to have it made, or give material of the key's own length",
        )


def is_storable(name: str) -> bool:
    """Whether a key could have this name."""
    return _is_unicode(name) and len(name.encode()) <= MAX_NAME_BYTES


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
