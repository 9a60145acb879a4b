"""The bytes of a delegation token, as Hadoop writes and reads them.

    token       vint length, identifier | vint length, password | text kind | text service, in URL-safe base64
    identifier  00 | text owner | text renewer | text real user | vlong issued | vlong max date | vint sequence
                | vint master key id
    text        vint length in bytes, UTF-8

Sources: `Token.encodeToUrlString`, `AbstractDelegationTokenIdentifier.write`, `WritableUtils.writeVLong`, `Text`. Times
are epoch milliseconds.

This module refuses what Hadoop's readers let pass: bytes after the end, lengths beyond it, text that is not UTF-8. It
knows nothing of secrets: whether a password is right is decided in `delegation_tokens`.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

from ringfence_zones.errors import InvalidTokenError

KIND = "kms-dt"
# The newer name of the same kind (HADOOP-14445), which some builds send.
_KINDS = (KIND, "KMS_DELEGATION_TOKEN")
_MAX_ENCODED_BYTES = 8192
_ENCODED = re.compile(rb"[A-Za-z0-9_-]+={0,2}")
_VERSION = b"\x00"


@dataclass(frozen=True, slots=True)
class TokenIdentifier:
    """Who a token is for and how long it may live. `real_user` is who acts for the owner, "" when nobody does."""

    owner: str
    renewer: str
    real_user: str
    issued_ms: int
    max_date_ms: int
    sequence: int
    master_key_id: int

    def encode(self) -> bytes:
        """The bytes that the password authenticates."""
        texts = b"".join(_text(text) for text in (self.owner, self.renewer, self.real_user))
        numbers = (self.issued_ms, self.max_date_ms, self.sequence, self.master_key_id)
        return _VERSION + texts + b"".join(map(encode_vlong, numbers))

    def __str__(self) -> str:
        """`AbstractDelegationTokenIdentifier.toString`, which Hadoop's messages quote."""
        return (
            f"{KIND} owner={self.owner}, renewer={self.renewer}, realUser={self.real_user},"
            f" issueDate={self.issued_ms}, maxDate={self.max_date_ms}, sequenceNumber={self.sequence},"
            f" masterKeyId={self.master_key_id}"
        )


@dataclass(frozen=True, slots=True)
class Token:
    """A token: whoever has it acts for its owner, so `repr` leaves its password out."""

    identifier: bytes
    password: bytes = field(repr=False)
    kind: str = KIND
    service: str = ""

    def encode_url(self) -> str:
        """The form in which clients carry it."""
        data = b"".join((_bytes(self.identifier), _bytes(self.password), _text(self.kind), _text(self.service)))
        return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def decode_url(url_string: bytes) -> tuple[Token, TokenIdentifier]:
    """A token and its identifier, both read to their last byte. Raises InvalidTokenError; never quotes the token."""
    if len(url_string) > _MAX_ENCODED_BYTES or not _ENCODED.fullmatch(url_string):
        raise InvalidTokenError("the token is not URL-safe base64, or too long")
    bare = url_string.rstrip(b"=")
    try:
        data = base64.urlsafe_b64decode(bare + b"=" * (-len(bare) % 4))
    except binascii.Error:
        raise InvalidTokenError("the token is not URL-safe base64, or too long") from None
    reader = _Reader(data)
    token = Token(reader.bytes(), reader.bytes(), reader.text(), reader.text())
    reader.finish()
    if token.kind not in _KINDS:
        raise InvalidTokenError("the token is of another kind")
    return token, _decode_identifier(token.identifier)


def _decode_identifier(data: bytes) -> TokenIdentifier:
    reader = _Reader(data)
    if reader.take(1) != _VERSION:
        raise InvalidTokenError("the token's identifier is of an unknown version")
    owner, renewer, real_user = reader.text(), reader.text(), reader.text()
    issued_ms, max_date_ms = reader.vlong(), reader.vlong()
    identifier = TokenIdentifier(owner, renewer, real_user, issued_ms, max_date_ms, reader.vint(), reader.vint())
    reader.finish()
    return identifier


def encode_vlong(value: int) -> bytes:
    """`WritableUtils.writeVLong`: one byte from -112 to 127, else a length byte and big-endian bytes."""
    if -112 <= value <= 127:
        return value.to_bytes(1, "big", signed=True)
    head, magnitude = (-112, value) if value >= 0 else (-120, ~value)
    body = magnitude.to_bytes((magnitude.bit_length() + 7) // 8 or 1, "big")
    return (head - len(body)).to_bytes(1, "big", signed=True) + body


def _text(text: str) -> bytes:
    return _bytes(text.encode("utf-8"))


def _bytes(data: bytes) -> bytes:
    return encode_vlong(len(data)) + data


class _Reader:
    """Reads forward, never past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, count: int) -> bytes:
        end = self._position + count
        if count < 0 or end > len(self._data):
            raise InvalidTokenError("the token ends too early")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def vlong(self) -> int:
        first = int.from_bytes(self.take(1), "big", signed=True)
        if first >= -112:
            return first
        negative = first < -120
        magnitude = int.from_bytes(self.take(-120 - first if negative else -112 - first), "big")
        if magnitude >= 1 << 63:
            raise InvalidTokenError("a number of the token does not fit")
        return ~magnitude if negative else magnitude

    def vint(self) -> int:
        value = self.vlong()
        if not -(1 << 31) <= value < 1 << 31:
            raise InvalidTokenError("a number of the token does not fit")
        return value

    def bytes(self) -> bytes:
        return self.take(self.vint())

    def text(self) -> str:
        try:
            return self.bytes().decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidTokenError("a name of the token is not UTF-8") from None

    def finish(self) -> None:
        if self._position != len(self._data):
            raise InvalidTokenError("the token goes on after its end")
