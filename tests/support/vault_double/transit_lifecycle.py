"""Transit's keys from creation to deletion: rotate, config, trim, soft delete, export, backup and restore, import."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap_with_padding

from vault_double.backend import Call, decode_base64, encode_base64
from vault_double.transit_crypt import find_key, get_key
from vault_double.transit_keys import (
    COUNTER_KDF,
    KEY_BYTES,
    KeyVersion,
    TransitInternalError,
    TransitKey,
    new_version,
)
from vault_double.wire import RefusedError, Reply, in_multierror

_HOUR_S = 3600
_RSA_BITS = 4096
_VERSIONS_START_AT_1 = (
    "since Vault 0.3 (prior to the OpenBao fork), transit key numbering starts at 1; forcing minimum to 1"
)


def create_key(call: Call) -> dict[str, Any]:
    """An existing key is answered as it is, whatever was asked for."""
    kind = call.text("type", "aes256-gcm96")
    period_s = int(call.seconds("auto_rotate_period"))
    _check_period(period_s)
    if call.flag("convergent_encryption") and not call.flag("derived"):
        raise RefusedError(400, "convergent encryption requires derivation to be enabled")
    if call.flag("convergent_encryption"):
        raise RefusedError(400, "the double has no convergent encryption")
    if kind not in KEY_BYTES:
        raise RefusedError(400, f"unknown key type {kind}")
    wished = TransitKey(
        call.name,
        kind,
        {1: new_version(kind, call.core.clock.now())},
        derived=call.flag("derived"),
        exportable=call.flag("exportable"),
        allow_plaintext_backup=call.flag("allow_plaintext_backup"),
        auto_rotate_period_s=period_s,
    )
    return (find_key(call) or _keep(call, wished)).as_data()


def read_key(call: Call) -> dict[str, Any] | None:
    key = find_key(call)
    return None if key is None else key.as_data()


def list_keys(call: Call) -> dict[str, Any] | None:
    names = call.store.names("keys/")
    # Reading the wrapping key leaves a directory in the listing.
    if call.store.get("import/wrapping-key") is not None:
        names = sorted([*names, "import/"])
    return {"keys": names} if names else None


def delete_key(call: Call) -> None:
    key, prefix = find_key(call), f"error deleting policy {call.name}: "
    if key is None:
        raise RefusedError(400, prefix + "could not delete key; not found")
    if not key.deletion_allowed:
        raise RefusedError(400, prefix + "deletion is not allowed for this key")
    call.store.delete(f"keys/{call.name}")


def rotate_key(call: Call) -> dict[str, Any]:
    try:
        return _keep(call, get_key(call, "key not found").rotated(call.core.clock.now())).as_data()
    except TransitInternalError as error:
        raise RefusedError(500, str(error)) from None


def configure_key(call: Call) -> Reply:
    key = get_key(call, f"no existing key named {call.name} could be found")
    changed, warnings = key, []
    if call.has("min_decryption_version"):
        wished = call.number("min_decryption_version")
        if wished == 0:
            wished = 1
            warnings.append(_VERSIONS_START_AT_1)
        _check_minimum("decryption", wished, key)
        changed = replace(changed, min_decryption=wished)
    if call.has("min_encryption_version"):
        wished = call.number("min_encryption_version")
        _check_minimum("encryption", wished, key)
        changed = replace(changed, min_encryption=wished)
    if 0 < changed.min_encryption < changed.min_decryption:
        raise RefusedError(
            400,
            f"cannot set min encryption/decryption values; min encryption version of {changed.min_encryption} must be "
            f"greater than or equal to min decryption version of {changed.min_decryption}",
        )
    if call.has("auto_rotate_period"):
        period_s = int(call.seconds("auto_rotate_period"))
        _check_period(period_s)
        changed = replace(changed, auto_rotate_period_s=period_s)
    changed = replace(
        changed,
        deletion_allowed=call.flag("deletion_allowed", default=changed.deletion_allowed),
        # One-way switches: false answers 200 and changes nothing.
        exportable=changed.exportable or call.flag("exportable"),
        allow_plaintext_backup=changed.allow_plaintext_backup or call.flag("allow_plaintext_backup"),
    )
    if changed != key:
        _check_available(changed)
        _keep(call, changed)
    return Reply(changed.as_data(), warnings=warnings)


def _check_minimum(which: str, wished: int, key: TransitKey) -> None:
    if wished < 0:
        raise RefusedError(400, f"min {which} version cannot be negative")
    if wished > key.latest:
        raise RefusedError(400, f"cannot set min {which} version of {wished}, latest key version is {key.latest}")


def _check_available(key: TransitKey) -> None:
    if key.min_available > key.min_encryption:
        raise RefusedError(400, "min encryption version should not be less than min available version")
    if key.min_available > key.min_decryption:
        raise RefusedError(400, "min decryption version should not be less then min available version")


def _check_period(period_s: int) -> None:
    if period_s and period_s < _HOUR_S:
        raise RefusedError(400, "auto rotate period must be 0 to disable or at least an hour")


def trim_key(call: Call) -> dict[str, Any]:
    key, least = get_key(call, "invalid key name"), "minimum available version "
    if not call.has("min_available_version"):
        raise RefusedError(400, "missing min_available_version")
    wished = call.number("min_available_version")
    refusals = (
        (wished < key.min_available, "cannot be decremented"),
        (key.min_encryption == 0, "cannot be set when minimum encryption version is not set"),
        (wished > key.min_encryption, "cannot be greater than minmum encryption version"),
        (wished > key.min_decryption, "cannot be greater than minimum decryption version"),
        (wished == 0, "should be positive"),
    )
    for applies, text in refusals:
        if applies:
            raise RefusedError(400, least + text)
    return _keep(call, key.trimmed(wished)).as_data()


def soft_delete_key(call: Call) -> dict[str, Any] | None:
    return _set_soft_deleted(call, deleted=True)


def restore_soft_deleted(call: Call) -> dict[str, Any] | None:
    """204 for a key that is not there."""
    return _set_soft_deleted(call, deleted=False)


def _set_soft_deleted(call: Call, *, deleted: bool) -> dict[str, Any] | None:
    key = find_key(call)
    return None if key is None else _keep(call, replace(key, soft_deleted=deleted)).as_data()


def export_key(call: Call) -> dict[str, Any] | None:
    key, kind = find_key(call), call.names["kind"]
    if kind not in ("encryption-key", "hmac-key"):
        raise RefusedError(400, f"invalid export type: {kind}")
    if key is None:
        return None
    if not key.exportable:
        raise RefusedError(400, "private key material is not exportable")
    exported = {
        str(number): encode_base64(version.material if kind == "encryption-key" else version.hmac_key)
        for number, version in key.visible_versions().items()
    }
    wanted = call.names.get("version")
    if wanted is not None:
        number = str(key.latest) if wanted == "latest" else wanted
        if number not in exported:
            raise RefusedError(400, "version does not exist or cannot be found")
        exported = {number: exported[number]}
    return {"keys": exported, "name": key.name, "type": key.kind}


def back_up_key(call: Call) -> dict[str, Any]:
    key = find_key(call)
    if key is None:
        raise RefusedError(500, in_multierror(f'key "{call.name}" not found'))
    if not key.exportable:
        raise RefusedError(500, "exporting is disallowed on the policy")
    if not key.allow_plaintext_backup:
        raise RefusedError(500, "plaintext backup is disallowed on the policy")
    versions = {
        number: [encode_base64(version.material), encode_base64(version.hmac_key), version.created_s]
        for number, version in key.versions.items()
    }
    fields = {name: getattr(key, name) for name in TransitKey.__slots__ if name not in ("versions", "extra")}
    return {"backup": encode_base64(json.dumps({"fields": fields, "versions": versions}).encode())}


def restore_key(call: Call) -> None:
    if not call.text("backup"):
        raise RefusedError(400, "'backup' must be supplied")
    try:
        backup = json.loads(base64.b64decode(call.text("backup")))
        fields, versions = backup["fields"], backup["versions"]
    except (ValueError, KeyError, TypeError):
        raise RefusedError(500, "failed to decode the backup") from None
    name = call.names.get("name") or fields["name"]
    if call.store.get(f"keys/{name}") is not None and not call.flag("force"):
        raise RefusedError(500, f'key "{name}" already exists')
    kept = {
        int(number): KeyVersion(base64.b64decode(material), base64.b64decode(hmac_key), created_s)
        for number, (material, hmac_key, created_s) in versions.items()
    }
    _keep(call, TransitKey(**(fields | {"name": name, "versions": kept})))


def read_wrapping_key(call: Call) -> dict[str, Any]:
    key = call.store.get("import/wrapping-key")
    if key is None:
        key = rsa.generate_private_key(65537, _RSA_BITS)
        call.store.put("import/wrapping-key", key)
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return {"public_key": pem.decode()}


def import_key(call: Call) -> None:
    if find_key(call) is not None:
        raise RefusedError(
            500,
            "the import path cannot be used with an existing key; use import-version to rotate "
            "an existing imported key",
        )
    kind = call.text("type", "aes256-gcm96")
    if kind not in KEY_BYTES:
        raise RefusedError(400, f"unknown key type: {kind}")
    version = KeyVersion(_unwrap_imported(call), secrets.token_bytes(32), int(call.core.clock.now()))
    key = TransitKey(
        call.name,
        kind,
        {1: version},
        derived=call.flag("derived"),
        kdf=COUNTER_KDF,
        exportable=call.flag("exportable"),
        allow_plaintext_backup=call.flag("allow_plaintext_backup"),
        imported=True,
        allow_rotation=call.flag("allow_rotation"),
    )
    _keep(call, key)


def import_version(call: Call) -> None:
    key = get_key(call, f"no key found with name {call.name}; to import a new key, use the import/ endpoint")
    if not key.imported:
        raise RefusedError(500, "the import_version endpoint can only be used with an imported key")
    version = KeyVersion(_unwrap_imported(call), secrets.token_bytes(32), int(call.core.clock.now()))
    _keep(call, replace(key, versions={**key.versions, key.latest + 1: version}, latest=key.latest + 1))


def _unwrap_imported(call: Call) -> bytes:
    wrapping: rsa.RSAPrivateKey | None = call.store.get("import/wrapping-key")
    algorithms: dict[str, hashes.HashAlgorithm] = {
        "SHA1": hashes.SHA1(),
        "SHA224": hashes.SHA224(),
        "SHA256": hashes.SHA256(),
        "SHA384": hashes.SHA384(),
        "SHA512": hashes.SHA512(),
    }
    algorithm = algorithms.get(call.text("hash_function", "SHA256").upper().replace("-", ""))
    if algorithm is None:
        raise RefusedError(500, "unsupported hash function: " + call.text("hash_function"))
    if wrapping is None:
        raise RefusedError(500, "crypto/rsa: decryption error")
    try:
        blob = decode_base64(call.text("ciphertext"))
        oaep = padding.OAEP(padding.MGF1(algorithm), algorithm, None)
        ephemeral = wrapping.decrypt(blob[: _RSA_BITS // 8], oaep)
        return aes_key_unwrap_with_padding(ephemeral, blob[_RSA_BITS // 8 :])
    except (ValueError, InvalidUnwrap):
        raise RefusedError(500, "crypto/rsa: decryption error") from None


def _keep(call: Call, key: TransitKey) -> TransitKey:
    call.store.put(f"keys/{key.name}", key)
    return key
