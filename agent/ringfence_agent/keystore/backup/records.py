"""The records of a backup: rows as they rest in the store, and canaries, one after the other.

A record is four bytes of length, big-endian, and that many bytes of `rows.encoding`: the first field names the table
(or `canary`), the others are the columns of its row in the order that the manifest lists. Text and bytes keep their
types, so a row is the same record whichever SQL engine it came from.

Reading is bounded, and refuses whatever `rows.encoding` would not have written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ringfence_agent.keystore.rows.encoding import Field, encode_row

# A published policy is the largest row; the key server takes none beyond 16 MiB.
MAX_RECORD_BYTES = 64 * 1024 * 1024
_LENGTH = struct.Struct(">I")
_HEAD = struct.Struct(">cI")
_INTEGER = struct.Struct(">q")


class MalformedRecordError(Exception):
    """Bytes that are no record; `file_format` turns it into BackupError."""


class Record(NamedTuple):
    """One row of a table, or a canary."""

    kind: str
    fields: tuple[Field, ...]


def encode_record(record: Record) -> bytes:
    """The record with its length before it."""
    encoded = encode_row(record.kind, *record.fields)
    if len(encoded) > MAX_RECORD_BYTES:
        raise OverflowError(f"a row of {record.kind} has {len(encoded)} bytes, more than a backup takes")
    return _LENGTH.pack(len(encoded)) + encoded


def read_records(stream: BinaryIO) -> Iterator[tuple[bytes, Record]]:
    """Each record to the stream's end, with the bytes that it was read from. Raises MalformedRecordError."""
    while head := stream.read(_LENGTH.size):
        if len(head) < _LENGTH.size:
            raise MalformedRecordError
        (length,) = _LENGTH.unpack(head)
        encoded = stream.read(length) if length <= MAX_RECORD_BYTES else b""
        if len(encoded) != length:
            raise MalformedRecordError
        yield head + encoded, _decode(encoded)


def _decode(encoded: bytes) -> Record:
    fields: list[Field] = []
    place = 0
    while place < len(encoded):
        if len(encoded) - place < _HEAD.size:
            raise MalformedRecordError
        kind, length = _HEAD.unpack_from(encoded, place)
        place += _HEAD.size
        value = encoded[place : place + length]
        if len(value) != length:
            raise MalformedRecordError
        fields.append(_field(kind, value))
        place += length
    if not fields or not isinstance(fields[0], str):
        raise MalformedRecordError
    return Record(fields[0], tuple(fields[1:]))


def _field(kind: bytes, value: bytes) -> Field:
    match kind:
        case b"t":
            try:
                return value.decode()
            except UnicodeDecodeError:
                raise MalformedRecordError from None
        case b"b":
            return value
        case b"i" if len(value) == _INTEGER.size:
            number: int = _INTEGER.unpack(value)[0]
            return number
        case b"n" if not value:
            return None
        case _:
            raise MalformedRecordError
