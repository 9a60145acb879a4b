"""A second reader of the store, made from decision record 0004 alone, on a frozen store and on a new one.

It imports nothing of the key store: what it computes with the standard library and AES-GCM is what the record says.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import shutil
import sqlite3
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from local_stores import LocalStore, new_key

VECTOR = Path(__file__).parents[2] / "vectors" / "keystore_format_1.sql"
VECTOR_ROOT_KEY = bytes(range(32))


def encode(*fields: object) -> bytes:
    out = b""
    for value in fields:
        match value:
            case str():
                kind, content = b"t", value.encode()
            case bytes():
                kind, content = b"b", value
            case int():
                kind, content = b"i", value.to_bytes(8, "big", signed=True)
            case _:
                kind, content = b"n", b""
        out += kind + len(content).to_bytes(4, "big") + content
    return out


def hkdf(root_key: bytes, salt: bytes, purpose: str) -> bytes:
    extracted = hmac.digest(salt, root_key, "sha256")
    return hmac.digest(extracted, b"ringfence/keystore/1/" + purpose.encode() + b"\x01", "sha256")


def unseal(key: bytes, sealed: bytes, binding: bytes) -> bytes:
    assert sealed[:1] == b"\x01"
    return AESGCM(key).decrypt(sealed[1:13], sealed[13:], binding)


class SecondReader:
    """Reads every material and checks every promise of the record."""

    def __init__(self, path: Path, root_key: bytes) -> None:
        self.root_key = root_key
        self.connection = sqlite3.connect(path)
        assert self.connection.execute("PRAGMA application_id").fetchone() == (0x52464B53,)
        assert self.connection.execute("PRAGMA user_version").fetchone() == (1,)
        ((self.store_id, self.created_ms, self.scheme, header, self.ledger),) = self.connection.execute(
            "SELECT store_id, created_ms, protector, protector_header, ledger FROM store_header"
        )
        assert header[16:] == hkdf(root_key, header[:16], "key-check")

    def derive(self, purpose: str) -> bytes:
        return hkdf(self.root_key, self.store_id, purpose)

    def check_ledger(self) -> tuple[int, int, int]:
        total = rows = 0
        for table, columns, tag in (
            (
                "zone_key",
                "name, cipher, length_bits, created_ms, first_version, next_version, deleted_ms, description,"
                " attributes",
                ", tag",
            ),
            ("key_version", "key_name, version, cipher, length_bits, created_ms, sealed", ""),
            ("policy_revision", "revision, document, published_by, published_ms", ", tag"),
        ):
            for fields in self.connection.execute(f"SELECT {columns}{tag} FROM {table}"):
                row = encode(table, *(fields[:-1] if tag else fields))
                if tag:
                    assert fields[-1] == hmac.digest(self.derive("row-tag"), row, "sha256")
                total += int.from_bytes(hmac.digest(self.derive("row-element"), row, "sha256"), "big")
                rows += 1
        binding = encode("ringfence/ledger", encode("store_header", 1, self.store_id, self.created_ms, self.scheme))
        ledger = unseal(self.derive("ledger"), self.ledger, binding)
        writes, sealed_rows, revision, sealed_total = struct.unpack(">QQQ32s", ledger)
        assert sealed_rows == rows
        assert int.from_bytes(sealed_total, "big") == total % 2**256
        return writes, rows, revision

    def materials(self) -> dict[str, bytes]:
        found = {}
        for name, version, cipher, bits, created_ms, sealed in self.connection.execute("SELECT * FROM key_version"):
            binding = encode("ringfence/material", 1, self.store_id, name, version, cipher, bits, created_ms)
            found[f"{name}@{version}"] = unseal(self.derive("wrap-material"), sealed, binding)
        return found


@pytest.fixture
def frozen(tmp_path: Path) -> LocalStore:
    """The store of the vector, as a file that a release could have left."""
    place = LocalStore(tmp_path)
    place.root_key.write_bytes(VECTOR_ROOT_KEY.hex().encode() + b"\n")
    connection = sqlite3.connect(place.path)
    connection.executescript(VECTOR.read_text())
    connection.close()
    for path in (place.path, place.root_key):
        path.chmod(0o600)
    return place


def test_a_store_of_the_first_release_still_opens_and_goes_on(frozen: LocalStore) -> None:
    store = frozen.open()
    pii, recreated = store.list_metadata()
    assert (pii.name, pii.length_bits, pii.versions, pii.description) == ("analytics-data-pii", 256, 2, "päivä")
    assert dict(pii.attributes) == {"ringfence.custody": "envelope", "b": "2"}
    assert pii.created_ms == 1_700_000_001_000
    assert (recreated.name, recreated.length_bits, recreated.versions) == ("recreated", 128, 2)
    found = store.find_key("analytics-data-pii")
    assert found is not None
    assert [version.material.reveal() for version in found.versions] == [b"\x01" * 32, b"\x02" * 32]
    policy = store.find_policy()
    assert policy is not None
    assert (policy.revision, policy.document, policy.published_by) == (2, b'{"version":1,"zones":[]}', "hdfs")
    assert policy.digest == hashlib.sha256(policy.document).hexdigest()
    assert store.create_key(new_key("gone")).name == "gone@1"
    assert store.roll_key("recreated", None).name == "recreated@2"
    store.close()
    frozen.open().close()


def test_the_record_alone_is_enough_to_read_the_frozen_store(frozen: LocalStore) -> None:
    reader = SecondReader(frozen.path, VECTOR_ROOT_KEY)
    assert reader.check_ledger() == (9, 10, 2)
    assert reader.materials() == {
        "analytics-data-pii@0": b"\x01" * 32,
        "analytics-data-pii@1": b"\x02" * 32,
        "gone@0": b"\x05" * 32,
        "recreated@0": b"\x03" * 32,
        "recreated@1": b"\x04" * 16,
    }
    reader.connection.close()


def test_the_record_alone_is_enough_to_read_a_store_written_today(tmp_path: Path) -> None:
    place = LocalStore(tmp_path)
    store = place.open()
    store.create_key(new_key("k"))
    expected = {"k@0": new_key("k").material.reveal(), "k@1": store.roll_key("k", None).material.reveal()}
    store.publish_policy(0, os.urandom(100), "root")
    store.close()
    copy = tmp_path / "copy.db"
    shutil.copy(place.path, copy)
    reader = SecondReader(copy, bytes.fromhex(place.root_key.read_text()))
    assert reader.check_ledger() == (3, 4, 1)
    assert reader.materials() == expected
    reader.connection.close()
