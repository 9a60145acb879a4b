"""The file of a backup, which says itself what it is. Version 1:

    ringfence keystore backup 1 LF
    manifest LF        one line of JSON (`Manifest`), keys sorted, no spaces
    signature LF       64 hex digits: HMAC-SHA256 over the two lines above, under `derive_secret("backup manifest")`
    records            (`records`) to the end of the file

Rules:

1. Rows are exactly what rests in the store: names, metadata and policy in clear, material as it is wrapped there. The
   manifest holds the header with the root of trust's slots, so the file and that root of trust are all a restore takes.
2. The manifest holds length and SHA-256 of the records, so its signature covers every byte of the file.
3. A file that is read was written by others: lines and records are bounded, and nothing of it is believed before length
   and digest are right. The signature can be checked once the root of trust has opened what is in the file.

Delegation tokens, changes whose answer may be lost and the list of recent changes are not in it: a token that was
cancelled since would be good again, and the other two mean nothing to another time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ringfence_agent.keystore.backup.records import (
    MalformedRecordError,
    Record,
    encode_record,
    read_records,
)
from ringfence_zones.errors import BackupError
from ringfence_zones.secret import Secret

FORMAT = 1
SUFFIX = ".rfbackup"
PURPOSE = "backup manifest"
"""What the signature's key is derived for (`KeyStore.derive_secret`)."""
_MAGIC = b"ringfence keystore backup "
_MAX_LINE_BYTES = 4 * 1024 * 1024
_BLOCK_BYTES = 1024 * 1024
_HEX = "^[0-9a-f]*$"


class Manifest(BaseModel):
    """What a backup says about itself. Numbers of rows are by kind of record; times are epoch milliseconds.

    `change_number` is the store's (`KeyStore.change_number`): of two backups of a store the one with the higher number
    is the later. `protector_header` is in hex.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    product: str
    source: str
    made_ms: int = Field(ge=0)
    store_id: str = Field(pattern=_HEX, min_length=32, max_length=32)
    store_created_ms: int
    schema_version: int = Field(ge=1)
    change_number: int = Field(ge=0)
    policy_revision: int = Field(ge=0)
    protector: str
    protector_header: str = Field(pattern=_HEX)
    columns: dict[str, list[str]]
    rows: dict[str, int]
    body_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=_HEX, min_length=64, max_length=64)

    def line(self) -> bytes:
        """As it stands in the file."""
        return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


class BodyDigest:
    """Length, number and digest of records, as a manifest has them."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.body_bytes = 0
        self._hash = hashlib.sha256()

    def add(self, kind: str, encoded: bytes) -> None:
        """One record."""
        self.rows[kind] = self.rows.get(kind, 0) + 1
        self.body_bytes += len(encoded)
        self._hash.update(encoded)

    @property
    def sha256(self) -> str:
        """In hex."""
        return self._hash.hexdigest()

    def is_that_of(self, manifest: Manifest) -> bool:
        """Whether these are the records that the manifest was written for."""
        return (self.rows, self.body_bytes, self.sha256) == (manifest.rows, manifest.body_bytes, manifest.sha256)


def write_records(stream: BinaryIO, records: Iterable[Record], digest: BodyDigest) -> None:
    """Appends records, and notes in `digest` what the manifest has to say of them."""
    for record in records:
        encoded = encode_record(record)
        digest.add(record.kind, encoded)
        stream.write(encoded)


def write_file(stream: BinaryIO, manifest: Manifest, key: Secret, body: BinaryIO) -> None:
    """Writes a whole backup; `body` is what `write_records` wrote."""
    lines = _first_line() + manifest.line()
    stream.write(lines + _signature(key, lines) + b"\n")
    body.seek(0)
    copy_bytes(body, stream.write)


class BackupFile:
    """A backup that is open for reading: its length and digest are right, its signature was not looked at yet."""

    def __init__(self, stream: BinaryIO, label: str) -> None:
        """`stream` can seek; it stays the caller's. Raises BackupError."""
        self.label = label
        self._stream = stream
        self._lines, self.manifest, self._signature = self._read_lines()
        self._body = stream.tell()
        for _ in self.records():
            pass

    @classmethod
    def open(cls, path: Path) -> Self:
        """The backup in a file, which stays open until `close`. Raises BackupError."""
        try:
            # Without O_NONBLOCK a pipe in its place would hold us up for ever.
            stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        except OSError as error:
            raise BackupError(f"backup {path} cannot be opened: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            stream.close()
            raise BackupError(f"backup {path} is not a regular file", hint="copy the backup to a file first")
        try:
            return cls(stream, str(path))
        except BaseException:
            stream.close()
            raise

    def close(self) -> None:
        """Closes the stream."""
        self._stream.close()

    def is_signed_with(self, key: Secret) -> bool:
        """Whether the manifest was signed with this key; constant-time."""
        return hmac.compare_digest(_signature(key, self._lines), self._signature)

    def records(self) -> Iterator[Record]:
        """Every record, in the file's order. Raises BackupError when they are not those of the manifest, which is
        known after the last."""
        self._seek()
        digest = BodyDigest()
        try:
            for encoded, record in read_records(self._stream):
                digest.add(record.kind, encoded)
                yield record
        except MalformedRecordError:
            raise self._damaged("a record in it cannot be read") from None
        except OSError as error:
            raise BackupError(f"backup {self.label} cannot be read: {error.strerror}") from None
        if not digest.is_that_of(self.manifest):
            raise self._damaged("its rows are not those that its manifest was written for")

    def _seek(self) -> None:
        self._stream.seek(self._body)

    def _read_lines(self) -> tuple[bytes, Manifest, bytes]:
        first = self._line()
        if not first.startswith(_MAGIC):
            raise BackupError(
                f"{self.label} is not a backup of a key store",
                hint="give a file that `ringfence keystore backup` wrote",
            )
        if first != _first_line():
            raise BackupError(
                f"backup {self.label} has another format than this release reads ({FORMAT})",
                hint="use the release that wrote it, or a newer one",
            )
        line, signature = self._line(), self._line()
        try:
            manifest = Manifest.model_validate(json.loads(line))
        except (ValueError, ValidationError, RecursionError):
            raise self._damaged("its manifest cannot be read") from None
        if manifest.line() != line:
            raise self._damaged("its manifest is not written as Ringfence writes it")
        return first + line, manifest, signature.removesuffix(b"\n")

    def _line(self) -> bytes:
        try:
            line = self._stream.readline(_MAX_LINE_BYTES)
        except OSError as error:
            raise BackupError(f"backup {self.label} cannot be read: {error.strerror}") from None
        if line and not line.endswith(b"\n"):
            raise self._damaged("it is cut off, or not a backup")
        return line

    def _damaged(self, what: str) -> BackupError:
        return BackupError(f"backup {self.label} is damaged: {what}", hint="take another backup of the same store")


def copy_bytes(source: BinaryIO, write: Callable[[bytes], object]) -> None:
    """All that is left of a stream, block by block."""
    while block := source.read(_BLOCK_BYTES):
        write(block)


def _first_line() -> bytes:
    return _MAGIC + str(FORMAT).encode() + b"\n"


def _signature(key: Secret, lines: bytes) -> bytes:
    return hmac.digest(key.reveal(), lines, "sha256").hex().encode()
