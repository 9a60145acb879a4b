"""EEK cryptography, byte for byte as Hadoop's: makes, opens and re-encrypts EDEKs with one key version.

Source: `KeyProviderCryptoExtension.DefaultCryptoExtension`. An EDEK is AES-CTR over the DEK under the zone key; the
first counter block is the bitwise complement of the file's IV, and the counter is 128 bits wide, big-endian, with
carry across all of them. There is no integrity check: that is the format, and Hadoop's clients expect it.

CTR is computed here as AES-ECB over counter blocks, then XOR. One ECB context per key version is reused for every
request: it holds no nonce, so it can never pair a key stream with the wrong message, and it costs a tenth of a fresh
context. The contexts are not thread-safe: an `EekCipher` belongs to the event loop's thread.

This module refuses to know users, requests or stores.
"""

from __future__ import annotations

import binascii
import ssl
import struct

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ringfence_zones import kms_wire
from ringfence_zones.keys import IV_BYTES, KeyVersion, version_name

# More than one NameNode refill (500) ever asks for, and small enough that one answer never stalls the loop.
MAX_GENERATE = 1000

_BLOCK_BYTES = 16
_MASK_128 = (1 << 128) - 1
_COMPLEMENT = bytes(byte ^ 0xFF for byte in range(256))
_PLUS_ONE = bytes((byte + 1) & 0xFF for byte in range(256))
_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")
# A NameNode asks for two or three sizes of batch: its first fill and its refills.
_LAYOUTS_LIMIT = 8


class EekWords:
    """The answers about one key version but for what is secret in them, so that it can outlive the material."""

    __slots__ = ("_entry", "_layouts", "decrypt_head", "head", "middle", "version_name")

    def __init__(self, key_name: str, number: int) -> None:
        self.version_name = version_name(key_name, number)
        name_json = msgspec.json.encode(key_name)
        self.head = b'{"versionName":' + msgspec.json.encode(self.version_name) + b',"iv":"'
        self.middle = b'","encryptedKeyVersion":{"name":' + name_json + b',"versionName":"EEK","material":"'
        # The template of one EDEK. A `%` in the key's name is not a place to fill.
        self._entry = self.head.replace(b"%", b"%%") + b"%b" + self.middle.replace(b"%", b"%%") + b'%b"}},'
        self._layouts: dict[int, _Layout] = {}
        self.decrypt_head = b'{"name":' + name_json + b',"versionName":"EK","material":"'

    def eek_json(self, iv: bytes, edek: bytes) -> bytes:
        """One EDEK of this version as the KMS answers it."""
        return b"".join(
            (
                self.head,
                kms_wire.encode_base64(iv).encode(),
                self.middle,
                kms_wire.encode_base64(edek).encode(),
                b'"}}',
            )
        )

    def dek_json(self, dek: bytes) -> bytes:
        """The answer to a decrypt: the DEK as the key version `EK`."""
        return self.decrypt_head + kms_wire.encode_base64(dek).encode() + b'"}'

    def layout(self, key_bytes: int, count: int) -> _Layout:
        """How a batch of `count` is written; `key_bytes` is the same each time."""
        layout = self._layouts.get(count)
        if layout is None:
            if len(self._layouts) >= _LAYOUTS_LIMIT:
                self._layouts.clear()
            layout = self._layouts[count] = _Layout(self._entry, key_bytes, count)
        return layout


class EekCipher:
    """One key version, ready to make and open EDEKs of any length that fits the format.

    `words` are made when not given: a cipher that serves one request takes those of the last. `eek_json` is theirs.
    """

    __slots__ = ("_decrypt_head", "_ecb", "_key_bytes", "_words", "eek_json", "number")

    def __init__(self, version: KeyVersion, words: EekWords | None = None) -> None:
        material = version.material.reveal()
        # ECB is only the block function under CTR here: each input block is a counter used once.
        self._ecb = Cipher(algorithms.AES(material), modes.ECB()).encryptor()  # noqa: S305
        self._key_bytes = len(material)
        self.number = version.version
        self._words = words or EekWords(version.key_name, version.version)
        self._decrypt_head = self._words.decrypt_head
        self.eek_json = self._words.eek_json

    def __repr__(self) -> str:
        return f"<EekCipher {self._words.version_name}>"

    def apply(self, iv: bytes, data: bytes) -> bytes:
        """Encrypts a DEK or decrypts an EDEK (CTR is its own inverse); `iv` is 16 bytes, any length of data."""
        length = len(data)
        counter = int.from_bytes(iv, "big") ^ _MASK_128
        if length <= _BLOCK_BYTES:
            blocks = counter.to_bytes(_BLOCK_BYTES, "big")
        elif length <= 2 * _BLOCK_BYTES and counter != _MASK_128:
            # The one case with two blocks that matters, an AES-256 key's; the addition does not wrap.
            blocks = (counter << 128 | counter + 1).to_bytes(2 * _BLOCK_BYTES, "big")
        else:
            blocks = b"".join(
                [
                    ((counter + step) & _MASK_128).to_bytes(_BLOCK_BYTES, "big")
                    for step in range(-(-length // _BLOCK_BYTES))
                ]
            )
        stream = self._ecb.update(blocks)
        mixed = int.from_bytes(stream[:length], "big") ^ int.from_bytes(data, "big")
        return mixed.to_bytes(length, "big")

    def decrypt_json(self, iv: bytes, edek: bytes) -> bytes:
        """The answer to a decrypt: the DEK as the key version `EK`."""
        dek = self.apply(iv, edek)
        text = binascii.b2a_base64(dek, newline=False).translate(_TO_URL_SAFE).rstrip(b"=")
        return self._decrypt_head + text + b'"}'

    def generate_json(self, count: int, ivs: bytes | None = None) -> bytes:
        """The answer to a generate: `count` new EDEKs, each of a random DEK as long as the zone key.

        `ivs` are their IVs, one after another, which must never have been used with this key; drawn when not given.
        Every entry has the same length, so all IVs and EDEKs go through AES, base64 and one template in a single
        pass each; no Python code runs per entry.
        """
        if count < 1:
            return b"[]"
        layout = self._words.layout(self._key_bytes, count)
        if ivs is None:
            ivs = ssl.RAND_bytes(count * IV_BYTES)
        edeks = self._encrypt_random_deks(ivs, layout)
        pairs = layout.interleave(layout.split_blocks(ivs), layout.split_edeks(edeks))
        text = binascii.b2a_base64(layout.pad(*pairs), newline=False).translate(_TO_URL_SAFE)
        return layout.template % layout.split_text(text)

    def _encrypt_random_deks(self, ivs: bytes, layout: _Layout) -> bytes:
        counters = ivs.translate(_COMPLEMENT)
        if self._key_bytes > _BLOCK_BYTES:
            following = _next_counters(counters)
            counters = b"".join(layout.interleave(layout.split_blocks(counters), layout.split_blocks(following)))
        stream = self._ecb.update(counters)
        deks = ssl.RAND_bytes(len(stream))
        return (int.from_bytes(stream, "big") ^ int.from_bytes(deks, "big")).to_bytes(len(stream), "big")


class _Layout:
    """How `count` EDEKs of one key version become JSON: depends on sizes alone, holds nothing secret."""

    __slots__ = ("_count", "pad", "split_blocks", "split_edeks", "split_text", "template")

    def __init__(self, entry: bytes, key_bytes: int, count: int) -> None:
        self._count = count
        self.template = b"[" + (entry * count)[:-1] + b"]"
        self.split_blocks = struct.Struct(f"{_BLOCK_BYTES}s" * count).unpack
        self.split_edeks = struct.Struct(f"{key_bytes}s" * count).unpack
        # A row is an IV and an EDEK, each padded with zeros to whole base64 groups, so that one pass encodes all.
        edek_padding = -key_bytes % 3
        self.pad = struct.Struct(f"{IV_BYTES}s2x{key_bytes}s{edek_padding}x" * count).pack
        edek_text = -(-key_bytes * 4 // 3)
        self.split_text = struct.Struct(f"22s2x{edek_text}s{edek_padding}x" * count).unpack

    def interleave(self, first: tuple[bytes, ...], second: tuple[bytes, ...]) -> list[bytes]:
        """`first[0], second[0], first[1], ...`."""
        both = [b""] * (2 * self._count)
        both[::2] = first
        both[1::2] = second
        return both


def _next_counters(counters: bytes) -> bytes:
    # Adds 1 to each 16-byte big-endian counter: the last byte of all at once, then the few (1 in 256) that carry.
    following = bytearray(counters)
    last = counters[_BLOCK_BYTES - 1 :: _BLOCK_BYTES].translate(_PLUS_ONE)
    following[_BLOCK_BYTES - 1 :: _BLOCK_BYTES] = last
    index = last.find(0)
    while index >= 0:
        start = index * _BLOCK_BYTES
        counter = int.from_bytes(counters[start : start + _BLOCK_BYTES], "big") + 1
        following[start : start + _BLOCK_BYTES] = (counter & _MASK_128).to_bytes(_BLOCK_BYTES, "big")
        index = last.find(0, index + 1)
    return bytes(following)


def reencrypt(old: EekCipher, current: EekCipher, iv: bytes, edek: bytes) -> bytes:
    """The EDEK under the current version: same IV, same DEK. Another DEK would destroy the file."""
    return current.apply(iv, old.apply(iv, edek))
