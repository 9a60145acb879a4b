"""What the double of AWS KMS knows and does: keys with their states, policies, grants, aliases, and the operations.

Source: the KMS API reference. Encryption is AES-256-GCM; the encryption context is authenticated, not stored.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aws_policy import Asked, Principal, is_allowed
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

REGION = "eu-west-1"
# KMS's own ciphertexts begin so.
_MAGIC = b"\x01\x02\x02\x00\x78"
_HANDLE_BYTES = 32
_NONCE_BYTES = 12
_DAY_S = 86_400


class AwsError(Exception):
    """An error answer: code and status as AWS gives them."""

    def __init__(self, code: str, message: str = "", status: int = 400) -> None:
        super().__init__(message or code)
        self.code = code
        self.status = status


@dataclass
class _Key:
    """One KMS key."""

    arn: str
    account: str
    policy: dict[str, Any]
    spec: str = "SYMMETRIC_DEFAULT"
    usage: str = "ENCRYPT_DECRYPT"
    origin: str = "AWS_KMS"
    manager: str = "CUSTOMER"
    state: str = "Enabled"
    deletion: float | None = None
    valid_to: float | None = None
    material: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    grants: list[dict[str, Any]] = field(default_factory=list)
    created: float = field(default_factory=time.time)

    @property
    def handle(self) -> bytes:
        return hashlib.sha256(self.arn.encode()).digest()

    def metadata(self) -> dict[str, Any]:
        found = {
            "AWSAccountId": self.account,
            "KeyId": self.arn.rpartition("/")[2],
            "Arn": self.arn,
            "CreationDate": self.created,
            "Enabled": self.state == "Enabled",
            "KeyUsage": self.usage,
            "KeyState": self.state,
            "Origin": self.origin,
            "KeyManager": self.manager,
            "CustomerMasterKeySpec": self.spec,
            "KeySpec": self.spec,
            "MultiRegion": False,
        }
        dates = {"DeletionDate": self.deletion, "ValidTo": self.valid_to}
        return found | {name: value for name, value in dates.items() if value is not None}


class World:
    """All that the double knows. `lock` is held for a whole operation, but not while a fault waits."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.keys: dict[str, _Key] = {}
        self.aliases: dict[str, str] = {}
        self.principals: dict[str, Principal] = {}
        self.faults: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.arrivals = 0

    def find_key(self, name: str, account: str) -> _Key:
        if not name.startswith("arn:"):
            kind = name if name.startswith("alias/") else f"key/{name}"
            name = f"arn:aws:kms:{REGION}:{account}:{kind}"
        if f":{REGION}:" not in name:
            raise AwsError("NotFoundException", f"Invalid arn {name}")
        arn = self.aliases.get(name, name)
        if arn not in self.keys:
            raise AwsError("NotFoundException", f"Key '{arn}' does not exist")
        return self.keys[arn]

    def take_fault(self, operation: str) -> dict[str, Any] | None:
        with self.lock:
            for fault in self.faults:
                if fault["operation"] in (operation, "*") and fault["times"] > 0:
                    fault["times"] -= 1
                    return fault
        return None


class Operations:
    """The KMS operations, each a method with the name it has in the protocol."""

    def __init__(self, world: World, principal: Principal) -> None:
        self._world = world
        self._principal = principal

    def CreateKey(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802 - the protocol's name
        account = self._principal.account
        arn = f"arn:aws:kms:{REGION}:{account}:key/{uuid.uuid4()}"
        everybody_of_the_account = {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
            "Action": "kms:*",
            "Resource": "*",
        }
        policy = json.loads(ask["Policy"]) if "Policy" in ask else {"Statement": [everybody_of_the_account]}
        key = _Key(
            arn, account, policy, ask.get("KeySpec", "SYMMETRIC_DEFAULT"), ask.get("KeyUsage", "ENCRYPT_DECRYPT")
        )
        if ask.get("Origin") == "EXTERNAL":
            key.origin, key.state = "EXTERNAL", "PendingImport"
        self._world.keys[arn] = key
        return {"KeyMetadata": key.metadata()}

    def DescribeKey(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"KeyMetadata": self._key(ask["KeyId"], "DescribeKey").metadata()}

    def CreateAlias(self, ask: Mapping[str, Any]) -> None:  # noqa: N802
        key = self._key(ask["TargetKeyId"], "CreateAlias")
        self._world.aliases[f"arn:aws:kms:{REGION}:{key.account}:{ask['AliasName']}"] = key.arn

    UpdateAlias = CreateAlias

    def EnableKey(self, ask: Mapping[str, Any]) -> None:  # noqa: N802
        key = self._key(ask["KeyId"], "EnableKey")
        _require_state(key, "Enabled", "Disabled")
        key.state = "Enabled"

    def DisableKey(self, ask: Mapping[str, Any]) -> None:  # noqa: N802
        key = self._key(ask["KeyId"], "DisableKey")
        _require_state(key, "Enabled", "Disabled")
        key.state = "Disabled"

    def ScheduleKeyDeletion(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        key = self._key(ask["KeyId"], "ScheduleKeyDeletion")
        days = ask.get("PendingWindowInDays", 30)
        if not 7 <= days <= 30:
            raise AwsError("ValidationException")
        key.state, key.deletion = "PendingDeletion", time.time() + days * _DAY_S
        return {"KeyId": key.arn, "KeyState": key.state, "DeletionDate": key.deletion, "PendingWindowInDays": days}

    def CancelKeyDeletion(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        key = self._key(ask["KeyId"], "CancelKeyDeletion")
        _require_state(key, "PendingDeletion")
        key.state, key.deletion = "Disabled", None
        return {"KeyId": key.arn}

    def GetKeyPolicy(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        key = self._key(ask["KeyId"], "GetKeyPolicy")
        return {"Policy": json.dumps(key.policy), "PolicyName": "default"}

    def PutKeyPolicy(self, ask: Mapping[str, Any]) -> None:  # noqa: N802
        self._key(ask["KeyId"], "PutKeyPolicy").policy = json.loads(ask["Policy"])

    def CreateGrant(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        key = self._key(ask["KeyId"], "CreateGrant")
        grant = {name: ask[name] for name in ("GranteePrincipal", "Operations", "Constraints") if name in ask}
        key.grants.append(grant | {"KeyId": key.arn, "GrantId": secrets.token_hex(32)})
        return {"GrantId": key.grants[-1]["GrantId"], "GrantToken": "unused"}

    def ListGrants(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        grants = self._key(ask["KeyId"], "ListGrants").grants
        begin, limit = int(ask.get("Marker", 0)), ask.get("Limit", 50)
        more = len(grants) > begin + limit
        page: dict[str, Any] = {"Grants": grants[begin : begin + limit], "Truncated": more}
        return page | ({"NextMarker": str(begin + limit)} if more else {})

    def Encrypt(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        context = ask.get("EncryptionContext", {})
        plain = base64.b64decode(ask["Plaintext"])
        if not 1 <= len(plain) <= 4096:
            raise AwsError("ValidationException", "Value at 'plaintext' failed to satisfy constraint")
        key = self._usable(ask["KeyId"], "Encrypt", context)
        return {"CiphertextBlob": _text(_seal(key, plain, context)), "KeyId": key.arn}

    def Decrypt(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        context = ask.get("EncryptionContext", {})
        blob = base64.b64decode(ask["CiphertextBlob"])
        key = self._sealing_key(blob, ask.get("KeyId"), "Decrypt", context)
        return {"Plaintext": _text(_unseal(key, blob, context)), "KeyId": key.arn}

    def ReEncrypt(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        blob = base64.b64decode(ask["CiphertextBlob"])
        before, after = ask.get("SourceEncryptionContext", {}), ask.get("DestinationEncryptionContext", {})
        source = self._sealing_key(blob, ask.get("SourceKeyId"), "ReEncryptFrom", before)
        target = self._usable(ask["DestinationKeyId"], "ReEncryptTo", after)
        sealed = _seal(target, _unseal(source, blob, before), after)
        return {"CiphertextBlob": _text(sealed), "SourceKeyId": source.arn, "KeyId": target.arn}

    def _sealing_key(self, blob: bytes, named: str | None, action: str, context: Mapping[str, str]) -> _Key:
        """The key of a ciphertext. KMS looks at the key that was named first, then whether it is the right one."""
        named_key = self._usable(named, action, context) if named else None
        handle = blob[len(_MAGIC) : len(_MAGIC) + _HANDLE_BYTES]
        key = next((each for each in self._world.keys.values() if each.handle == handle), None)
        if key is None or not blob.startswith(_MAGIC):
            raise AwsError("InvalidCiphertextException")
        if named_key is not None and key is not named_key:
            raise AwsError("IncorrectKeyException", "The key ID in the request does not identify a CMK of this")
        return named_key or self._usable(key.arn, action, context)

    def _key(self, name: str, action: str, context: Mapping[str, str] | None = None) -> _Key:
        key = self._world.find_key(name, self._principal.account)
        asked = Asked(f"kms:{action}", key.arn, key.account, context or {})
        if not is_allowed(self._principal, asked, key.policy, key.grants):
            raise AwsError(
                "AccessDeniedException",
                f"User: {self._principal.arn} is not authorized to perform: kms:{action} on resource: {key.arn}",
            )
        return key

    def _usable(self, name: str, action: str, context: Mapping[str, str]) -> _Key:
        key = self._key(name, action, context)
        _require_state(key, "Enabled")
        if (key.spec, key.usage) != ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"):
            raise AwsError("InvalidKeyUsageException", f"{key.arn} key usage is {key.usage}")
        return key


def _require_state(key: _Key, *states: str) -> None:
    if key.state in states:
        return
    if key.state == "Disabled":
        raise AwsError("DisabledException", f"{key.arn} is disabled.")
    raise AwsError("KMSInvalidStateException", f"{key.arn} is {key.state}.")


def _context_bytes(context: Mapping[str, str]) -> bytes:
    """Sorted, each length before its string, so that no two contexts give the same bytes."""
    parts = [text.encode() for pair in sorted(context.items()) for text in pair]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _seal(key: _Key, plain: bytes, context: Mapping[str, str]) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _MAGIC + key.handle + nonce + AESGCM(key.material).encrypt(nonce, plain, _context_bytes(context))


def _unseal(key: _Key, blob: bytes, context: Mapping[str, str]) -> bytes:
    body = blob[len(_MAGIC) + _HANDLE_BYTES :]
    try:
        return AESGCM(key.material).decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], _context_bytes(context))
    except (InvalidTag, ValueError):
        raise AwsError("InvalidCiphertextException") from None


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
