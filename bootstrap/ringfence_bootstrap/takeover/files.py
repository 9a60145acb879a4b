"""The EDEKs of a few real files of each zone, from the NameNode's own extended attributes.

Source: `FileEncryptionInfo` as `PerFileEncryptionInfoProto` in `raw.hdfs.crypto.file.encryption.info`, which a
superuser reads under `/.reserved/raw`. No file's data is read.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ringfence_bootstrap.takeover.proof import FileEdek
from ringfence_zones.errors import HdfsError
from ringfence_zones.hdfs import HdfsGateway
from ringfence_zones.keys import split_version_name
from ringfence_zones.kms_material import Edek

_ATTRIBUTE = "raw.hdfs.crypto.file.encryption.info"
_RAW = "/.reserved/raw"
_FILES_PER_ZONE = 2
# A zone of empty directories is looked at only so long.
_LOOKED_AT = 1000
_EDEK, _IV, _VERSION_NAME = 1, 2, 3
_LENGTH_DELIMITED = 2


def find_file_edeks(hdfs: HdfsGateway) -> list[FileEdek]:
    """Some files of every zone. Superuser only. Raises HdfsError."""
    found: list[FileEdek] = []
    for zone in hdfs.list_zones():
        with_edeks = (
            FileEdek(path, parse_edek(path, hdfs.get_xattr(_RAW + path, _ATTRIBUTE)))
            for path in itertools.islice(hdfs.iterate_files(zone.path), _LOOKED_AT)
        )
        found += itertools.islice(with_edeks, _FILES_PER_ZONE)
    return found


def parse_edek(path: str, attribute: bytes) -> Edek:
    """`PerFileEncryptionInfoProto`: EDEK, IV, name of the key's version. Raises HdfsError naming the file."""
    fields = dict(_fields(attribute))
    try:
        split = split_version_name(fields[_VERSION_NAME].decode())
        if split is not None:
            return Edek(split[0], fields[_VERSION_NAME].decode(), fields[_IV], fields[_EDEK])
    except (KeyError, UnicodeDecodeError):
        pass
    raise HdfsError(f"the encryption attribute of {path} cannot be read")


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each length-delimited field; the message has no other kind."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        length, at = _varint(message, at)
        if tag & 7 != _LENGTH_DELIMITED or at + length > len(message):
            raise HdfsError("a file has an encryption attribute of another form")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise HdfsError("a file has an encryption attribute of another form")
