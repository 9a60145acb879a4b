"""The receipt of a transfer: what was copied where, by whom and under which policy, signed by the agent that saw it.

`ringfence receipt verify` needs this module, a receipt and the agent's public key: no configuration, no network, no
Hadoop. The format (`ringfence-receipt/1`):

1. A receipt is one JSON object, `{"receipt": BODY, "signature": HEX}`, and a line end.
2. Canonical JSON: names sorted, no blanks, ASCII (everything else as `\\uXXXX`), integers only, no name twice. There is
   exactly one way to write a receipt, and a file that is not written so is none. Hence one flipped byte anywhere fails.
3. The signature is Ed25519 (RFC 8032) over the bytes `ringfence-receipt/1`, a zero byte, and BODY's canonical JSON.
   BODY names its signer: SHA-256 (hex) of the 32 bytes of the public key.
4. Digests are SHA-256 of plain text. `files` lists every file by its path below `source.path` (empty when that is a
   file itself), in order, so that one file can be checked with `sha256sum` alone; `files_sha256` is the digest of that
   list's canonical JSON, a short name for the whole.

A receipt proves what the agent's key signed. That the key is the agent's is for whoever keeps the public key to know.
It refuses receipts of more than 64 MiB, and parses nothing larger than 64 KiB that the key did not sign.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ringfence_zones.errors import InputError, ReceiptError

MAX_RECEIPT_BYTES = 64 * 1024 * 1024
_MAX_KEY_BYTES = 16 * 1024
_FORMAT = "ringfence-receipt/1"
_CONTEXT = _FORMAT.encode() + b"\0"
# Around the body, in canonical JSON.
_HEAD = b'{"receipt":'
_TAIL = re.compile(rb',"signature":"([0-9a-f]{128})"\}\n')
_TAIL_BYTES = len(b',"signature":""}\n') + 128
_EXPLAINED_BYTES = 64 * 1024
_ALTERED = "the signature does not fit the receipt: one of the two was altered"

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
_Count = Annotated[int, Field(ge=0, le=2**63 - 1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ReceiptZone(_Part):
    """An encryption zone: its root and the name of its key."""

    path: str
    key: str


class ReceiptEnd(_Part):
    """One end of the transfer. `zones` is empty in clear text; `key_versions` are those of the files."""

    path: str
    zones: list[ReceiptZone]
    key_versions: list[str]


class ReceiptPolicy(_Part):
    """The policy that allowed it: the KMS's revision (null when it was not the published one) and its digest."""

    revision: _Count | None
    sha256: Sha256 | None


class ReceiptGrant(_Part):
    """The approval that allowed what the policy alone did not."""

    id: str
    approver: str
    purpose: str


class ReceiptFile(_Part):
    """One file: its path below the source, its length in bytes and the digest of its plain text."""

    path: str
    bytes: _Count
    sha256: Sha256


class Receipt(_Part):
    """The body. Times are epoch milliseconds of the agent's clock.

    `copied_as` is the HDFS user who read and wrote; `kept` and `not_kept` say which attributes of files came along.
    `source_removed` is true when the source was removed after everything was verified.
    """

    format: Literal["ringfence-receipt/1"] = "ringfence-receipt/1"
    transfer: str
    cluster: str
    source: ReceiptEnd
    target: ReceiptEnd
    requested_by: str
    copied_as: str
    purpose: str | None
    policy: ReceiptPolicy
    grant: ReceiptGrant | None
    submitted_ms: _Count
    finished_ms: _Count
    kept: list[str]
    not_kept: list[str]
    source_removed: bool
    file_count: _Count
    bytes: _Count
    files: list[ReceiptFile]
    files_sha256: Sha256
    signer: Sha256


class _Document(_Part):
    receipt: Receipt
    signature: _Signature


def canonical_bytes(value: Any) -> bytes:
    """The one way to write a JSON value of a receipt."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def files_digest(files: Sequence[ReceiptFile]) -> str:
    """SHA-256 (hex) of the canonical list of files."""
    return hashlib.sha256(canonical_bytes([file.model_dump() for file in files])).hexdigest()


def signer_of(public_key: bytes) -> str:
    """How receipts name a public key, given as its 32 raw bytes."""
    return hashlib.sha256(public_key).hexdigest()


def signed_message(receipt: Receipt) -> bytes:
    """The bytes that are signed."""
    return _CONTEXT + canonical_bytes(receipt.model_dump())


def encode_receipt(receipt: Receipt, signature: bytes) -> bytes:
    """The file."""
    return canonical_bytes({"receipt": receipt.model_dump(), "signature": signature.hex()}) + b"\n"


def read_public_key(content: bytes, name: str) -> bytes:
    """The 32 raw bytes of an Ed25519 public key in PEM; `name` is how messages call the file. Raises InputError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - 30 ms, needed here
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    if b"PRIVATE KEY" in content:
        raise InputError(f"{name} is a private key", hint="give the public one; the private key never leaves its agent")
    try:
        key = load_pem_public_key(content) if len(content) <= _MAX_KEY_BYTES else None
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(
            f"{name} is no Ed25519 public key in PEM", hint="the agent writes its own beside its state: receipt-key.pub"
        )
    return key.public_bytes_raw()


def verify_receipt(content: bytes, public_key: bytes) -> Receipt:
    """The receipt, when the holder of `public_key` (32 raw bytes) signed exactly these bytes.

    Raises ReceiptError with the first reason not to believe it.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    if len(content) > MAX_RECEIPT_BYTES:
        raise ReceiptError(f"the file is larger than a receipt can be ({MAX_RECEIPT_BYTES} bytes)")
    # There is one way to write a receipt, so the signed bytes are known before a single one is read: what nobody
    # signed is not parsed, however large it is.
    body, signature = content[len(_HEAD) : -_TAIL_BYTES], _TAIL.fullmatch(content[-_TAIL_BYTES:])
    if signature is None or not content.startswith(_HEAD):
        raise _explain(content) or ReceiptError("the file is not a receipt, or was altered")
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(bytes.fromhex(signature[1].decode("ascii")), _CONTEXT + body)
    except InvalidSignature:
        raise _explain(content) or _find_other_signer(body, public_key) or ReceiptError(_ALTERED) from None
    receipt = _parse(content).receipt
    if not hmac.compare_digest(receipt.signer, signer_of(public_key)):
        raise _other_signer(receipt.signer, public_key)
    _check_sums(receipt)
    return receipt


def _explain(content: bytes) -> ReceiptError | None:
    """What is wrong with a file that nobody signed, when it is small enough to be looked at."""
    if len(content) > _EXPLAINED_BYTES:
        return None
    try:
        _parse(content)
    except ReceiptError as error:
        return error
    return None


def _find_other_signer(body: bytes, public_key: bytes) -> ReceiptError | None:
    # A quotation mark within a text is escaped, so this is the field.
    named = body.rpartition(b'"signer":"')[2][:64].decode("ascii", "replace")
    is_other = re.fullmatch("[0-9a-f]{64}", named) is not None and named != signer_of(public_key)
    return _other_signer(named, public_key) if is_other else None


def _other_signer(signer: str, public_key: bytes) -> ReceiptError:
    return ReceiptError(
        f"the receipt was signed with another key ({signer[:16]}...), not {signer_of(public_key)[:16]}...",
        hint="give the public key of the agent that made the transfer",
    )


def _parse(content: bytes) -> _Document:
    try:
        document = _Document.model_validate_json(content)
    except ValidationError:
        raise ReceiptError("the file is not a receipt, or was altered") from None
    if canonical_bytes(document.model_dump()) + b"\n" != content:
        raise ReceiptError("the file is not written as the agent writes receipts: it was altered")
    return document


def _check_sums(receipt: Receipt) -> None:
    """What the body says of itself. A signed receipt that contradicts itself was made by a faulty agent."""
    paths = [file.path for file in receipt.files]
    if (
        receipt.file_count != len(receipt.files)
        or receipt.bytes != sum(file.bytes for file in receipt.files)
        or not hmac.compare_digest(receipt.files_sha256, files_digest(receipt.files))
        or paths != sorted(set(paths))
    ):
        raise ReceiptError("the receipt contradicts itself: its sums are not those of its files")
