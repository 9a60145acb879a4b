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
# Base64 turns groups of 3 bytes into 4 characters; an IV padded to 18 bytes is 24 of them, of which 22 count.
_IV_PADDED = 18
_IV_TEXT = 22
_IV_TEXT_PADDED = 24


class EekCipher:
    """One key version, ready to make and open EDEKs of any length that fits the format."""

    __slots__ = ("_ecb", "_head", "_key_bytes", "_middle", "decrypt_head", "number", "version_name")

    def __init__(self, version: KeyVersion) -> None:
        material = version.material.reveal()
        # ECB is only the block function under CTR here: each input block is a counter used once.
        self._ecb = Cipher(algorithms.AES(material), modes.ECB()).encryptor()  # noqa: S305
        self._key_bytes = len(material)
        self.number = version.version
        self.version_name = version_name(version.key_name, version.version)
        name_json = msgspec.json.encode(version.key_name)
        self._head = b'{"versionName":' + msgspec.json.encode(self.version_name) + b',"iv":"'
        self._middle = b'","encryptedKeyVersion":{"name":' + name_json + b',"versionName":"EEK","material":"'
        self.decrypt_head = b'{"name":' + name_json + b',"versionName":"EK","material":"'

    def __repr__(self) -> str:
        return f"<EekCipher {self.version_name}>"

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
        return self.decrypt_head + text + b'"}'

    def eek_json(self, iv: bytes, edek: bytes) -> bytes:
        """One EDEK of this version as the KMS answers it."""
        return b"".join(
            (
                self._head,
                kms_wire.encode_base64(iv).encode(),
                self._middle,
                kms_wire.encode_base64(edek).encode(),
                b'"}}',
            )
        )

    def generate_json(self, count: int) -> bytes:
        """The answer to a generate: `count` new EDEKs, each of a random DEK as long as the zone key.

        Every entry has the same length, so the JSON is one template filled column by column, and all IVs and
        EDEKs go through AES and base64 in one pass each; nothing is done per entry.
        """
        if count < 1:
            return b"[]"
        ivs = ssl.RAND_bytes(count * IV_BYTES)
        texts, row_text, edek_text = self._encode_rows(ivs, self._encrypt_random_deks(ivs), count)
        entry = self._head + bytes(_IV_TEXT) + self._middle + bytes(edek_text) + b'"}},'
        width = len(entry)
        out = bytearray(entry * count)
        iv_at = len(self._head)
        for column in range(_IV_TEXT):
            out[iv_at + column :: width] = texts[column::row_text]
        edek_at = iv_at + _IV_TEXT + len(self._middle)
        for column in range(edek_text):
            out[edek_at + column :: width] = texts[_IV_TEXT_PADDED + column :: row_text]
        out[-1:] = b"]"
        return b"[" + bytes(out)

    def _encrypt_random_deks(self, ivs: bytes) -> list[bytes]:
        # EDEKs by 16-byte column: element c holds bytes 16c.. of every EDEK, one after another.
        counters = ivs.translate(_COMPLEMENT)
        columns = [counters]
        while len(columns) * _BLOCK_BYTES < self._key_bytes:
            counters = _next_counters(counters)
            columns.append(counters)
        stream = self._ecb.update(b"".join(columns))
        deks = ssl.RAND_bytes(len(stream))
        edeks = (int.from_bytes(stream, "big") ^ int.from_bytes(deks, "big")).to_bytes(len(stream), "big")
        return [edeks[start : start + len(ivs)] for start in range(0, len(edeks), len(ivs))]

    def _encode_rows(self, ivs: bytes, edek_columns: list[bytes], count: int) -> tuple[bytes, int, int]:
        # One row per EDEK, IV and EDEK each padded to whole base64 groups. Returns the base64 text of all rows,
        # the characters per row, and how many characters of the EDEK's part count.
        edek_padded = -(-self._key_bytes // 3) * 3
        width = _IV_PADDED + edek_padded
        rows = bytearray(width * count)
        for column in range(IV_BYTES):
            rows[column::width] = ivs[column::IV_BYTES]
        for index in range(self._key_bytes):
            block, column = divmod(index, _BLOCK_BYTES)
            rows[_IV_PADDED + index :: width] = edek_columns[block][column::_BLOCK_BYTES]
        texts = binascii.b2a_base64(rows, newline=False).translate(_TO_URL_SAFE)
        return texts, width // 3 * 4, -(-self._key_bytes * 4 // 3)


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
