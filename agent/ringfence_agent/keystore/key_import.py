"""Keys that come from another key store: under the same names, with the same version numbers and times.

Rules:

1. What is there already is never changed. A version that both have must have the same material; versions that only
   the source has are added behind those that are here; what only this store has stays.
2. Whatever does not fit is a conflict that names the key, and then nothing at all is imported.
3. What comes as material is in custody envelope from then on, whatever an attribute says: a stock KMS takes the word
   and holds the key itself.

So an import may be repeated at any time, and a second one brings what the source gained since the first.
"""

from __future__ import annotations

from collections.abc import Mapping

from ringfence_agent.keystore.interface import ImportedKey, KeyImport, StoredKey
from ringfence_zones.custody import CUSTODY_ATTRIBUTE, DEFAULT_CUSTODY
from ringfence_zones.errors import InputError


class ConflictError(Exception):
    """Why one key cannot be imported; the store collects them into a KeyConflictError."""


def check_imported_key(key: ImportedKey) -> None:
    """Raises InputError naming the key when its versions have gaps or a length that is not the key's."""
    metadata = key.metadata
    numbers = [version.number for version in key.versions]
    if not numbers or numbers != list(range(numbers[0], metadata.versions)):
        raise InputError(
            f"key {metadata.name} says that it has {metadata.versions} versions, but the source holds"
            f" {', '.join(map(str, numbers)) or 'none'}",
            hint="a version is missing there: files written with it cannot be read with any copy of this source",
        )
    for version in key.versions:
        if len(version.material) * 8 != metadata.length_bits:
            raise InputError(
                f"version {version.number} of key {metadata.name} has {len(version.material) * 8} bits of material,"
                f" but the key has {metadata.length_bits}"
            )


def imported_attributes(attributes: Mapping[str, str]) -> Mapping[str, str]:
    """What an imported key says about itself; nothing of it may claim that its material never left Vault."""
    if CUSTODY_ATTRIBUTE not in attributes:
        return attributes
    return {**attributes, CUSTODY_ATTRIBUTE: DEFAULT_CUSTODY}


def judge_new(key: ImportedKey) -> KeyImport:
    """A key that this store never had."""
    return KeyImport(key.metadata.name, True, tuple(version.number for version in key.versions))


def judge_deleted(key: ImportedKey, next_version: int) -> KeyImport:
    """A key that was deleted here, whose numbers go on at `next_version`. Raises ConflictError."""
    if key.versions[0].number < next_version:
        raise ConflictError(
            f"a key of that name was deleted here, and its versions up to {next_version - 1} are taken for good"
        )
    return judge_new(key)


def judge_live(key: ImportedKey, here: StoredKey) -> KeyImport:
    """A key that is here. Raises ConflictError when it is another key, or was rolled on both sides."""
    theirs, ours = key.metadata, here.metadata
    if (theirs.cipher, theirs.length_bits) != (ours.cipher, ours.length_bits):
        raise ConflictError(
            f"here it is a key for {ours.cipher} of {ours.length_bits} bits,"
            f" there one for {theirs.cipher} of {theirs.length_bits}"
        )
    known = {version.version: version.material for version in here.versions}
    added = []
    for version in key.versions:
        if version.number >= ours.versions:
            added.append(version.number)
        elif known.get(version.number) != version.material:
            raise ConflictError(f"its version {version.number} here is not the one there")
    if added and added[0] != ours.versions:
        raise ConflictError(f"the source begins with version {added[0]}, but the next one here is {ours.versions}")
    return KeyImport(theirs.name, False, tuple(added))
