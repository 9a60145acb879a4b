"""AES-256-GCM in the one form everything sealed in a store has.

Suite byte 0x01, 12-byte random nonce, ciphertext, 16-byte tag. Another suite byte is refused, never guessed.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_SUITE_AES_256_GCM = b"\x01"
_NONCE_BYTES = 12
_TAG_BYTES = 16


class SealBrokenError(Exception):
    """A seal does not open: other key, other binding or changed bytes. The store turns it into StoreTamperedError."""


def seal(cipher: AESGCM, plain: bytes, binding: bytes) -> bytes:
    """`plain` sealed to `binding`. Nonces are random: a store makes far fewer than 2^32 seals with one key."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _SUITE_AES_256_GCM + nonce + cipher.encrypt(nonce, plain, binding)


def unseal(cipher: AESGCM, sealed: bytes, binding: bytes) -> bytes:
    """What `seal` sealed. Raises SealBrokenError, also for a suite this release does not know."""
    if len(sealed) < 1 + _NONCE_BYTES + _TAG_BYTES or sealed[:1] != _SUITE_AES_256_GCM:
        raise SealBrokenError
    try:
        return cipher.decrypt(sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :], binding)
    except InvalidTag:
        raise SealBrokenError from None
