from __future__ import annotations

import json
import os
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import example, given
from hypothesis import strategies as st

from ringfence_agent.kms.eek import EekCipher, reencrypt
from ringfence_zones import kms_wire
from ringfence_zones.keys import KeyVersion
from ringfence_zones.secret import Secret

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "eek.json").read_text())["vectors"]


def cipher_of(material: bytes, name: str = "zonekey", version: int = 0) -> EekCipher:
    return EekCipher(KeyVersion(name, version, Secret(material)))


def ctr(material: bytes, iv: bytes, data: bytes) -> bytes:
    """The definition, by OpenSSL's own CTR mode."""
    counter = bytes(byte ^ 0xFF for byte in iv)
    return Cipher(algorithms.AES(material), modes.CTR(counter)).encryptor().update(data)


@pytest.mark.parametrize("vector", VECTORS)
def test_hadoops_vectors_open(vector: dict[str, str]) -> None:
    cipher = cipher_of(bytes.fromhex(vector["kek"]))
    assert cipher.apply(bytes.fromhex(vector["iv"]), bytes.fromhex(vector["edek"])).hex() == vector["dek"]
    assert cipher.apply(bytes.fromhex(vector["iv"]), bytes.fromhex(vector["dek"])).hex() == vector["edek"]


def test_hadoops_reencrypt_vector_keeps_iv_and_dek() -> None:
    vector = VECTORS[0]
    old = cipher_of(bytes.fromhex(vector["kek"]))
    new = cipher_of(bytes.fromhex(vector["new_kek"]), version=1)
    iv = bytes.fromhex(vector["iv"])
    assert reencrypt(old, new, iv, bytes.fromhex(vector["edek"])).hex() == vector["reencrypted"]
    assert new.apply(iv, bytes.fromhex(vector["reencrypted"])).hex() == vector["dek"]


@given(st.sampled_from([16, 32]), st.binary(min_size=16, max_size=16), st.binary(max_size=100))
@example(32, bytes(16), bytes(48))  # the counter wraps around at 2^128
@example(32, bytes([0xFF] * 14 + [0, 0]), bytes(32))  # carries over two bytes
def test_apply_is_openssls_ctr_for_any_iv_and_length(key_bytes: int, iv: bytes, data: bytes) -> None:
    material = bytes(range(key_bytes))
    assert cipher_of(material).apply(iv, data) == ctr(material, iv, data)


@pytest.mark.parametrize("key_bytes", [16, 32])
@pytest.mark.parametrize("count", [1, 2, 150, 351, 1000])
def test_generated_edeks_open_to_distinct_deks_of_the_keys_length(key_bytes: int, count: int) -> None:
    material = os.urandom(key_bytes)
    bodies = kms_wire.decode_eek_list(cipher_of(material, version=7).generate_json(count))
    assert len(bodies) == count
    seen = set()
    for body in bodies:
        assert body.version_name == "zonekey@7"
        inner = body.encrypted_key_version
        assert inner is not None
        assert (inner.name, inner.version_name) == ("zonekey", "EEK")
        iv, edek = kms_wire.decode_iv(body.iv or ""), kms_wire.decode_base64(inner.material or "")
        assert len(edek) == key_bytes
        seen.add((iv, ctr(material, iv, edek)))
    assert len(seen) == count


@pytest.mark.parametrize("key_bytes", [16, 32])
def test_generate_encrypts_the_random_dek_under_the_random_iv(monkeypatch: pytest.MonkeyPatch, key_bytes: int) -> None:
    ivs = [bytes(16), bytes([0xFF] * 16), bytes([1] * 15 + [0]), bytes(range(16))]
    deks = [bytes(range(number, number + key_bytes)) for number in range(len(ivs))]
    draws = iter([b"".join(ivs), b"".join(deks)])
    monkeypatch.setattr(ssl, "RAND_bytes", lambda length: _exactly(next(draws), length))
    material = bytes(range(key_bytes))
    bodies = kms_wire.decode_eek_list(cipher_of(material).generate_json(len(ivs)))
    for iv, dek, body in zip(ivs, deks, bodies, strict=True):
        inner = body.encrypted_key_version
        assert inner is not None
        assert kms_wire.decode_iv(body.iv or "") == iv
        assert kms_wire.decode_base64(inner.material or "") == ctr(material, iv, dek)


def _exactly(data: bytes, length: int) -> bytes:
    assert len(data) == length
    return data


@pytest.mark.parametrize("count", [0, -1])
def test_generating_none_is_an_empty_list(count: int) -> None:
    assert cipher_of(bytes(16)).generate_json(count) == b"[]"


def test_names_with_quotes_percent_signs_and_non_ascii_letters_stay_valid_json() -> None:
    name = 'key %^[\n{]}|"<>\\ é'
    cipher = cipher_of(bytes(16), name)
    (body,) = kms_wire.decode_eek_list(cipher.generate_json(1))
    assert body.version_name == f"{name}@0"
    opened = kms_wire.decode_key_version(cipher.decrypt_json(bytes(16), bytes(16)))
    assert (opened.name, opened.version_name) == (name, "EK")


def test_single_answers_match_the_shared_wire_format() -> None:
    cipher = cipher_of(bytes(16))
    expected = kms_wire.encode(kms_wire.encrypted_key_version_json("zonekey", "zonekey@0", bytes(16), b"x" * 16))
    assert cipher.eek_json(bytes(16), b"x" * 16) == expected
    dek = cipher.apply(bytes(16), b"x" * 16)
    assert cipher.decrypt_json(bytes(16), b"x" * 16) == kms_wire.encode(kms_wire.key_version_json("zonekey", "EK", dek))


def test_the_repr_names_the_version_only() -> None:
    assert repr(cipher_of(bytes(16))) == "<EekCipher zonekey@0>"
