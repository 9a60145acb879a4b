"""Backups of a stock KMS's key store: one file each, for a public key, so that where they lie shows nothing.

    RINGFENCE-STOCK-KMS-BACKUP 1\\n
    length of the header (u4, big-endian), header (JSON), AES-256-GCM of the content with the header as associated data

The header names the public key (`recipient`, SHA-256 of its SubjectPublicKeyInfo), the wrapped content key (RSA-OAEP
with SHA-256), the nonce, when it was made, and the SHA-256 of the key store, which is sealed itself: by that a backup
is known to be of the key store as it is now. The content is JSON: the key store and its password.

Rules: a key store that its own password does not open is not backed up, for it is broken or half; a backup that cannot
be opened, or holds such a key store, is never restored. Whoever has the private key has every key: it stays off the
node. A backup is not signed: whoever has the public key and may write where backups lie can put one there that opens,
with keys of their own choice.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ringfence_bootstrap.stock_kms.key_store import MAX_FILE_BYTES, opens
from ringfence_bootstrap.stock_kms.stores import read_pem
from ringfence_zones.errors import BackupError, ConfigError
from ringfence_zones.secret import Secret

SUFFIX = ".rfstock"
MAX_BACKUP_BYTES = 2 * MAX_FILE_BYTES

_MAGIC = b"RINGFENCE-STOCK-KMS-BACKUP 1\n"
_MAX_HEADER_BYTES = 16 * 1024
_KEY_BYTES, _NONCE_BYTES = 32, 12
_LEAST_BITS = 2048
_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


@dataclass(frozen=True, slots=True)
class Content:
    """What a backup is of."""

    key_store: Secret
    password: Secret


def read_public_key(path: Path) -> rsa.RSAPublicKey:
    """The key that backups are for. Raises ConfigError."""
    try:
        key = serialization.load_pem_public_key(read_pem(path))
    except ValueError as error:
        raise ConfigError(
            f"{path} holds no PEM public key",
            hint="make a pair away from the node, and bring the public half here",
            command="openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out backup.pem &&"
            " openssl pkey -in backup.pem -pubout -out backup.pub.pem",
        ) from error
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < _LEAST_BITS:
        raise ConfigError(f"the public key in {path} is not RSA with {_LEAST_BITS} bits or more")
    return key


def read_private_key(path: Path) -> rsa.RSAPrivateKey:
    """The key that opens backups. Raises ConfigError."""
    try:
        key = serialization.load_pem_private_key(read_pem(path), None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} holds no unencrypted PEM private key") from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ConfigError(f"the private key in {path} is not RSA")
    return key


def backup_name(key_store: bytes, now: datetime.datetime) -> str:
    """A name that sorts by time and says which key store it is of."""
    return f"kms-{now:%Y%m%dT%H%M%SZ}-{digest_of(key_store)[:16]}{SUFFIX}"


def is_backup_of(name: str, key_store: bytes) -> bool:
    """Whether a backup of that name is of this very key store."""
    return name.endswith(f"-{digest_of(key_store)[:16]}{SUFFIX}")


def digest_of(key_store: bytes) -> str:
    """Of the sealed file: it tells nothing of its keys."""
    return hashlib.sha256(key_store).hexdigest()


def seal(content: Content, recipient: rsa.RSAPublicKey, now: datetime.datetime) -> bytes:
    """A backup. Raises BackupError for a key store that its password does not open."""
    key_store = content.key_store.reveal()
    if not opens(key_store, content.password):
        raise BackupError(
            "the key store is not one that its password opens, so it is not backed up",
            hint="see what the KMS's log says of it; the backups that are there stay as they are",
        )
    key, nonce = AESGCM.generate_key(_KEY_BYTES * 8), os.urandom(_NONCE_BYTES)
    header = json.dumps(
        {
            "algorithm": "RSA-OAEP-SHA256, AES-256-GCM",
            "recipient": fingerprint(recipient),
            "key": _encoded(recipient.encrypt(key, _OAEP)),
            "nonce": _encoded(nonce),
            "made": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "host": socket.gethostname(),
            "key_store_sha256": digest_of(key_store),
        }
    ).encode()
    inner = json.dumps({"key_store": _encoded(key_store), "password": _encoded(content.password.reveal())}).encode()
    return b"".join((_MAGIC, len(header).to_bytes(4, "big"), header, AESGCM(key).encrypt(nonce, inner, header)))


def unseal(backup: bytes, private: rsa.RSAPrivateKey, name: str) -> Content:
    """What a backup holds. Raises BackupError for one that is damaged, altered, or for another key."""
    header, start = _header(backup, name)
    found = _parsed(header, name)
    mine = fingerprint(private.public_key())
    if found.get("recipient") != mine:
        raise BackupError(
            f"{name} was made for another key pair", hint=f"it is for {found.get('recipient')}, this key is {mine}"
        )
    try:
        key = private.decrypt(_decoded(found["key"]), _OAEP)
        inner = json.loads(AESGCM(key).decrypt(_decoded(found["nonce"]), backup[start:], header))
        content = Content(Secret(_decoded(inner["key_store"])), Secret(_decoded(inner["password"])))
    except (InvalidTag, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BackupError(f"{name} is damaged, or was altered") from error
    if not opens(content.key_store.reveal(), content.password):
        raise BackupError(f"the key store in {name} is not one that the password beside it opens")
    return content


def fingerprint(key: rsa.RSAPublicKey) -> str:
    """How a public key is named in a backup."""
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()


def _header(backup: bytes, name: str) -> tuple[bytes, int]:
    if not backup.startswith(_MAGIC):
        raise BackupError(f"{name} is no backup of a stock KMS's key store")
    at = len(_MAGIC) + 4
    length = int.from_bytes(backup[len(_MAGIC) : at], "big")
    if length > _MAX_HEADER_BYTES or at + length > len(backup):
        raise BackupError(f"{name} is damaged, or was altered")
    return backup[at : at + length], at + length


def _parsed(header: bytes, name: str) -> dict[str, Any]:
    try:
        found = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise BackupError(f"{name} is damaged, or was altered") from error
    if not isinstance(found, dict):
        raise BackupError(f"{name} is damaged, or was altered")
    return found


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
