"""Encrypt, decrypt and rewrap, one item at a time: vault-measured sections 1 and 2."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from vault_contract import CONTEXT, DEK, OTHER_CONTEXT, ContractServer


@pytest.fixture(scope="module")
def key(server: ContractServer) -> str:
    """A derived key with three versions."""
    name = server.key()
    server.rotate(name, times=2)
    return name


@pytest.fixture(scope="module")
def plain_key(server: ContractServer) -> str:
    """A key that is not derived."""
    return server.key(derived=False)


@pytest.fixture
def ciphertext(server: ContractServer, key: str) -> str:
    return str(server.encrypt(key).data["ciphertext"])


def _with_bit_flipped(ciphertext: str) -> str:
    prefix, _, encoded = ciphertext.rpartition(":")
    raw = bytearray(base64.b64decode(encoded))
    raw[-1] ^= 1
    return f"{prefix}:{base64.b64encode(raw).decode()}"


def test_a_round_trip_gives_back_the_plaintext(server: ContractServer, key: str) -> None:
    answer = server.encrypt(key)
    assert answer.status == 200
    assert set(answer.data) == {"ciphertext", "key_version"}
    assert answer.data["key_version"] == 3
    assert answer.data["ciphertext"].startswith("vault:v3:")
    assert server.decrypt(key, answer.data["ciphertext"]).data == {"plaintext": DEK}


def test_two_encryptions_differ(server: ContractServer, key: str) -> None:
    assert server.encrypt(key).data["ciphertext"] != server.encrypt(key).data["ciphertext"]


@pytest.mark.parametrize(("size", "text", "raw"), [(16, 69, 44), (24, 81, 52), (32, 89, 60)])
def test_sizes(server: ContractServer, plain_key: str, size: int, text: int, raw: int) -> None:
    plaintext = base64.b64encode(bytes(size)).decode()
    ciphertext = server.encrypt(plain_key, plaintext=plaintext, context=None).data["ciphertext"]
    assert len(ciphertext) == text
    assert len(base64.b64decode(ciphertext.split(":")[2])) == raw


@pytest.mark.parametrize("version", [1, "1", 2, 0])
def test_an_encryptor_may_name_an_older_version(server: ContractServer, key: str, version: Any) -> None:
    data = server.encrypt(key, key_version=version).data
    expected = int(version) or 3
    assert (data["key_version"], data["ciphertext"].split(":")[1]) == (expected, f"v{expected}")


def test_a_version_that_is_too_high_is_refused(server: ContractServer, key: str) -> None:
    answer = server.encrypt(key, key_version=9)
    assert answer.status == 400
    assert answer.errors == ["requested version for encryption is higher than the latest key version"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_encryption_version": 2}, ["is less than the minimum encryption key version"]),
        ({"min_decryption_version": 2}, ["is less than the minimum encryption key version", "no such key version"]),
    ],
)
def test_a_version_that_is_too_low_is_refused(
    server: ContractServer, settings: dict[str, int], words: list[str]
) -> None:
    name = server.key()
    server.rotate(name)
    assert server.configure(name, **settings).status == 200
    answer = server.encrypt(name, key_version=1)
    assert answer.status == 400
    assert any(word in answer.errors[0] for word in words), answer.errors


@pytest.mark.parametrize("operation", ["encrypt", "decrypt", "rewrap"])
def test_a_derived_key_demands_a_context(server: ContractServer, key: str, ciphertext: str, operation: str) -> None:
    body = {"plaintext": DEK} if operation == "encrypt" else {"ciphertext": ciphertext}
    answer = server.use(operation, key, body)
    assert answer.status == 400
    assert answer.errors[0].startswith("missing 'context' for key derivation; the key was created using a derived key")


def test_another_context_does_not_decrypt(server: ContractServer, key: str, ciphertext: str) -> None:
    answer = server.decrypt(key, ciphertext, context=OTHER_CONTEXT)
    assert (answer.status, answer.errors) == (400, ["cipher: message authentication failed"])


def test_a_flipped_bit_does_not_decrypt(server: ContractServer, key: str, ciphertext: str) -> None:
    answer = server.decrypt(key, _with_bit_flipped(ciphertext))
    assert (answer.status, answer.errors) == (400, ["cipher: message authentication failed"])


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ("no-prefix", "invalid ciphertext: no prefix"),
        ("vault:v1", "invalid ciphertext: wrong number of fields"),
        ("vault:vx:AAAA", "invalid ciphertext: version number could not be decoded"),
        ("vault:v1:?!", "invalid ciphertext: could not decode base64"),
        ("vault:v99:AAAA", "invalid ciphertext: version is too new"),
        ("vault:v1:AAAA", "invalid ciphertext length"),
        ("vault:v-1:AAAA", "ciphertext or signature version is disallowed by policy (too old)"),
    ],
)
@pytest.mark.parametrize("operation", ["decrypt", "rewrap"])
def test_bad_ciphertext_strings(server: ContractServer, key: str, operation: str, broken: str, error: str) -> None:
    answer = server.use(operation, key, {"ciphertext": broken, "context": CONTEXT})
    assert (answer.status, answer.errors) == (400, [error])


@pytest.mark.parametrize("alias", ["v0", "v01", "v+1"])
def test_other_spellings_of_version_1_decrypt(server: ContractServer, alias: str) -> None:
    name = server.key()
    encoded = server.encrypt(name).data["ciphertext"].split(":")[2]
    assert server.decrypt(name, f"vault:{alias}:{encoded}").data["plaintext"] == DEK


def test_line_breaks_inside_base64_are_accepted(server: ContractServer, key: str, ciphertext: str) -> None:
    prefix, _, encoded = ciphertext.rpartition(":")
    broken = f"{prefix}:{encoded[:10]}\n{encoded[10:]}"
    assert server.decrypt(key, broken, context=CONTEXT[:4] + "\n" + CONTEXT[4:]).data["plaintext"] == DEK


def test_the_url_alphabet_is_refused(server: ContractServer, plain_key: str) -> None:
    # Until a ciphertext shows one of the two characters that differ.
    for _ in range(200):
        ciphertext = server.encrypt(plain_key, context=None).data["ciphertext"]
        foreign = ciphertext.replace("+", "-").replace("/", "_")
        if foreign != ciphertext:
            break
    answer = server.decrypt(plain_key, foreign, context=None)
    assert (answer.status, answer.errors) == (400, ["invalid ciphertext: could not decode base64"])


def test_a_version_below_the_minimum_is_too_old(server: ContractServer) -> None:
    name = server.key()
    old = server.encrypt(name).data["ciphertext"]
    server.rotate(name)
    assert server.configure(name, min_decryption_version=2).status == 200
    answer = server.decrypt(name, old)
    assert answer.status == 400
    assert answer.errors == ["ciphertext or signature version is disallowed by policy (too old)"]
    # Lowered again, it decrypts again: a minimum is no destruction.
    assert server.configure(name, min_decryption_version=1).status == 200
    assert server.decrypt(name, old).data["plaintext"] == DEK


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        ("encrypt", "missing plaintext to encrypt"),
        ("decrypt", "missing ciphertext to decrypt"),
        ("rewrap", "missing ciphertext to decrypt"),
    ],
)
def test_a_missing_field(server: ContractServer, key: str, operation: str, error: str) -> None:
    answer = server.use(operation, key, {"context": CONTEXT})
    assert (answer.status, answer.errors) == (400, [error])


def test_an_empty_plaintext_is_encrypted(server: ContractServer, key: str) -> None:
    ciphertext = server.encrypt(key, plaintext="").data["ciphertext"]
    assert server.decrypt(key, ciphertext).data["plaintext"] == ""


@pytest.mark.parametrize("body", [{"plaintext": "?"}, {"context": "?"}])
def test_bad_base64(server: ContractServer, key: str, body: dict[str, str]) -> None:
    answer = server.encrypt(key, **body)
    assert (answer.status, answer.errors) == (400, ["illegal base64 data at input byte 0"])


def test_bad_base64_in_associated_data_is_a_500(server: ContractServer, key: str) -> None:
    assert server.encrypt(key, associated_data="?").status == 500


def test_associated_data_is_bound(server: ContractServer, key: str) -> None:
    aad, other = base64.b64encode(b"aad").decode(), base64.b64encode(b"other").decode()
    ciphertext = server.encrypt(key, associated_data=aad).data["ciphertext"]
    assert server.decrypt(key, ciphertext, associated_data=aad).data["plaintext"] == DEK
    for wrong in ({}, {"associated_data": other}):
        answer = server.decrypt(key, ciphertext, **wrong)
        assert (answer.status, answer.errors) == (400, ["cipher: message authentication failed"])


def test_rewrap_knows_no_associated_data(server: ContractServer, key: str) -> None:
    aad = base64.b64encode(b"aad").decode()
    ciphertext = server.encrypt(key, associated_data=aad).data["ciphertext"]
    answer = server.rewrap(key, ciphertext, associated_data=aad)
    assert (answer.status, answer.errors) == (400, ["cipher: message authentication failed"])


def test_rewrap_moves_to_the_latest_version_and_keeps_the_plaintext(server: ContractServer, key: str) -> None:
    old = server.encrypt(key, key_version=1).data["ciphertext"]
    answer = server.rewrap(key, old)
    assert answer.data["key_version"] == 3
    assert server.decrypt(key, answer.data["ciphertext"]).data["plaintext"] == DEK


def test_each_item_of_a_rewrap_goes_to_the_version_it_names(server: ContractServer, key: str) -> None:
    """Undocumented by OpenBao; a version that is not the newest is needed while a rotation is not on record yet."""
    old = server.encrypt(key, key_version=1).data["ciphertext"]
    items = [{"ciphertext": old, "context": CONTEXT, "key_version": version} for version in (1, 2, 3, 4, 0)]
    answer = server.use("rewrap", key, {"batch_input": items})
    assert answer.status == 200
    results = answer.data["batch_results"]
    assert [result.get("key_version") for result in results] == [1, 2, 3, None, 3]
    assert results[3]["error"] == "requested version for encryption is higher than the latest key version"
    for result, version in zip(results[:3], (1, 2, 3), strict=True):
        assert result["ciphertext"].startswith(f"vault:v{version}:")
        assert server.decrypt(key, result["ciphertext"]).data["plaintext"] == DEK


def test_rewrap_at_the_latest_version_still_changes_the_ciphertext(
    server: ContractServer, key: str, ciphertext: str
) -> None:
    assert server.rewrap(key, ciphertext).data["ciphertext"] != ciphertext


def test_a_context_on_a_key_that_is_not_derived_is_ignored(server: ContractServer, plain_key: str) -> None:
    answer = server.encrypt(plain_key)
    assert (answer.status, answer.body["warnings"]) == (200, None)
    assert server.decrypt(plain_key, answer.data["ciphertext"], context=OTHER_CONTEXT).data["plaintext"] == DEK


@pytest.mark.parametrize("operation", ["decrypt", "rewrap"])
def test_a_missing_key_is_a_400(server: ContractServer, operation: str, ciphertext: str) -> None:
    answer = server.use(operation, server.fresh("missing"), {"ciphertext": ciphertext, "context": CONTEXT})
    assert (answer.status, answer.errors) == (400, ["encryption key not found"])


def test_encrypt_with_a_missing_key_and_update_alone_is_a_403(server: ContractServer) -> None:
    """The existence check turns the call into a create, which the policy does not allow."""
    token = server.token_for('path "{transit}/encrypt/+" { capabilities = ["update"] }')
    name = server.fresh("missing")
    answer = server.use("encrypt", name, {"plaintext": DEK, "context": CONTEXT}, token)
    assert (answer.status, tuple(answer.errors)) == (403, server.flavour.no_policy_errors)
    assert server.call("GET", f"{server.transit}/keys/{name}").status == 404


def test_encrypt_with_a_missing_key_and_create_is_a_400_when_upsert_is_off(server: ContractServer) -> None:
    token = server.token_for('path "{transit}/encrypt/+" { capabilities = ["create", "update"] }')
    config = f"{server.transit}/config/keys"
    assert server.call("POST", config, {"disable_upsert": True}).status == 200
    try:
        assert server.call("GET", config).data["disable_upsert"] is True
        answer = server.use("encrypt", server.fresh("missing"), {"plaintext": DEK, "context": CONTEXT}, token)
        assert (answer.status, answer.errors) == (400, ["encryption key not found"])
    finally:
        server.done("POST", config, {"disable_upsert": False})


def test_encrypt_with_create_makes_the_key_when_upsert_is_on(server: ContractServer) -> None:
    token, name = server.token_for('path "{transit}/encrypt/+" { capabilities = ["create"] }'), server.fresh("upsert")
    assert server.use("encrypt", name, {"plaintext": DEK, "context": CONTEXT}, token).status == 200
    made = server.call("GET", f"{server.transit}/keys/{name}").data
    assert (made["derived"], made["type"]) == (True, "aes256-gcm96")


@pytest.mark.parametrize(("kind", "has_plaintext"), [("plaintext", True), ("wrapped", False)])
@pytest.mark.parametrize("bits", [128, 256])
def test_data_keys(server: ContractServer, key: str, kind: str, has_plaintext: bool, bits: int) -> None:
    data = server.call("POST", f"{server.transit}/datakey/{kind}/{key}", {"context": CONTEXT, "bits": bits}).data
    assert ("plaintext" in data) is has_plaintext
    opened = server.decrypt(key, data["ciphertext"]).data["plaintext"]
    assert len(base64.b64decode(opened)) == bits // 8


def test_a_data_key_of_192_bits_is_refused(server: ContractServer, key: str) -> None:
    answer = server.call("POST", f"{server.transit}/datakey/wrapped/{key}", {"context": CONTEXT, "bits": 192})
    assert (answer.status, answer.errors) == (400, ["invalid bit length"])


def test_a_data_key_of_another_kind_is_refused(server: ContractServer, key: str) -> None:
    assert server.call("POST", f"{server.transit}/datakey/other/{key}", {"context": CONTEXT}).status == 400


@pytest.mark.parametrize("of_the_system", [False, True])
def test_random_bytes(server: ContractServer, of_the_system: bool) -> None:
    path = "sys/tools/random" if of_the_system else f"{server.transit}/random"
    assert len(base64.b64decode(server.call("POST", f"{path}/32").data["random_bytes"])) == 32
    assert server.call("POST", f"{path}/131073").status == 400


def test_hmac_and_verify(server: ContractServer, key: str) -> None:
    tag = server.call("POST", f"{server.transit}/hmac/{key}/sha2-256", {"input": DEK}).data["hmac"]
    assert tag.startswith("vault:v3:")
    path = f"{server.transit}/verify/{key}/sha2-256"
    assert server.call("POST", path, {"input": DEK, "hmac": tag}).data["valid"] is True
    assert server.call("POST", path, {"input": OTHER_CONTEXT, "hmac": tag}).data["valid"] is False


def test_a_hash_is_printed_in_hexadecimal_digits(server: ContractServer) -> None:
    data = server.call("POST", f"{server.transit}/hash/sha2-256", {"input": DEK}).data
    assert data == {"sum": hashlib.sha256(base64.b64decode(DEK)).hexdigest()}
