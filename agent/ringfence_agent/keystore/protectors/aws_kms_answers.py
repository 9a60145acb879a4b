"""What of AWS KMS's answers is believed: fields of the right type and size, about the key that was asked. Pure.

Source of the limits: the KMS API reference (Encrypt, Decrypt).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ringfence_agent.keystore.protectors.aws_kms_errors import Call, bad_answer, wrong_key
from ringfence_zones.errors import RingfenceError

MAX_PLAIN_BYTES = 4096
MAX_CIPHERTEXT_BYTES = 6144


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """What DescribeKey says of a key, in AWS's words. `arn` is the key's, also when it was asked for by an alias."""

    arn: str
    account: str
    state: str
    spec: str
    usage: str
    manager: str
    deletion: datetime.datetime | None
    material_expires: datetime.datetime | None


@dataclass(frozen=True, slots=True)
class Grant:
    """One grant on a key: who may do what by it."""

    grantee: str
    operations: tuple[str, ...]


def foreign_key(answer: Mapping[str, Any], request: Mapping[str, Any], call: Call) -> RingfenceError | None:
    """The error for an answer of a cryptographic operation that does not speak of the very key that was asked."""
    if call.operation not in ("Encrypt", "Decrypt", "ReEncrypt"):
        return None
    if not isinstance(answer.get("KeyId"), str):
        return bad_answer(call)
    asked = (request.get("DestinationKeyId", request.get("KeyId")), request.get("SourceKeyId"))
    if (answer["KeyId"], answer.get("SourceKeyId")) != asked:
        return wrong_key(call, "the answer is for")
    return None


def blob(answer: Mapping[str, Any], field: str, limit: int, call: Call) -> bytes:
    """A field of 1 to `limit` bytes. Raises ProtectorUnavailableError."""
    value = answer.get(field)
    if not isinstance(value, bytes) or not 0 < len(value) <= limit:
        raise bad_answer(call)
    return value


def text(value: object, call: Call) -> str:
    """A string. Raises ProtectorUnavailableError."""
    if not isinstance(value, str):
        raise bad_answer(call)
    return value


def find_time(value: object) -> datetime.datetime | None:
    """A time, None for what is none."""
    return value if isinstance(value, datetime.datetime) else None


def key_description(answer: Mapping[str, Any], call: Call) -> KeyDescription:
    """DescribeKey's answer. Raises ProtectorUnavailableError."""
    metadata = answer.get("KeyMetadata")
    if not isinstance(metadata, dict):
        raise bad_answer(call)
    return KeyDescription(
        arn=text(metadata.get("Arn"), call),
        account=str(metadata.get("AWSAccountId", "")),
        state=str(metadata.get("KeyState", "")),
        spec=str(metadata.get("KeySpec", metadata.get("CustomerMasterKeySpec", ""))),
        usage=str(metadata.get("KeyUsage", "")),
        manager=str(metadata.get("KeyManager", "")),
        deletion=find_time(metadata.get("DeletionDate")),
        material_expires=find_time(metadata.get("ValidTo")),
    )


def grant_of(entry: Mapping[str, Any]) -> Grant:
    """One entry of ListGrants' answer."""
    return Grant(
        str(entry.get("GranteePrincipal", entry.get("GranteeServicePrincipal", "?"))),
        tuple(str(operation) for operation in entry.get("Operations", ())),
    )
