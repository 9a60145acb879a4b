"""Vault Transit on the wire: its ciphertexts, its batches, what its answers mean, and how they rest in an EDEK. No I/O.

Sources: OpenBao 2.6 `builtin/logical/transit` (`path_encrypt`, `path_decrypt`, `path_rewrap`) and
`sdk/helper/keysutil`; what is said here of answers was seen on a running server.

Rules:

1. A ciphertext is taken apart and built again from its version and its bytes, never handed on as it came: Vault takes
   `v0`, `v01` and `v+1` for version 1, and line breaks inside base64.
2. Every item has a context. It counts only for a derived key; that the key is one is checked where keys are made.
3. A batch's status says little. Encrypt and decrypt answer 400 with results when an item was bad, 207 where it is
   asked for and any was good, 500 with results when an item failed inside; rewrap answers 200. Results count wherever
   they are, but only when there is one for each item and each is what was asked for.
4. A body is secret whatever the status: a 500 can hold plaintexts. Nothing of it is quoted. Vault's sentences are
   compared with the ones known here, and only our own words go on.

It refuses single calls (a batch of one is the same) and associated data, which rewrap does not know.
"""

from __future__ import annotations

import binascii
import enum
import functools
import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from ringfence_agent.vault.connection import Answer, NoAnswerError
from ringfence_zones.errors import InputError, ProtectorRefusedError, ProtectorUnavailableError
from ringfence_zones.keys import IV_BYTES
from ringfence_zones.secret import Secret

# AES-256-GCM as Transit lays it out: a nonce of 12 bytes, the text, a tag of 16.
_OVERHEAD_BYTES = 28
_MAX_VERSION = 2**32 - 1
_CIPHERTEXT = re.compile(r"vault:v([1-9][0-9]{0,9}):([A-Za-z0-9+/]+={0,2})", re.ASCII)
# EE marks an EDEK that is no bare AES-CTR; 01 is the form with a Transit ciphertext.
_EDEK_FORM = b"\xee\x01"
_EDEK_HEAD = struct.Struct(">2sI")
_EDEK_BYTES = frozenset(_EDEK_HEAD.size + _OVERHEAD_BYTES + dek_bytes for dek_bytes in (16, 24, 32))
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class TransitCiphertext:
    """What Transit makes of a plaintext: the key's version (from 1), and nonce, text and tag."""

    version: int
    raw: bytes

    def __post_init__(self) -> None:
        if not (1 <= self.version <= _MAX_VERSION and len(self.raw) >= _OVERHEAD_BYTES):
            raise ValueError("this is not a ciphertext of Vault Transit")

    def __repr__(self) -> str:
        return f"<TransitCiphertext v{self.version}, {len(self.raw)} bytes>"

    @classmethod
    def parse(cls, text: str) -> TransitCiphertext:
        """Of `vault:vN:BASE64`, exactly as Transit writes it. Raises ValueError, which does not quote it."""
        match = _CIPHERTEXT.fullmatch(text)
        if match is not None:
            try:
                raw = binascii.a2b_base64(match[2])
            except binascii.Error:
                raw = b""
            # The one spelling of these bytes: padding and the last character's spare bits included.
            if binascii.b2a_base64(raw, newline=False) == match[2].encode():
                return cls(int(match[1]), raw)
        raise ValueError("this is not a ciphertext of Vault Transit")

    @property
    def text(self) -> bytes:
        """As Transit takes it, ASCII."""
        return b"vault:v%d:%b" % (self.version, binascii.b2a_base64(self.raw, newline=False))


# -- EDEKs


def edek_from(ciphertext: TransitCiphertext) -> bytes:
    """The EDEK as HDFS keeps it (form T1): EE 01, the version (4 bytes, big-endian), nonce, text and tag; 50 bytes for
    a DEK of 128 bits, 66 for one of 256.
    """
    return _EDEK_HEAD.pack(_EDEK_FORM, ciphertext.version) + ciphertext.raw


def ciphertext_in(edek: bytes, version_name: str, version: int) -> TransitCiphertext:
    """The ciphertext in an EDEK that was given with `version_name`, Hadoop's `name@N`, which Transit has as `version`.

    Raises InputError for any other form of EDEK, and for one that was made with another version than that.
    """
    form, made_with = _EDEK_HEAD.unpack_from(edek) if len(edek) in _EDEK_BYTES else (b"", 0)
    if form != _EDEK_FORM:
        raise InputError(f"the EDEK given for {version_name} was not made by Vault Transit, which keeps this key")
    if made_with != version or made_with < 1:  # Transit counts from 1
        raise InputError(f"the EDEK given for {version_name} was made with another version of the key")
    return TransitCiphertext(version, edek[_EDEK_HEAD.size :])


def bound_context(*fields: bytes) -> bytes:
    """SHA-256 over the fields, each behind its length (4 bytes, big-endian): no two lists of fields give the same."""
    return hashlib.sha256(_fields(*fields)).digest()


def _fields(*fields: bytes) -> bytes:
    return b"".join([_LENGTH.pack(len(field)) + field for field in fields])


def edek_context(key_id: str, key_name: str, iv: bytes) -> bytes:
    """What binds an EDEK: the Transit key's id, which is never used again, the name Hadoop knows, and the file's IV.

    Not the file's path: files are renamed within a zone, and Hadoop keeps the IV when it re-encrypts.
    """
    if len(iv) != IV_BYTES:
        raise InputError(f"the IV has {len(iv)} bytes instead of {IV_BYTES}")
    return hashlib.sha256(_edek_fields(key_id, key_name) + iv).digest()


@functools.lru_cache(maxsize=1024)
def _edek_fields(key_id: str, key_name: str) -> bytes:
    """What of a context all EDEKs of a key have, up to the IV's length."""
    return _fields(b"ringfence-edek-1", key_id.encode(), key_name.encode()) + _LENGTH.pack(IV_BYTES)


# -- requests


class Operation(enum.Enum):
    """An endpoint of Transit; none of them changes anything in Vault."""

    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
    REWRAP = "rewrap"


class EncryptItem(NamedTuple):
    """`key_version` (from 1) is said, because a standby goes on with the old one for a moment after a rotation."""

    plaintext: Secret
    context: bytes
    key_version: int


class OpenItem(NamedTuple):
    """A ciphertext to decrypt."""

    ciphertext: TransitCiphertext
    context: bytes


class RewrapItem(NamedTuple):
    """A ciphertext to bring to `key_version` (from 1), under the same context."""

    ciphertext: TransitCiphertext
    context: bytes
    key_version: int


def encrypt_row(item: EncryptItem) -> bytes:
    """The item as JSON. It holds the plaintext."""
    return b'{"plaintext":"%b","context":"%b","key_version":%d}' % (
        binascii.b2a_base64(item.plaintext.reveal(), newline=False),
        binascii.b2a_base64(item.context, newline=False),
        item.key_version,
    )


def open_row(item: OpenItem) -> bytes:
    """The item as JSON."""
    ciphertext = item.ciphertext
    return b'{"ciphertext":"vault:v%d:%b","context":"%b"}' % (
        ciphertext.version,
        binascii.b2a_base64(ciphertext.raw, newline=False),
        binascii.b2a_base64(item.context, newline=False),
    )


def rewrap_row(item: RewrapItem) -> bytes:
    """The item as JSON."""
    return b'{"ciphertext":"%b","context":"%b","key_version":%d}' % (
        item.ciphertext.text,
        binascii.b2a_base64(item.context, newline=False),
        item.key_version,
    )


def batch_body(operation: Operation, rows: Sequence[bytes]) -> bytes:
    """A request's body. 207 is asked for where it can be had, so that a batch with a bad item does not look refused."""
    asked = b"" if operation is Operation.REWRAP else b',"partial_failure_response_code":207'
    return b'{"batch_input":[%b]%b}' % (b",".join(rows), asked)


# -- answers


class ItemFault(enum.Enum):
    """Why one item has no result."""

    CORRUPT = "is corrupt, or was made for another file or key"
    VERSION_RETIRED = "was made with a version that may not be used any more"
    VERSION_AHEAD = "was made with a version that this server does not know, or not yet"
    KEY_DISABLED = "belongs to a key that is disabled"
    NO_SUCH_KEY = "belongs to a key that is not there"
    SERVER_FAILED = "could not be worked on, for the server failed"
    OUR_BUG = "was sent in a way that the server does not understand"

    def error(self, what: str, look_at: str) -> ProtectorUnavailableError | ProtectorRefusedError:
        """What this means for the item `what`; `look_at` is what may be at fault in Vault when it does not pass."""
        message = f"{what} {self.value}"
        if self in _PASSING:
            return ProtectorUnavailableError(message, hint="it is tried again with the next request")
        return ProtectorRefusedError(
            message,
            hint=f"look at the key in Vault: {look_at}, and whether it was deleted or disabled",
            reason=self.name.lower(),
        )


# Faults that the same call may not meet later, or on another node.
_PASSING = frozenset({ItemFault.VERSION_AHEAD, ItemFault.SERVER_FAILED})


class Refusal(enum.Enum):
    """Why a batch as a whole has no results."""

    FORBIDDEN = "the token may not do this, or is no longer good"
    TOO_LARGE = "the batch is too large or too complex"
    NOT_UNDERSTOOD = "the request is not understood"
    NO_SUCH_PATH = "nothing is mounted there"


Result = Secret | TransitCiphertext | ItemFault
"""Of one item: the plaintext of a decrypt, the ciphertext of an encrypt or rewrap, or why there is neither."""

# How Vault's sentences about an item begin. What is not known counts as corrupt where something was given to open.
_ITEM_FAULTS = (
    ("ciphertext or signature version is disallowed by policy", ItemFault.VERSION_RETIRED),
    ("requested version for encryption is less than", ItemFault.VERSION_RETIRED),
    ("no such key version", ItemFault.VERSION_RETIRED),
    ("invalid ciphertext: version is too new", ItemFault.VERSION_AHEAD),
    ("requested version for encryption is higher than", ItemFault.VERSION_AHEAD),
    ("refusing to use soft-deleted key", ItemFault.KEY_DISABLED),
    ("encryption key not found", ItemFault.NO_SUCH_KEY),
    ("missing ", ItemFault.OUR_BUG),
    ("illegal base64", ItemFault.OUR_BUG),
    ("internal error", ItemFault.SERVER_FAILED),
)
# What Vault says about a batch as a whole.
_NO_KEY = "key not found"
_DISABLED = "refusing to use soft-deleted key"
_TOO_COMPLEX = ("high complexity", "exceeded maximum", "exceeds allowed", "request body too large")
_NOT_PARSED = ("failed to parse", "failed to decode")


class _Unprinted(msgspec.Struct, gc=False):
    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class _Item(_Unprinted, gc=False):
    plaintext: bytes | None = None  # msgspec undoes the base64
    ciphertext: str | None = None
    error: str | None = None


class _Data(_Unprinted, gc=False):
    batch_results: list[_Item] | None = None


class _Body(_Unprinted, gc=False):
    data: _Data | None = None
    errors: list[str] | None = None


_BODY = msgspec.json.Decoder(_Body)


def read_answer(operation: Operation, count: int, answer: Answer) -> list[Result] | Refusal:
    """One result for each of `count` items in their order, or why there are none.

    Raises NoAnswerError for what another node may answer better.
    """
    status = answer.status
    body = _decoded(answer)
    items = body.data.batch_results if body.data is not None else None
    if items is not None:
        if len(items) != count:
            raise NoAnswerError("answers with results of another number than was asked for")
        return [_result(operation, item, status) for item in items]
    told = " ".join(body.errors or ())
    if status in (400, 500) and _DISABLED in told:
        return [ItemFault.KEY_DISABLED] * count
    if status == 400 and _NO_KEY in told:
        return [ItemFault.NO_SUCH_KEY] * count
    if status == 413 or (status == 400 and any(sentence in told for sentence in _TOO_COMPLEX)):
        return Refusal.TOO_LARGE
    if status == 403:
        return Refusal.FORBIDDEN
    if status == 404:
        return Refusal.NO_SUCH_PATH
    if status == 500 and any(sentence in told for sentence in _NOT_PARSED):
        return Refusal.NOT_UNDERSTOOD
    if status == 500 and body.errors == ["internal error"]:
        raise NoAnswerError("answers 500 internal error, as it does to every call when it cannot write its audit log")
    if 400 <= status < 500:
        return Refusal.NOT_UNDERSTOOD
    raise NoAnswerError(f"answers {status} without results")


def _decoded(answer: Answer) -> _Body:
    try:
        return _BODY.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if 400 <= answer.status < 500:
            return _Body()  # of a gateway: the status says enough
        raise NoAnswerError(f"answers {answer.status} with what is not an answer of Transit") from None


def _result(operation: Operation, item: _Item, status: int) -> Result:
    if item.error:
        return _fault(operation, item.error, status)
    if operation is Operation.DECRYPT:
        if item.plaintext is not None:
            return Secret(item.plaintext)
    elif item.ciphertext is not None:
        try:
            return TransitCiphertext.parse(item.ciphertext)
        except ValueError:
            pass
    raise NoAnswerError("answers with results that are not what was asked for")


def _fault(operation: Operation, sentence: str, status: int) -> ItemFault:
    for beginning, fault in _ITEM_FAULTS:
        if sentence.startswith(beginning):
            return fault
    if status >= 500:
        return ItemFault.SERVER_FAILED
    return ItemFault.OUR_BUG if operation is Operation.ENCRYPT else ItemFault.CORRUPT
