"""The cryptography itself: what the server seals is opened here, with the formulas of vault-measured section 2."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from vault_contract import CONTEXT, DEK, ContractServer
from vault_doubles import VaultAnswer

_CONTEXT = base64.b64decode(CONTEXT)


def _open(key: bytes, ciphertext: str, aad: bytes | None = None) -> str:
    raw = base64.b64decode(ciphertext.split(":")[2])
    return base64.b64encode(AESGCM(key).decrypt(raw[:12], raw[12:], aad)).decode()


def _exported(server: ContractServer, name: str, version: int) -> bytes:
    data = server.call("GET", f"{server.transit}/export/encryption-key/{name}").data
    return base64.b64decode(data["keys"][str(version)])


@pytest.fixture(scope="module")
def wrapping_key(server: ContractServer) -> rsa.RSAPublicKey:
    pem = server.call("GET", f"{server.transit}/wrapping_key").data["public_key"]
    key = serialization.load_pem_public_key(pem.encode())
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 4096
    return key


def _wrap(wrapping_key: rsa.RSAPublicKey, key: bytes) -> str:
    ephemeral = secrets.token_bytes(32)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    return base64.b64encode(wrapping_key.encrypt(ephemeral, oaep) + aes_key_wrap_with_padding(ephemeral, key)).decode()


def _import(
    server: ContractServer, wrapping_key: rsa.RSAPublicKey, key: bytes, name: str, **parameters: bool
) -> VaultAnswer:
    body = {"ciphertext": _wrap(wrapping_key, key), "hash_function": "SHA256", "type": "aes256-gcm96", **parameters}
    return server.call("POST", f"{server.transit}/keys/{name}/import", body)


def test_a_derived_key_is_hkdf_of_the_version_and_the_context(server: ContractServer) -> None:
    name = server.key(exportable=True)
    server.rotate(name)
    for version in (1, 2):
        ciphertext = server.encrypt(name, key_version=version).data["ciphertext"]
        material = _exported(server, name, version)
        derived = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=_CONTEXT).derive(material)
        assert _open(derived, ciphertext) == DEK


def test_associated_data_is_the_decoded_bytes(server: ContractServer) -> None:
    name = server.key(exportable=True, derived=False)
    aad = base64.b64encode(b"bound").decode()
    ciphertext = server.encrypt(name, context=None, associated_data=aad).data["ciphertext"]
    assert _open(_exported(server, name, 1), ciphertext, b"bound") == DEK


def test_an_imported_key_that_is_not_derived_is_plain_aes_gcm(
    server: ContractServer, wrapping_key: rsa.RSAPublicKey
) -> None:
    name, key = server.fresh("imported"), secrets.token_bytes(32)
    assert _import(server, wrapping_key, key, name, derived=False).status == 204
    assert _open(key, server.encrypt(name, context=None).data["ciphertext"]) == DEK


def test_an_imported_derived_key_uses_the_counter_kdf(server: ContractServer, wrapping_key: rsa.RSAPublicKey) -> None:
    name, key = server.fresh("imported"), secrets.token_bytes(32)
    assert _import(server, wrapping_key, key, name, derived=True).status == 204
    read = server.call("GET", f"{server.transit}/keys/{name}").data
    assert (read["kdf"], read["imported_key"]) == ("hmac-sha256-counter", True)
    derived = hmac.new(key, bytes(4) + _CONTEXT + (256).to_bytes(4, "big"), hashlib.sha256).digest()
    assert _open(derived, server.encrypt(name).data["ciphertext"]) == DEK


def test_an_import_over_an_existing_key_is_refused(server: ContractServer, wrapping_key: rsa.RSAPublicKey) -> None:
    assert _import(server, wrapping_key, secrets.token_bytes(32), server.key()).status == 500


def test_an_import_of_garbage_is_refused(server: ContractServer, wrapping_key: rsa.RSAPublicKey) -> None:
    body = {"ciphertext": base64.b64encode(bytes(600)).decode(), "hash_function": "SHA256", "type": "aes256-gcm96"}
    answer = server.call("POST", f"{server.transit}/keys/{server.fresh('garbage')}/import", body)
    assert answer.status == 500
    assert "crypto/rsa: decryption error" in answer.errors[0]


def test_an_imported_key_rotates_only_when_it_may(server: ContractServer, wrapping_key: rsa.RSAPublicKey) -> None:
    fixed, free = server.fresh("fixed"), server.fresh("free")
    for name, may in ((fixed, False), (free, True)):
        assert _import(server, wrapping_key, secrets.token_bytes(32), name, allow_rotation=may).status == 204
    assert server.call("POST", f"{server.transit}/keys/{fixed}/rotate").status == 500
    version = {"ciphertext": _wrap(wrapping_key, secrets.token_bytes(32)), "hash_function": "SHA256"}
    assert server.call("POST", f"{server.transit}/keys/{free}/import_version", version).status == 204
    assert server.call("POST", f"{server.transit}/keys/{free}/rotate").status == 200
    # From then on it is the server's own key.
    assert server.call("GET", f"{server.transit}/keys/{free}").data["imported_key"] is False
    assert server.call("POST", f"{server.transit}/keys/{free}/import_version", version).status == 500


def test_reading_the_wrapping_key_leaves_a_directory_in_the_listing(
    server: ContractServer, wrapping_key: rsa.RSAPublicKey
) -> None:
    assert wrapping_key.key_size == 4096
    assert "import/" in server.call("LIST", f"{server.transit}/keys").data["keys"]
