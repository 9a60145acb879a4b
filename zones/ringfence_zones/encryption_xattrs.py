"""What HDFS writes beside a zone's root and a file about their keys, read from its extended attributes.

Source: Hadoop's `encryption.proto` and `hdfs.proto` (`ZoneEncryptionInfoProto`, `PerFileEncryptionInfoProto`). Of both
only field 3 is read, the key's name and the key version's; what is not such a message gives None. Nothing here is
secret: a file's EDEK is passed over.
"""

from __future__ import annotations

ZONE_XATTR = "hdfs.crypto.encryption.zone"
FILE_XATTR = "hdfs.crypto.file.encryption.info"

_NAME_FIELD = 3
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10


def read_key_name(message: bytes) -> str | None:
    """The key of a zone (`ZONE_XATTR`), or the key version of a file (`FILE_XATTR`); None when there is none."""
    at = 0
    try:
        while at < len(message):
            tag, at = _varint(message, at)
            number, wire_type = tag >> 3, tag & 7
            if wire_type == _VARINT:
                _, at = _varint(message, at)
            elif wire_type == _BYTES:
                length, at = _varint(message, at)
                if number == _NAME_FIELD:
                    value = message[at : at + length]
                    return value.decode() if len(value) == length else None
                at += length
            else:
                at += _FIXED_BYTES[wire_type]
    except (IndexError, KeyError, UnicodeDecodeError):
        return None
    return None


def key_of_version(version_name: str) -> str:
    """`pii@3` is a version of `pii`: Hadoop splits at the last `@`."""
    return version_name.rpartition("@")[0]


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_MAX_VARINT_BYTES):
        byte = message[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise IndexError
