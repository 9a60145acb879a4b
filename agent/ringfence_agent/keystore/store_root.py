"""A store's root: the one secret from which every key that the store itself uses derives.

Derivation: HKDF-SHA256 (RFC 5869) of the root, salted with the store's id, one output for each purpose. Where the root
rests is the protectors' business (`protector`, `slots`); here it is in memory.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ringfence_agent.keystore.sealing import seal, unseal
from ringfence_zones.secret import Secret

ROOT_BYTES = 32
_INFO = b"ringfence/keystore/1/"


def derive_key(secret: Secret, salt: bytes, purpose: str) -> bytes:
    """32 bytes that only this secret, salt and purpose give."""
    return HKDF(SHA256(), length=32, salt=salt, info=_INFO + purpose.encode()).derive(secret.reveal())


class StoreRoot:
    """The root of one store. Used from any thread."""

    def __init__(self, root: Secret, store_id: bytes) -> None:
        self.secret = root
        self.store_id = store_id
        self._material = AESGCM(self.derive("wrap-material"))
        self._remote = AESGCM(self.derive("wrap-remote"))
        self._held = AESGCM(self.derive("wrap-held"))

    def derive(self, purpose: str) -> bytes:
        """32 bytes that only this root and this store give, one value for each purpose."""
        return derive_key(self.secret, self.store_id, purpose)

    def seal_material(self, material: Secret, binding: bytes) -> bytes:
        """One version's material, sealed here. `binding` is what it belongs to, encoded."""
        return seal(self._material, material.reveal(), binding)

    def open_material(self, sealed: bytes, binding: bytes) -> Secret:
        """What `seal_material` sealed. Raises SealBrokenError."""
        return Secret(unseal(self._material, sealed, binding))

    def seal_remote(self, sealed: bytes, binding: bytes) -> bytes:
        """What a remote protector sealed, tied to its place in this store."""
        return seal(self._remote, sealed, binding)

    def open_remote(self, sealed: bytes, binding: bytes) -> bytes:
        """What `seal_remote` sealed. Raises SealBrokenError."""
        return unseal(self._remote, sealed, binding)

    def seal_held(self, place: bytes, binding: bytes) -> bytes:
        """Where a version is held, tied to its place in this store."""
        return seal(self._held, place, binding)

    def open_held(self, sealed: bytes, binding: bytes) -> bytes:
        """What `seal_held` sealed. Raises SealBrokenError."""
        return unseal(self._held, sealed, binding)
