"""A second reader of the store, made from decision records 0004 and 0020 alone, on a frozen store and on a new one.

The reader uses nothing of the store: what it computes with the standard library and AES-GCM is what the record says.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import sqlite3
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from frozen_store import VECTOR_ROOT_KEY, frozen_store
from local_stores import LocalStore, new_key

from ringfence_agent.keystore.interface import ChangeOrigin
from ringfence_agent.keystore.token_store import TokenRecord
from ringfence_zones.secret import Secret


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

    def __init__(self, path: Path, root_key: bytes, version: int) -> None:
        self.connection = sqlite3.connect(path)
        assert self.connection.execute("PRAGMA application_id").fetchone() == (0x52464B53,)
        assert self.connection.execute("PRAGMA user_version").fetchone() == (version,)
        ((self.store_id, self.created_ms, self.scheme, header, self.ledger),) = self.connection.execute(
            "SELECT store_id, created_ms, protector, protector_header, ledger FROM store_header"
        )
        self.slots: bytes | None = None
        self.root = root_key if version < 3 else self.open_slot(root_key, json.loads(header))
        if version < 3:
            assert header[16:] == hkdf(root_key, header[:16], "key-check")

    def open_slot(self, root_key: bytes, header: dict[str, Any]) -> bytes:
        (slot,) = header["slots"]
        assert (slot["id"], slot["scheme"], header["active"], header["next"]) == (1, "file", 1, 2)
        body = base64.b64decode(slot["body"])
        assert body[16:48] == hkdf(root_key, body[:16], "key-check")
        binding = encode("ringfence/slot", 3, self.store_id)
        root = unseal(hkdf(root_key, self.store_id, "file-slot"), body[48:], binding)
        self.slots = encode("protector_header", self.store_id, header["revision"], 1, 2, 1, "file", slot["label"], body)
        tag = hmac.digest(hkdf(root, self.store_id, "slots"), self.slots, "sha256")
        assert base64.b64decode(header["tag"]) == tag
        return root

    def derive(self, purpose: str) -> bytes:
        return hkdf(self.root, self.store_id, purpose)

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
                total += self.element(row)
                rows += 1
        if self.slots is not None:
            total += self.element(self.slots)
            rows += 1
        binding = encode("ringfence/ledger", encode("store_header", 1, self.store_id, self.created_ms, self.scheme))
        ledger = unseal(self.derive("ledger"), self.ledger, binding)
        writes, sealed_rows, revision, sealed_total = struct.unpack(">QQQ32s", ledger)
        assert sealed_rows == rows
        assert int.from_bytes(sealed_total, "big") == total % 2**256
        return writes, rows, revision

    def element(self, row: bytes) -> int:
        return int.from_bytes(hmac.digest(self.derive("row-element"), row, "sha256"), "big")

    def check_tags_of_version_2(self) -> None:
        """Also that each table has a row, so that something was checked."""
        for table, columns in (
            ("key_change", "number, key_name"),
            ("unconfirmed_change", "key_name, version, made_by, request_digest, owner_id, made_ms"),
            ("token_state", "next_sequence, newest_key_id, changes"),
            ("delegation_token", "sequence, identifier, expires_ms"),
        ):
            rows = self.connection.execute(f"SELECT {columns}, tag FROM {table}").fetchall()
            assert rows
            for *fields, tag in rows:
                assert tag == hmac.digest(self.derive("row-tag"), encode(table, *fields), "sha256")

    def master_keys(self) -> dict[int, bytes]:
        found = {}
        for key_id, created_ms, expires_ms, sealed in self.connection.execute("SELECT * FROM token_master_key"):
            binding = encode("ringfence/token-key", 1, self.store_id, key_id, created_ms, expires_ms)
            found[key_id] = unseal(self.derive("wrap-token-key"), sealed, binding)
        return found

    def materials(self) -> dict[str, bytes]:
        found = {}
        for name, version, cipher, bits, created_ms, sealed in self.connection.execute("SELECT * FROM key_version"):
            binding = encode("ringfence/material", 1, self.store_id, name, version, cipher, bits, created_ms)
            found[f"{name}@{version}"] = unseal(self.derive("wrap-material"), sealed, binding)
        return found


@pytest.fixture
def frozen(tmp_path: Path) -> LocalStore:
    """The store of the vector, as a file that a release could have left."""
    return frozen_store(tmp_path)


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
    reader = SecondReader(frozen.path, VECTOR_ROOT_KEY, 1)
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
    master = store.add_master_key(0, Secret(os.urandom(32)), 5, 6)
    store.add_token(TokenRecord(store.next_sequence(), b"identifier", 7))
    store.roll_key("k", None, ChangeOrigin("etl", b"d" * 32))
    store.close()
    copy = tmp_path / "copy.db"
    shutil.copy(place.path, copy)
    reader = SecondReader(copy, bytes.fromhex(place.root_key.read_text()), 3)
    assert reader.check_ledger() == (4, 6, 1)
    assert {name: material for name, material in reader.materials().items() if name in expected} == expected
    reader.check_tags_of_version_2()
    assert reader.master_keys() == {1: master.secret.reveal()}
    reader.connection.close()
