"""Keys in Hadoop's JCEKS files: `org.apache.hadoop.crypto.key.JavaKeyStoreProvider`, both ways.

A key is one entry `NAME` with its metadata as JSON and one entry `NAME@N` for each version. Opening or sealing an
entry takes 0.2 s, so entries that a *receipt* of an earlier import or export knows are not opened again, and are
carried over as they stand when keys go back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ringfence_agent.keystore.interface import ImportedKey, ImportedVersion, StoredKey
from ringfence_agent.keystore.jceks.java_objects import KEY_METADATA, SECRET_KEY, JavaObject
from ringfence_agent.keystore.jceks.provider import JceksEntry
from ringfence_agent.keystore.jceks.seal import seal, unseal
from ringfence_agent.keystore.key_import import check_imported_key
from ringfence_zones.errors import InputError
from ringfence_zones.keys import KeyMetadata, split_version_name, version_name
from ringfence_zones.secret import Secret

Receipt = Mapping[str, str]
"""Alias -> `JceksEntry.digest` of entries that were read into this store, or written from it."""
OnProgress = Callable[[int, int], None]
"""Entries done, entries in all."""

_NAMED_KEYS = 20
_MAX_VERSIONS = 1_000_000


def read_keys(
    entries: Sequence[JceksEntry], password: Secret, receipt: Receipt, on_progress: OnProgress
) -> tuple[ImportedKey, ...]:
    """The keys of a file but those of which `receipt` knows every version. Raises InputError naming the key."""
    by_alias = {entry.alias: entry for entry in entries}
    wanted = {
        name: versions for name, versions in _group(by_alias).items() if not _is_known(versions.values(), receipt)
    }
    total, done = sum(1 + len(versions) for versions in wanted.values()), 0
    keys = []
    for name, versions in sorted(wanted.items()):
        metadata = _parse_metadata(name, unseal(by_alias[name].sealed, password, name))
        on_progress(done := done + 1, total)
        opened = []
        for number, entry in sorted(versions.items()):
            material = _parse_material(entry.alias, unseal(entry.sealed, password, entry.alias))
            opened.append(ImportedVersion(number, material, entry.created_ms))
            on_progress(done := done + 1, total)
        key = ImportedKey(metadata, tuple(opened))
        check_imported_key(key)
        keys.append(key)
    return tuple(keys)


def known_versions(entries: Sequence[JceksEntry], receipt: Receipt) -> dict[str, int]:
    """The keys that `read_keys` leaves out, and the current version of each."""
    groups = _group({entry.alias: entry for entry in entries})
    return {name: max(versions) for name, versions in groups.items() if _is_known(versions.values(), receipt)}


def make_entries(
    keys: Sequence[StoredKey],
    password: Secret,
    carried: Mapping[str, JceksEntry],
    receipt: Receipt,
    on_progress: OnProgress,
) -> tuple[JceksEntry, ...]:
    """Entries for all of `keys`. Those of `carried` that `receipt` knows are taken as they are.

    Raises InputError for a name that JCEKS cannot keep apart from another: it knows lower case only.
    """
    _check_names(keys)
    reusable = {alias: entry for alias, entry in carried.items() if receipt.get(alias) == entry.digest}
    total, done = sum(1 + len(key.versions) for key in keys), 0
    made: list[JceksEntry] = []
    for key in keys:
        metadata, name = key.metadata, key.metadata.name
        of_key = []
        for version in key.versions:
            entry = reusable.get(version.name)
            if entry is None:
                values: dict[str, bytes | str] = {"algorithm": metadata.cipher, "key": version.material.reveal()}
                entry = JceksEntry(version.name, metadata.created_ms, seal(JavaObject(SECRET_KEY, values), password))
            of_key.append(entry)
            on_progress(done := done + 1, total)
        same = {entry.alias for entry in of_key} == _version_aliases(name, reusable)
        entry = reusable.get(name) if same else None
        if entry is None:
            entry = JceksEntry(name, metadata.created_ms, seal(_metadata_object(metadata), password))
        made += (entry, *of_key)
        on_progress(done := done + 1, total)
    return tuple(made)


def receipt_of(entries: Sequence[JceksEntry]) -> dict[str, str]:
    """What `read_keys` and `make_entries` take to know these entries again."""
    return {entry.alias: entry.digest for entry in entries}


def _group(by_alias: Mapping[str, JceksEntry]) -> dict[str, dict[int, JceksEntry]]:
    """Key name -> its versions. An alias with `@N` is a version when the rest of it is there too."""
    groups: dict[str, dict[int, JceksEntry]] = {}
    for alias, entry in by_alias.items():
        split = split_version_name(alias)
        if split is not None and split[0] in by_alias:
            groups.setdefault(split[0], {})[split[1]] = entry
        else:
            groups.setdefault(alias, {})
    return groups


def _is_known(versions: Collection[JceksEntry], receipt: Receipt) -> bool:
    aliases = [entry.alias for entry in versions if receipt.get(entry.alias) == entry.digest]
    return len(aliases) == len(versions) > 0


def _version_aliases(name: str, entries: Mapping[str, JceksEntry]) -> set[str]:
    return {alias for alias in entries if (split := split_version_name(alias)) is not None and split[0] == name}


def _parse_material(alias: str, opened: JavaObject) -> Secret:
    material = opened.values.get("key")
    if opened.class_name != SECRET_KEY or not isinstance(material, bytes):
        raise InputError(f"the entry {alias!r} is not a version of a key")
    return Secret(material)


def _parse_metadata(name: str, opened: JavaObject) -> KeyMetadata:
    """`KeyProvider.Metadata.serialize` behind a length, as `KeyMetadata.writeObject` has it."""
    if opened.class_name != KEY_METADATA:
        raise InputError(
            f"the entry {name!r} is not the metadata of a key: it was added with keytool, or its key's was deleted"
        )
    text = opened.data[4:]
    if len(opened.data) < 4 or int.from_bytes(opened.data[:4], "big") != len(text):
        raise InputError(f"the metadata of key {name} is damaged")
    try:
        found = json.loads(text)
        attributes = {str(key): str(value) for key, value in (found.get("attributes") or {}).items()}
        description = found.get("description")
        metadata = KeyMetadata(
            name=name,
            cipher=str(found["cipher"]),
            length_bits=_whole(found["bitLength"]),
            created_ms=_whole(found["created"]),
            versions=_whole(found["versions"]),
            description=None if description is None else str(description),
            attributes=MappingProxyType(attributes),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"the metadata of key {name} is damaged") from None
    if not 1 <= metadata.versions <= _MAX_VERSIONS:
        raise InputError(f"key {name} says that it has {metadata.versions} versions")
    return metadata


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError
    return value


def _metadata_object(metadata: KeyMetadata) -> JavaObject:
    found: dict[str, Any] = {
        "cipher": metadata.cipher,
        "bitLength": metadata.length_bits,
        "created": metadata.created_ms,
    }
    if metadata.description is not None:
        found["description"] = metadata.description
    if metadata.attributes:
        found["attributes"] = dict(metadata.attributes)
    found["versions"] = metadata.versions
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()
    return JavaObject(KEY_METADATA, {}, len(text).to_bytes(4, "big") + text)


def _check_names(keys: Sequence[StoredKey]) -> None:
    capitals = sorted(key.metadata.name for key in keys if key.metadata.name != key.metadata.name.lower())
    if capitals:
        more = f" and {len(capitals) - _NAMED_KEYS} more" if len(capitals) > _NAMED_KEYS else ""
        raise InputError(
            f"capital letters in a name, which a Java key store cannot keep: {', '.join(capitals[:_NAMED_KEYS])}{more}",
            hint="give ringfence key export the names of the other keys; what these keys protect must be copied into"
            " zones with keys in lower case before a stock KMS can serve it",
        )
    taken: set[str] = set()
    for key in keys:
        name = key.metadata.name
        aliases = {name, *(version_name(name, version.version) for version in key.versions)}
        if aliases & taken:
            raise InputError(f"key {name} and another key would be one entry of a Java key store")
        taken |= aliases
