"""The life of a Transit key: vault-measured sections 1, 2 and 2.2."""

from __future__ import annotations

import base64
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from vault_contract import CONTEXT, DEK, DERIVED, ContractServer


def _read(server: ContractServer, name: str) -> dict[str, Any]:
    return server.call("GET", f"{server.transit}/keys/{name}").data


def test_a_new_key_is_returned(server: ContractServer) -> None:
    name, began = server.fresh("new"), int(time.time())
    answer = server.call("POST", f"{server.transit}/keys/{name}", DERIVED)
    assert (answer.status, answer.body["warnings"]) == (200, None)
    created = answer.data["keys"].pop("1")
    assert began - 300 < created < began + 300
    assert answer.data == {
        "allow_plaintext_backup": False,
        "auto_rotate_period": 0,
        "convergent_encryption": False,
        "deletion_allowed": False,
        "derived": True,
        "exportable": False,
        "imported_key": False,
        "kdf": "hkdf_sha256",
        "keys": {},
        "latest_version": 1,
        "min_available_version": 0,
        "min_decryption_version": 1,
        "min_encryption_version": 0,
        "name": name,
        "soft_deleted": False,
        "supports_decryption": True,
        "supports_derivation": True,
        "supports_encryption": True,
        "supports_signing": False,
        "type": "aes256-gcm96",
    }
    read = _read(server, name)
    assert read["keys"].pop("1") == created
    assert read == answer.data


def test_a_key_that_is_not_derived_names_no_kdf(server: ContractServer) -> None:
    assert not {"kdf", "convergent_encryption"} & set(_read(server, server.key(derived=False)))


def test_a_missing_key_is_a_404_without_words(server: ContractServer) -> None:
    answer = server.call("GET", f"{server.transit}/keys/{server.fresh('missing')}")
    assert (answer.status, answer.body) == (404, {"errors": []})


def test_keys_are_listed_sorted(server: ContractServer) -> None:
    mount = server.mount(server.fresh("listing"), {"type": "transit"})
    assert server.call("LIST", f"{mount}/keys").status == 404
    for name in ("b", "a", "B"):
        server.done("POST", f"{mount}/keys/{name}", DERIVED)
    assert server.call("LIST", f"{mount}/keys").data["keys"] == ["B", "a", "b"]
    assert server.call("GET", f"{mount}/keys?list=true").data["keys"] == ["B", "a", "b"]


def test_an_unknown_type_is_refused(server: ContractServer) -> None:
    answer = server.call("POST", f"{server.transit}/keys/{server.fresh('odd')}", {"type": "aes512"})
    assert (answer.status, answer.errors) == (400, ["unknown key type aes512"])


@pytest.mark.parametrize("name", ["with%20space", "trailing.", "n%C3%A9"])
def test_names_that_are_no_names(server: ContractServer, name: str) -> None:
    answer = server.call("POST", f"{server.transit}/keys/{name}", DERIVED)
    assert (answer.status, answer.errors) == (404, ["1 error occurred:\n\t* unsupported path\n\n"])


def test_names_may_have_dots_and_dashes_and_differ_by_case(server: ContractServer) -> None:
    names = [server.fresh("a.b-c_d"), server.fresh("A.b-c_d")]
    for name in names:
        server.done("POST", f"{server.transit}/keys/{name}", DERIVED)
        assert _read(server, name)["name"] == name


def test_creating_an_existing_key_answers_the_old_one(server: ContractServer) -> None:
    name = server.key()
    wished = {"type": "aes128-gcm96", "derived": False, "exportable": True}
    answer = server.call("POST", f"{server.transit}/keys/{name}", wished)
    assert answer.status == 200
    found = (answer.data["type"], answer.data["derived"], answer.data["exportable"], answer.data["latest_version"])
    assert found == ("aes256-gcm96", True, False, 1)


def test_twenty_creators_get_one_key(server: ContractServer) -> None:
    name = server.fresh("race")
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: server.call("POST", f"{server.transit}/keys/{name}", DERIVED), range(20)))
    assert {answer.status for answer in answers} == {200}
    assert _read(server, name)["latest_version"] == 1


def test_rotate_returns_the_key(server: ContractServer) -> None:
    name = server.key()
    answer = server.call("POST", f"{server.transit}/keys/{name}/rotate")
    assert answer.status == 200
    assert (answer.data["latest_version"], sorted(answer.data["keys"])) == (2, ["1", "2"])


def test_rotating_a_missing_key_is_a_400(server: ContractServer) -> None:
    answer = server.call("POST", f"{server.transit}/keys/{server.fresh('missing')}/rotate")
    assert (answer.status, answer.errors) == (400, ["key not found"])


def test_minima_of_versions(server: ContractServer) -> None:
    name = server.key()
    server.rotate(name, times=2)
    answer = server.configure(name, min_decryption_version=9)
    assert answer.status == 400
    assert answer.errors == ["cannot set min decryption version of 9, latest key version is 3"]
    assert server.configure(name, min_decryption_version=2).status == 200
    assert server.configure(name, min_encryption_version=1).status == 400
    assert server.configure(name, min_encryption_version=2).status == 200  # Equal is allowed.
    assert sorted(_read(server, name)["keys"]) == ["2", "3"]
    assert server.configure(name, min_decryption_version=1).status == 200
    assert sorted(_read(server, name)["keys"]) == ["1", "2", "3"]


def test_a_minimum_of_0_becomes_1_with_a_warning(server: ContractServer) -> None:
    answer = server.configure(server.key(), min_decryption_version=0)
    assert (answer.status, answer.data["min_decryption_version"]) == (200, 1)
    assert answer.body["warnings"]


def test_trim(server: ContractServer) -> None:
    name = server.key()
    server.rotate(name, times=2)
    path = f"{server.transit}/keys/{name}/trim"
    assert server.call("POST", path, {"min_available_version": 2}).status == 400
    assert server.configure(name, min_encryption_version=2).status == 200
    answer = server.call("POST", path, {"min_available_version": 2})
    expected = "minimum available version cannot be greater than minimum decryption version"
    assert (answer.status, answer.errors) == (400, [expected])
    assert server.configure(name, min_decryption_version=2, min_encryption_version=3).status == 200
    for _ in range(2):  # Repeating is harmless.
        assert server.call("POST", path, {"min_available_version": 2}).status == 200
    assert _read(server, name)["min_available_version"] == 2
    answer = server.configure(name, min_decryption_version=1)
    expected = "min decryption version should not be less then min available version"
    assert (answer.status, answer.errors) == (400, [expected])


def test_trim_above_the_encryption_minimum(server: ContractServer) -> None:
    name = server.key()
    server.rotate(name, times=2)
    assert server.configure(name, min_decryption_version=2, min_encryption_version=2).status == 200
    answer = server.call("POST", f"{server.transit}/keys/{name}/trim", {"min_available_version": 3})
    expected = "minimum available version cannot be greater than minmum encryption version"
    assert (answer.status, answer.errors) == (400, [expected])


def test_delete(server: ContractServer) -> None:
    name = server.key()
    path = f"{server.transit}/keys/{name}"
    answer = server.call("DELETE", path)
    assert answer.status == 400
    assert answer.errors[0].startswith(f"error deleting policy {name}: deletion is not allowed for this key")
    assert server.configure(name, deletion_allowed=True).data["deletion_allowed"] is True
    answer = server.call("DELETE", path)
    assert (answer.status, answer.body) == (204, {})
    answer = server.call("DELETE", path)
    assert answer.status == 400
    assert "could not delete key; not found" in answer.errors[0]


def test_a_recreated_name_counts_from_1_and_does_not_open_what_was(server: ContractServer) -> None:
    name = server.key()
    server.rotate(name)
    old = server.encrypt(name, key_version=1).data["ciphertext"]
    server.configure(name, deletion_allowed=True)
    server.done("DELETE", f"{server.transit}/keys/{name}")
    server.done("POST", f"{server.transit}/keys/{name}", DERIVED)
    assert _read(server, name)["latest_version"] == 1
    assert server.decrypt(name, old).errors == ["cipher: message authentication failed"]


def test_soft_delete_and_restore(server: ContractServer) -> None:
    if not server.flavour.has_soft_delete:
        assert server.call("DELETE", f"{server.transit}/keys/{server.key()}/soft-delete").status == 404
        return
    name = server.key()
    path, ciphertext = f"{server.transit}/keys/{name}", server.ciphertexts(name, 1)[0]
    assert server.call("DELETE", f"{path}/soft-delete").status == 200
    assert _read(server, name)["soft_deleted"] is True
    for answer in (server.encrypt(name), server.decrypt(name, ciphertext), server.rewrap(name, ciphertext)):
        assert (answer.status, answer.errors) == (400, ["refusing to use soft-deleted key"])
    assert server.call("POST", f"{path}/rotate").status == 500
    assert server.configure(name, min_encryption_version=0).status == 200
    assert name in server.call("LIST", f"{server.transit}/keys").data["keys"]
    assert server.call("POST", path, DERIVED).data["soft_deleted"] is True
    assert server.call("POST", f"{path}/soft-delete-restore").status == 200
    assert server.decrypt(name, ciphertext).data["plaintext"] == DEK


def test_restoring_a_missing_key_is_a_204(server: ContractServer) -> None:
    path = f"{server.transit}/keys/{server.fresh('missing')}/soft-delete-restore"
    assert server.call("POST", path).status == (204 if server.flavour.has_soft_delete else 404)


def test_export_of_what_is_not_exportable(server: ContractServer) -> None:
    answer = server.call("GET", f"{server.transit}/export/encryption-key/{server.key()}")
    assert (answer.status, answer.errors) == (400, ["private key material is not exportable"])
    assert server.call("GET", f"{server.transit}/export/encryption-key/{server.fresh('missing')}").status == 404


def test_the_switches_of_export_and_backup_go_one_way(server: ContractServer) -> None:
    name = server.key()
    assert server.configure(name, exportable=True, allow_plaintext_backup=True).status == 200
    answer = server.configure(name, exportable=False, allow_plaintext_backup=False)
    assert answer.status == 200
    assert (answer.data["exportable"], answer.data["allow_plaintext_backup"]) == (True, True)


def test_backup_and_restore(server: ContractServer) -> None:
    name = server.key()
    answer = server.call("GET", f"{server.transit}/backup/{name}")
    assert answer.status == 500
    assert "exporting is disallowed on the policy" in answer.errors[0]
    ciphertext = server.ciphertexts(name, 1)[0]
    server.configure(name, exportable=True, allow_plaintext_backup=True)
    backup = server.call("GET", f"{server.transit}/backup/{name}").data["backup"]
    answer = server.call("POST", f"{server.transit}/restore/{name}", {"backup": backup})
    assert answer.status == 500
    assert f'key "{name}" already exists' in answer.errors[0]
    assert server.call("POST", f"{server.transit}/restore/{name}", {"backup": backup, "force": True}).status == 204
    other = server.fresh("restored")
    assert server.call("POST", f"{server.transit}/restore/{other}", {"backup": backup}).status == 204
    assert server.decrypt(other, ciphertext).data["plaintext"] == DEK


def test_an_automatic_rotation_of_less_than_an_hour_is_refused(server: ContractServer) -> None:
    assert server.configure(server.key(), auto_rotate_period="59m").status == 400
    assert server.configure(server.key(), auto_rotate_period="1h").data["auto_rotate_period"] == 3600


def test_the_cache_size_is_unlimited(server: ContractServer) -> None:
    assert server.call("GET", f"{server.transit}/cache-config").data["size"] == 0


@pytest.mark.parametrize(
    "parameter", [{"min_decryption_version": "x"}, {"min_decryption_version": 1.5}, {"deletion_allowed": "yes"}]
)
def test_a_parameter_of_another_type(server: ContractServer, parameter: dict[str, Any]) -> None:
    answer = server.configure(server.key(), **parameter)
    assert answer.status == 400
    assert f'error converting input for field "{next(iter(parameter))}"' in answer.errors[0]


def test_a_version_beyond_64_bits_is_no_version(server: ContractServer) -> None:
    answer = server.decrypt(server.key(), "vault:v99999999999999999999:AAAA")
    assert (answer.status, answer.errors) == (400, ["invalid ciphertext: version number could not be decoded"])


def test_truth_values_may_be_strings(server: ContractServer) -> None:
    assert _read(server, server.key(derived="true"))["derived"] is True


def test_the_context_of_a_ciphertext_is_not_base64_of_the_same_bytes(server: ContractServer) -> None:
    """Two spellings of the same context are the same context."""
    name = server.key()
    spelled = base64.b64encode(base64.b64decode(CONTEXT)).decode() + "\n"
    assert server.decrypt(name, server.encrypt(name).data["ciphertext"], context=spelled).data["plaintext"] == DEK
