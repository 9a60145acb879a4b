"""What a key, and a version after the current one, must be to have rows in a store, and the row of a new version."""

from __future__ import annotations

from ringfence_agent.keystore.held import AnyVersion, HeldVersion, Material, TransitVersion
from ringfence_agent.keystore.interface import NewKey
from ringfence_agent.keystore.rows.kinds import KeyVersionRow, ZoneKeyRow
from ringfence_agent.keystore.rows.prepared import Prepared
from ringfence_agent.keystore.rows.records import Records
from ringfence_zones.errors import InputError, KeyChangedError

MAX_NAME_BYTES = 1000
"""The longest key name in UTF-8, so that every SQL engine can index it."""


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
