"""A backup of format 1 that was written once and for all: later releases have to restore it, and another reader can.

`tests/vectors/keystore_backup_1.rfbackup` and its root key were made by `backups.fill`. The reader here is written from
packaging/decisions/0022-backups-and-verification.md, 0020 and 0004, and shares no code with the product.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import shutil
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from local_stores import LocalStore, material_of

from ringfence_agent.keystore.backup.drill import drill
from ringfence_agent.keystore.backup.places import opened_backup
from ringfence_agent.keystore.backup.restore import restore
from ringfence_agent.keystore.backup.targets import find_target
from ringfence_agent.keystore.protectors.file import FileProtector

VECTORS = Path(__file__).parents[3] / "vectors"
BACKUP = VECTORS / "keystore_backup_1.rfbackup"
ROOT_KEY = VECTORS / "keystore_backup_1.root-key"


def root_key_in(directory: Path) -> Path:
    """Git keeps no modes."""
    path = directory / "keys.db.root-key"
    shutil.copy(ROOT_KEY, path)
    path.chmod(0o600)
    return path


def test_it_is_drilled_and_restored_by_this_release(tmp_path: Path) -> None:
    protectors = [FileProtector.from_file(root_key_in(tmp_path))]
    with opened_backup(str(BACKUP)) as backup:
        keys = drill(backup, protectors)
        assert [(key.key_name, key.passed) for key in keys] == [
            ("again", True),
            ("gone", True),
            ("plain", True),
            ("rolled", True),
        ]
        restore(backup, protectors, find_target(f"sqlite:///{tmp_path}/keys.db", None), [])
    with closing(LocalStore(tmp_path).open()) as store:
        found = store.find_key("plain")
        assert found is not None
        assert found.versions[0].material == material_of("plain", 0)


# -- another reader


def derive(secret: bytes, salt: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), 32, salt, b"ringfence/keystore/1/" + purpose.encode()).derive(secret)


def encode(*fields: Any) -> bytes:
    out = b""
    for value in fields:
        match value:
            case str():
                kind, raw = b"t", value.encode()
            case bytes():
                kind, raw = b"b", value
            case int():
                kind, raw = b"i", struct.pack(">q", value)
            case _:
                kind, raw = b"n", b""
        out += kind + struct.pack(">I", len(raw)) + raw
    return out


def decode(data: bytes) -> Iterator[Any]:
    while data:
        kind, length = struct.unpack_from(">cI", data)
        raw, data = data[5 : 5 + length], data[5 + length :]
        readers = {b"t": bytes.decode, b"b": bytes, b"i": lambda b: struct.unpack(">q", b)[0], b"n": lambda _: None}
        yield readers[kind](raw)


def unseal(key: bytes, sealed: bytes, aad: bytes) -> bytes:
    assert sealed[:1] == b"\x01"
    return AESGCM(key).decrypt(sealed[1:13], sealed[13:], aad)


def test_another_reader_finds_every_key_and_opens_every_canary() -> None:
    content = BACKUP.read_bytes()
    first, manifest_line, signature, body = content.split(b"\n", 3)
    manifest = json.loads(manifest_line)
    assert first == b"ringfence keystore backup 1"
    assert (manifest["body_bytes"], manifest["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())

    store_id, root_key = bytes.fromhex(manifest["store_id"]), bytes.fromhex(ROOT_KEY.read_text().strip())
    (slot,) = json.loads(bytes.fromhex(manifest["protector_header"]))["slots"]
    root_sealed = base64.b64decode(slot["body"])[48:]
    root = unseal(derive(root_key, store_id, "file-slot"), root_sealed, encode("ringfence/slot", 3, store_id))
    lines = first + b"\n" + manifest_line + b"\n"
    signing = derive(root, store_id, "for/backup manifest")
    assert hmac.new(signing, lines, "sha256").hexdigest() == signature.decode()

    rows: dict[str, list[dict[str, Any]]] = {}
    canaries = []
    while body:
        (length,) = struct.unpack_from(">I", body)
        kind, *fields = decode(body[4 : 4 + length])
        body = body[4 + length :]
        if kind == "canary":
            canaries.append(fields)
        else:
            rows.setdefault(kind, []).append(dict(zip(manifest["columns"][kind], fields, strict=True)))
    assert {kind: len(found) for kind, found in rows.items()} | {"canary": len(canaries)} == manifest["rows"]

    materials, digests = {}, {}
    for row in rows["key_version"]:
        place = (row["key_name"], row["version"])
        fields = [row[name] for name in ("key_name", "version", "cipher", "length_bits", "created_ms")]
        aad = encode("ringfence/material", 1, store_id, *fields)
        materials[place] = unseal(derive(root, store_id, "wrap-material"), row["sealed"], aad)
        digests[place] = hashlib.sha256(encode("key_version", *fields, row["sealed"])).digest()
    assert materials["plain", 0] == material_of("plain", 0).reveal()

    key = derive(root, store_id, "for/backup canaries")
    for name, version, row_digest, iv, edek, digest in canaries:
        counter = bytes(byte ^ 0xFF for byte in iv)
        dek = Cipher(algorithms.AES(materials.pop((name, version))), modes.CTR(counter)).decryptor().update(edek)
        assert row_digest == digests[name, version]
        text = encode("ringfence/canary", name, version, row_digest, iv, edek, dek)
        assert hmac.new(key, text, "sha256").digest() == digest
    assert materials == {}
