"""The IV of a new EDEK says where the EDEK came from, to this store's servers and to nobody else.

An EDEK's IV is 16 bytes that the KMS chooses, that the NameNode keeps with the file, that every opening brings back and
that re-encryption never changes. Hadoop draws them at random. Here they are the encryption, under AES-256 and a secret
of the store, of

    tag of the key's name (2) | epoch (2) | minutes since 2020-01-01T00:00Z (3) | random (9)

A permutation of values that do not repeat: 72 random bits in each minute. To anybody without the secret they are random
blocks, as any IV is, and the EDEK is Hadoop's in every other way. So what is to be known of an EDEK when it is opened
takes no memory, survives restarts and is the same on every instance of a store.

The epoch is the flow memory's (`memory`), 0 for an EDEK that no memory noted. An IV that another KMS drew reads as one
of ours once in 65,536 times, of any epoch and minute: nothing hangs on that but one label.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ringfence_zones.keys import IV_BYTES
from ringfence_zones.secret import Secret

PURPOSE = "flow stamps in IVs"
UNTRACKED = 0
MAX_EPOCH = 0xFFFF

_BEGAN_S = 1_577_836_800
_MINUTE_S = 60
_TAG_BYTES = 2
_RANDOM_BYTES = 9
_HEAD = struct.Struct(">2sHBH")  # a minute is 24 bits: its high byte, then the others
_TAGS_LIMIT = 16_384


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an IV says: which memory noted the EDEK, and the minute in which it was made (epoch seconds)."""

    epoch: int
    made_s: int


class Stamps:
    """Makes and reads them. Used on one event loop: the cipher contexts are not thread-safe."""

    def __init__(self, secret: Secret) -> None:
        # ECB over blocks that never repeat is the block permutation itself, which is what is wanted.
        cipher = Cipher(algorithms.AES(secret.reveal()), modes.ECB())  # noqa: S305
        self._seal, self._open = cipher.encryptor(), cipher.decryptor()
        self._tags: dict[str, bytes] = {}

    def make(self, key_name: str, count: int, epoch: int, now_s: float) -> bytes:
        """`count` IVs, one after another, for EDEKs made now."""
        minute = int(now_s - _BEGAN_S) // _MINUTE_S & 0xFFFFFF
        head = _HEAD.pack(self._tag(key_name), epoch, minute >> 16, minute & 0xFFFF)
        noise = os.urandom(count * _RANDOM_BYTES)
        blocks = [noise[at : at + _RANDOM_BYTES] for at in range(0, len(noise), _RANDOM_BYTES)]
        return self._seal.update(b"".join([head + block for block in blocks]))

    def find(self, key_name: str, iv: bytes) -> Stamp | None:
        """What an IV says; None when it was not made here for this key."""
        tag, epoch, high, low = _HEAD.unpack_from(self._open.update(iv))
        if tag != self._tag(key_name):
            return None
        return Stamp(epoch, ((high << 16) + low) * _MINUTE_S + _BEGAN_S)

    def _tag(self, key_name: str) -> bytes:
        tag = self._tags.get(key_name)
        if tag is None:
            if len(self._tags) >= _TAGS_LIMIT:
                self._tags.clear()
            tag = self._tags[key_name] = hashlib.sha256(key_name.encode()).digest()[:_TAG_BYTES]
        return tag


assert _HEAD.size + _RANDOM_BYTES == IV_BYTES
