"""A canary: an EDEK made with a key version when a backup was made, by which a drill sees that the version came back.

The EDEK has Hadoop's form (`KeyProviderCryptoExtension`: AES-CTR over the DEK under the zone key, the first counter
block being the complement of the IV). Beside it rests a keyed digest of the DEK, under a key that derives from the
store's root. So a backup tells nothing about a DEK, and only a store that opens can say whether the right one came out.

The cipher here is not the key server's own code: a fault there must not hide itself.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ringfence_agent.keystore.backup.records import MalformedRecordError, Record
from ringfence_agent.keystore.rows.encoding import encode_row
from ringfence_agent.keystore.snapshot import SealedVersion
from ringfence_zones.keys import IV_BYTES
from ringfence_zones.secret import Secret

KIND = "canary"
PURPOSE = "backup canaries"
"""What the digests' key is derived for (`KeyStore.derive_secret`)."""
_DEK_BYTES = 32
_DIGEST_BYTES = 32
_AES_BYTES = (16, 24, 32)


@dataclass(frozen=True, slots=True)
class Canary:
    """`row` is a SHA-256 of the version's row, for which it was made; `digest` an HMAC-SHA256 over all and the DEK."""

    key_name: str
    version: int
    row: bytes
    iv: bytes
    edek: bytes
    digest: bytes


Canaries = Mapping[tuple[str, int], Canary]


def make_canary(version: SealedVersion, material: Secret, digest_key: Secret) -> Canary:
    """With a random DEK, which nobody keeps."""
    iv, dek = secrets.token_bytes(IV_BYTES), secrets.token_bytes(_DEK_BYTES)
    edek = _apply(material, iv, dek)
    draft = Canary(version.key_name, version.version, row_digest(version), iv, edek, b"")
    return replace(draft, digest=_digest(digest_key, draft, dek))


def row_digest(version: SealedVersion) -> bytes:
    """What tells a version's row from one of the same number in another history of the store."""
    return hashlib.sha256(version.encode()).digest()


def is_opened_by(canary: Canary, material: Secret, digest_key: Secret) -> bool:
    """Whether this material gives the DEK that the canary was made of; constant-time."""
    if len(material) not in _AES_BYTES:
        return False
    dek = _apply(material, canary.iv, canary.edek)
    return hmac.compare_digest(_digest(digest_key, canary, dek), canary.digest)


def canary_record(canary: Canary) -> Record:
    """As it rests in a backup."""
    return Record(KIND, (canary.key_name, canary.version, canary.row, canary.iv, canary.edek, canary.digest))


def canary_of(record: Record) -> Canary:
    """Raises MalformedRecordError."""
    match record.fields:
        case (str(key_name), int(version), bytes(row), bytes(iv), bytes(edek), bytes(digest)) if (
            len(row),
            len(iv),
            len(edek),
            len(digest),
        ) == (_DIGEST_BYTES, IV_BYTES, _DEK_BYTES, _DIGEST_BYTES):
            return Canary(key_name, version, row, iv, edek, digest)
        case _:
            raise MalformedRecordError


def _apply(material: Secret, iv: bytes, data: bytes) -> bytes:
    counter = bytes(byte ^ 0xFF for byte in iv)
    cipher = Cipher(algorithms.AES(material.reveal()), modes.CTR(counter)).encryptor()
    return cipher.update(data) + cipher.finalize()


def _digest(key: Secret, canary: Canary, dek: bytes) -> bytes:
    fields = ("ringfence/canary", canary.key_name, canary.version, canary.row, canary.iv, canary.edek, dek)
    return hmac.digest(key.reveal(), encode_row(*fields), "sha256")
