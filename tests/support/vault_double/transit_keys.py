"""Transit's keys and their cryptography, as measured.

A ciphertext is `vault:v<N>:` and base64 of nonce (12 bytes), AES-GCM ciphertext and tag. The key of a derived one is
HKDF-SHA256 over the version's key, without salt, with the context as info; of an imported derived one, one round of
HMAC-SHA256 in counter mode. Versions before 1 read as 1, as the real servers read them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vault_double.backend import decode_base64, encode_base64

KEY_BYTES = {"aes256-gcm96": 32, "aes128-gcm96": 16, "chacha20-poly1305": 32}
HKDF_SHA256 = "hkdf_sha256"
COUNTER_KDF = "hmac-sha256-counter"
NONCE_BYTES, TAG_BYTES = 12, 16
_INT64 = 1 << 63
_MISSING_CONTEXT = (
    "missing 'context' for key derivation; the key was created using a derived key, which means additional, "
    "per-request information must be included in order to perform operations with the key"
)


class TransitError(Exception):
    """The caller's mistake: 400."""


class TransitInternalError(Exception):
    """What the server takes for its own failure: 500."""


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One version's bytes, and its HMAC key."""

    material: bytes
    hmac_key: bytes
    created_s: int


@dataclass(frozen=True, slots=True)
class TransitKey:
    """One named key with all its versions."""

    name: str
    kind: str
    versions: Mapping[int, KeyVersion]
    latest: int = 1
    derived: bool = False
    kdf: str = HKDF_SHA256
    exportable: bool = False
    allow_plaintext_backup: bool = False
    deletion_allowed: bool = False
    soft_deleted: bool = False
    min_decryption: int = 1
    min_encryption: int = 0
    min_available: int = 0
    auto_rotate_period_s: int = 0
    imported: bool = False
    allow_rotation: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    def rotated(self, now: float) -> TransitKey:
        """With one more version, made by the server: an imported key is imported no longer."""
        if self.soft_deleted:
            raise TransitInternalError("refusing to use soft-deleted key")
        if self.imported and not self.allow_rotation:
            raise TransitInternalError(f"imported key {self.name} does not allow rotation within OpenBao")
        number = self.latest + 1
        versions = {**self.versions, number: new_version(self.kind, now)}
        return replace(self, versions=versions, latest=number, imported=False)

    def trimmed(self, min_available: int) -> TransitKey:
        kept = {number: version for number, version in self.versions.items() if number >= min_available}
        return replace(self, versions=kept, min_available=min_available)

    def visible_versions(self) -> dict[int, KeyVersion]:
        """Those that may decrypt; the rest is archived until the minimum is lowered."""
        return {number: version for number, version in self.versions.items() if number >= self.min_decryption}

    def encrypt(self, plaintext: bytes, context: bytes, version: int = 0, aad: bytes | None = None) -> str:
        number = self._encryption_version(version)
        nonce = secrets.token_bytes(NONCE_BYTES)
        return f"vault:v{number}:" + encode_base64(nonce + self._cipher(number, context).encrypt(nonce, plaintext, aad))

    def decrypt(self, ciphertext: str, context: bytes, aad: bytes | None = None) -> bytes:
        if self.soft_deleted:
            raise TransitError("refusing to use soft-deleted key")
        number, encoded = self._split(ciphertext)
        if self.derived and not context:
            raise TransitError(_MISSING_CONTEXT)
        try:
            raw = decode_base64(encoded)
        except ValueError:
            raise TransitError("invalid ciphertext: could not decode base64") from None
        if len(raw) < NONCE_BYTES:
            raise TransitError("invalid ciphertext length")
        try:
            return self._cipher(number, context).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], aad)
        except InvalidTag:
            raise TransitError("cipher: message authentication failed") from None

    def _encryption_version(self, version: int) -> int:
        if self.soft_deleted:
            raise TransitError("refusing to use soft-deleted key")
        if version == 0:
            return self.latest
        if version < 0:
            raise TransitError("requested version for encryption is negative")
        if version > self.latest:
            raise TransitError("requested version for encryption is higher than the latest key version")
        if version < self.min_encryption:
            raise TransitError("requested version for encryption is less than the minimum encryption key version")
        if version not in self.visible_versions():
            raise TransitError("no such key version")
        return version

    def _split(self, ciphertext: str) -> tuple[int, str]:
        if not ciphertext.startswith("vault:v"):
            raise TransitError("invalid ciphertext: no prefix")
        number, separator, encoded = ciphertext.removeprefix("vault:v").partition(":")
        if not separator:
            raise TransitError("invalid ciphertext: wrong number of fields")
        if re.fullmatch(r"[+-]?[0-9]+", number) is None or not -_INT64 <= int(number) < _INT64:
            raise TransitError("invalid ciphertext: version number could not be decoded")
        version = int(number) or 1
        if version > self.latest:
            raise TransitError("invalid ciphertext: version is too new")
        if version < self.min_decryption:
            raise TransitError("ciphertext or signature version is disallowed by policy (too old)")
        return version, encoded

    def _cipher(self, number: int, context: bytes) -> AESGCM | ChaCha20Poly1305:
        key = self.versions[number].material
        if self.derived:
            if not context:
                raise TransitError(_MISSING_CONTEXT)
            key = derive_key(self.kdf, key, context, KEY_BYTES[self.kind])
        return ChaCha20Poly1305(key) if self.kind == "chacha20-poly1305" else AESGCM(key)

    def as_data(self) -> dict[str, Any]:
        """`GET keys/K`'s data."""
        data: dict[str, Any] = {
            "allow_plaintext_backup": self.allow_plaintext_backup,
            "auto_rotate_period": self.auto_rotate_period_s,
            "deletion_allowed": self.deletion_allowed,
            "derived": self.derived,
            "exportable": self.exportable,
            "imported_key": self.imported,
            "keys": {str(number): version.created_s for number, version in self.visible_versions().items()},
            "latest_version": self.latest,
            "min_available_version": self.min_available,
            "min_decryption_version": self.min_decryption,
            "min_encryption_version": self.min_encryption,
            "name": self.name,
            "soft_deleted": self.soft_deleted,
            "supports_decryption": True,
            "supports_derivation": True,
            "supports_encryption": True,
            "supports_signing": False,
            "type": self.kind,
        }
        if self.imported:
            data["imported_key_allow_rotation"] = self.allow_rotation
        if self.derived:
            data |= {"kdf": self.kdf, "convergent_encryption": False}
            if self.kdf == COUNTER_KDF:
                data["kdf_mode"] = COUNTER_KDF
        return data | dict(self.extra)


def new_version(kind: str, now: float) -> KeyVersion:
    return KeyVersion(secrets.token_bytes(KEY_BYTES[kind]), secrets.token_bytes(32), int(now))


def derive_key(kdf: str, key: bytes, context: bytes, length: int) -> bytes:
    """The key of one context."""
    if kdf == COUNTER_KDF:
        block = b"\0\0\0\0" + context + (length * 8).to_bytes(4, "big")
        return hmac.new(key, block, hashlib.sha256).digest()[:length]
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=context).derive(key)
