from __future__ import annotations

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_zones import kms_wire
from ringfence_zones.errors import InputError, MalformedJsonError
from ringfence_zones.keys import KeyMetadata


@given(st.binary(max_size=100))
def test_base64_goes_out_url_safe_without_padding(data: bytes) -> None:
    assert kms_wire.encode_base64(data) == base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@given(st.binary(max_size=100))
def test_base64_comes_in_with_either_alphabet_padded_or_not(data: bytes) -> None:
    for encoded in (base64.b64encode(data), base64.urlsafe_b64encode(data)):
        assert kms_wire.decode_base64(encoded.decode()) == data
        assert kms_wire.decode_base64(encoded.rstrip(b"=").decode()) == data


@pytest.mark.parametrize("text", ["a", "ab*d", "ab cd", "abcd\n", "abcé", "====x", "ab=c"])
def test_malformed_base64_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(InputError) as caught:
        kms_wire.decode_base64(text)
    assert caught.value.message == "a base64 value is malformed"


@pytest.mark.parametrize("length", [0, 15, 17])
def test_an_iv_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(MalformedJsonError, match="16 bytes"):
        kms_wire.decode_iv(base64.b64encode(bytes(length)).decode())


def test_java_create_body_is_read_and_unknown_fields_are_ignored() -> None:
    body = kms_wire.decode_create_key(
        b'{\n  "name" : "k1",\n  "cipher" : "AES/CTR/NoPadding",\n  "length" : 128,\n  "description" : null,'
        b'\n  "attributes" : {"key.acl.name": "k1"}, "later": [1]\n}'
    )
    assert (body.name, body.cipher, body.length) == ("k1", "AES/CTR/NoPadding", 128)
    assert body.attributes == {"key.acl.name": "k1"}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"length": "128"}', b"\xff", b"[" * 5000, b'{"name": 1}'])
def test_a_body_of_another_shape_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedJsonError):
        kms_wire.decode_create_key(data)


def test_struct_reprs_hide_material() -> None:
    material = base64.b64encode(os.urandom(16)).decode()
    for body in (
        kms_wire.decode_create_key(b'{"material":"%s"}' % material.encode()),
        kms_wire.decode_roll_key(b'{"material":"%s"}' % material.encode()),
        kms_wire.decode_key_version(b'{"material":"%s"}' % material.encode()),
    ):
        assert material not in repr(body)
        assert material not in str(body)


def test_metadata_round_trips() -> None:
    metadata = KeyMetadata("k", "AES/CTR/NoPadding", 256, 1_700_000_000_000, 3, "words", {"a": "b"})
    assert kms_wire.decode_metadata(kms_wire.encode(kms_wire.metadata_json(metadata))) == metadata


def test_an_unknown_key_is_an_empty_object_in_both_directions() -> None:
    assert kms_wire.metadata_json(None) == {}
    assert kms_wire.decode_metadata(b"{}") is None
    assert kms_wire.decode_metadata_list(b'[{}, {"name":"k"}]')[0] is None


def test_edek_json_is_hadoops_vector() -> None:
    json = kms_wire.encode(
        kms_wire.encrypted_key_version_json(
            "zonekey",
            "zonekey@1",
            bytes.fromhex("ffeeddccbbaa99887766554433221100"),
            bytes.fromhex("81c52b6040c488973f94c42d2dfe538e"),
        )
    )
    assert json == (
        b'{"versionName":"zonekey@1","iv":"_-7dzLuqmYh3ZlVEMyIRAA",'
        b'"encryptedKeyVersion":{"name":"zonekey","versionName":"EEK","material":"gcUrYEDEiJc_lMQtLf5Tjg"}}'
    )
    (body,) = kms_wire.decode_eek_list(b"[" + json + b"]")
    assert body.version_name == "zonekey@1"
    assert body.encrypted_key_version is not None
    assert body.encrypted_key_version.material == "gcUrYEDEiJc_lMQtLf5Tjg"


def test_a_remote_exception_keeps_the_first_line_and_the_simple_class() -> None:
    data = kms_wire.encode_remote_exception("java.io.IOException", "first\nsecond")
    error = kms_wire.decode_remote_exception(data)
    assert error is not None
    assert (error.message, error.exception, error.java_class_name) == ("first", "IOException", "java.io.IOException")


@pytest.mark.parametrize("data", [b"", b"<html>401</html>", b"[]", b'{"a":1}', b"\xff", b'{"a":' + b"[" * 10_000])
def test_a_body_that_is_no_remote_exception_is_none(data: bytes) -> None:
    assert kms_wire.decode_remote_exception(data) is None


@pytest.mark.parametrize("document", [b"[" * 100_000, b"[" * 3000 + b"]" * 3000, b'{"a":' * 2000 + b"1" + b"}" * 2000])
def test_a_publication_nested_out_of_bounds_is_malformed(document: bytes) -> None:
    with pytest.raises(MalformedJsonError):
        kms_wire.decode_json(kms_wire.decode_publish(b'{"expected_revision":0,"policy":%b}' % document).policy)


def test_a_publication_keeps_the_policy_as_it_was_sent() -> None:
    body = kms_wire.decode_publish(b'{"expected_revision": 3, "policy": {"b": 1, "a": [2]}}')
    assert body.expected_revision == 3
    assert kms_wire.decode_json(body.policy) == {"b": 1, "a": [2]}
