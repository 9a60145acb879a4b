"""What a policy lets through: patterns, parameters, capabilities-self and the two texts of a 403."""

from __future__ import annotations

from typing import Any

import pytest
from vault_contract import CONTEXT, DEK, DERIVED, ContractServer

ADMIN = """
path "{transit}/keys/+" {
  capabilities = ["read", "update"]
  required_parameters = ["type", "derived"]
  allowed_parameters = {
    "type" = ["aes256-gcm96"]
    "derived" = [true]
    "exportable" = [false]
    "allow_plaintext_backup" = [false]
  }
}
path "{transit}/keys/+/config" {
  capabilities = ["update"]
  denied_parameters = { "exportable" = [] "allow_plaintext_backup" = [] }
}
"""


@pytest.fixture(scope="module")
def admin(server: ContractServer) -> str:
    return server.token_for(ADMIN)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"type": "aes256-gcm96"},
        {"derived": True},
        {"type": "aes128-gcm96", "derived": True},
        {"type": "aes256-gcm96", "derived": False},
        {"type": "aes256-gcm96", "derived": "true"},
        {"type": "aes256-gcm96", "derived": 1},
        {"type": "aes256-gcm96", "derived": True, "exportable": True},
        {"type": "aes256-gcm96", "derived": True, "Exportable": True},
        {"type": "aes256-gcm96", "derived": True, "auto_rotate_period": "2h"},
        {"type": "aes256-gcm96", "derived": True, "Type": "aes128-gcm96"},
    ],
)
def test_parameters_that_an_administrator_may_not_send(server: ContractServer, admin: str, body: Any) -> None:
    answer = server.call("POST", f"{server.transit}/keys/{server.fresh('no')}", body, token=admin)
    assert (answer.status, tuple(answer.errors)) == (403, server.flavour.no_policy_errors)


@pytest.mark.parametrize("body", [DERIVED, {"type": "aes256-gcm96", "derived": True}])
def test_parameters_that_an_administrator_may_send(server: ContractServer, admin: str, body: Any) -> None:
    assert server.call("POST", f"{server.transit}/keys/{server.fresh('yes')}", body, token=admin).status == 200


def test_allowed_parameters_alone_do_not_make_them_present(server: ContractServer) -> None:
    token = server.token_for(
        'path "{transit}/keys/+" { capabilities = ["update"] allowed_parameters = { "derived" = [true] } }'
    )
    answer = server.call("POST", f"{server.transit}/keys/{server.fresh('loose')}", {}, token=token)
    assert answer.data["derived"] is False


@pytest.mark.parametrize("name", ["exportable", "Exportable", "allow_plaintext_backup"])
def test_denied_parameters(server: ContractServer, admin: str, name: str) -> None:
    path = f"{server.transit}/keys/{server.key()}/config"
    assert server.call("POST", path, {name: True}, token=admin).status == 403
    assert server.call("POST", path, {"deletion_allowed": True}, token=admin).status == 200


def test_a_holder_of_config_may_switch_export_on_unless_denied(server: ContractServer) -> None:
    token = server.token_for('path "{transit}/keys/+/config" { capabilities = ["update"] }')
    path = f"{server.transit}/keys/{server.key()}/config"
    assert server.call("POST", path, {"exportable": True}, token=token).data["exportable"] is True


def test_creating_a_key_is_an_update(server: ContractServer) -> None:
    token = server.token_for('path "{transit}/keys/+" { capabilities = ["create"] }')
    path = f"{server.transit}/keys/{server.fresh('no')}"
    assert server.call("POST", path, DERIVED, token=token).status == 403


def test_plus_is_one_segment(server: ContractServer) -> None:
    token = server.token_for('path "{transit}/keys/+" { capabilities = ["update"] }')
    path = f"{server.transit}/keys/{server.key()}"
    assert server.call("POST", path, {}, token=token).status == 200
    for deeper in ("rotate", "config", "trim", "import"):
        assert server.call("POST", f"{path}/{deeper}", {}, token=token).status == 403


def test_a_trailing_star_reaches_across_slashes(server: ContractServer) -> None:
    name = server.key()
    token = server.token_for('path "{transit}/keys/key-*" { capabilities = ["update"] }')
    assert server.call("POST", f"{server.transit}/keys/{name}/rotate", {}, token=token).status == 200
    assert server.call("POST", f"{server.transit}/keys/{server.fresh('other')}", DERIVED, token=token).status == 403


def test_deny_wins_at_its_own_path(server: ContractServer) -> None:
    name = server.key()
    policies = [
        server.write_policy('path "{transit}/encrypt/+" { capabilities = ["update"] }'),
        server.write_policy('path "{transit}/encrypt/+" { capabilities = ["deny"] }'),
    ]
    wished = {"policies": policies, "no_default_policy": True}
    token = server.done("POST", "auth/token/create", wished).body["auth"]["client_token"]
    assert server.use("encrypt", name, {"plaintext": DEK, "context": CONTEXT}, token).status == 403


def test_the_more_exact_path_wins(server: ContractServer) -> None:
    open_name, closed_name = server.key(), server.key()
    token = server.token_for(
        f'path "{{transit}}/encrypt/{closed_name}" {{ capabilities = ["deny"] }}\n'
        'path "{transit}/encrypt/+" { capabilities = ["update"] }\n'
        'path "{transit}/*" { capabilities = ["deny"] }'
    )
    body = {"plaintext": DEK, "context": CONTEXT}
    assert server.use("encrypt", open_name, body, token).status == 200
    assert server.use("encrypt", closed_name, body, token).status == 403
    assert server.use("decrypt", open_name, {"ciphertext": "x"}, token).status == 403


def test_listing_needs_the_list_capability(server: ContractServer) -> None:
    server.key()
    lister = server.token_for('path "{transit}/keys" { capabilities = ["list"] }')
    reader = server.token_for('path "{transit}/keys" { capabilities = ["read"] }')
    assert server.call("LIST", f"{server.transit}/keys", token=lister).status == 200
    assert server.call("LIST", f"{server.transit}/keys", token=reader).status == 403


def test_capabilities_self(server: ContractServer) -> None:
    token = server.token_for(
        'path "{transit}/decrypt/+" { capabilities = ["update"] }\n'
        'path "{transit}/keys/+" { capabilities = ["read", "update"] }\n'
        'path "sys/capabilities-self" { capabilities = ["update"] }'
    )
    granted, both, denied = f"{server.transit}/decrypt/z", f"{server.transit}/keys/z", f"{server.transit}/export/x/z"
    answer = server.call("POST", "sys/capabilities-self", {"paths": [granted, both, denied]}, token=token)
    expected = {granted: ["update"], both: ["read", "update"], denied: ["deny"]}
    assert answer.status == 200
    assert {path: sorted(found) for path, found in answer.data.items()} == expected
    assert {path: sorted(answer.body[path]) for path in expected} == expected


def test_capabilities_of_the_suites_own_token_are_root_or_more(server: ContractServer) -> None:
    found = server.call("POST", "sys/capabilities-self", {"paths": ["sys/mounts"]}).data["sys/mounts"]
    assert found == ["root"] or "read" in found


@pytest.mark.parametrize("token", ["", "s.doesnotexist0000000000"])
def test_no_token_and_a_dead_one_look_alike(server: ContractServer, token: str) -> None:
    answer = server.call("GET", f"{server.transit}/keys/{server.key()}", token=token)
    assert (answer.status, tuple(answer.errors)) == (403, server.flavour.dead_token_errors)


def test_a_token_without_policy_gets_another_text(server: ContractServer) -> None:
    token = server.token_for('path "{transit}/keys/+" { capabilities = ["read"] }')
    answer = server.encrypt(server.key())
    assert answer.status == 200
    answer = server.use("encrypt", server.key(), {"plaintext": DEK, "context": CONTEXT}, token)
    assert (answer.status, tuple(answer.errors)) == (403, server.flavour.no_policy_errors)


def test_reading_by_a_writing_path(server: ContractServer) -> None:
    """405 for one who may everything, 403 for one who may not read."""
    name = server.key()
    token = server.token_for('path "{transit}/encrypt/+" { capabilities = ["update"] }')
    assert server.call("GET", f"{server.transit}/encrypt/{name}").status == 405
    assert server.call("GET", f"{server.transit}/encrypt/{name}", token=token).status == 403


def test_a_policy_is_returned_as_written(server: ContractServer) -> None:
    text = f'path "{server.transit}/keys/+" {{ capabilities = ["read"] }} # a comment'
    name = server.write_policy(text)
    data = server.call("GET", f"sys/policies/acl/{name}").data
    assert (data["name"], data["policy"]) == (name, text)
    assert name in server.call("LIST", "sys/policies/acl").data["keys"]
    assert server.call("DELETE", f"sys/policies/acl/{name}").status == 204
    assert server.call("GET", f"sys/policies/acl/{name}").status == 404


@pytest.mark.parametrize(
    "text", ['path "x" { capabilities = ["fly"] }', 'path "x" { colour = "red" }', 'path "x" { capabilities = [']
)
def test_a_policy_that_cannot_be_read_is_refused(server: ContractServer, text: str) -> None:
    name = server.named(server.fresh("policy"))
    answer = server.call("PUT", f"sys/policies/acl/{name}", {"policy": text})
    assert answer.status == 400
    assert answer.errors[0].startswith("failed to parse policy: ")


def test_a_policys_change_takes_effect_at_once(server: ContractServer) -> None:
    text = f'path "{server.transit}/keys/+" {{ capabilities = ["read"] }}'
    name, key = server.write_policy(text), server.key()
    wished = {"policies": [name], "no_default_policy": True}
    token = server.done("POST", "auth/token/create", wished).body["auth"]["client_token"]
    assert server.call("GET", f"{server.transit}/keys/{key}", token=token).status == 200
    server.done("PUT", f"sys/policies/acl/{name}", {"policy": text.replace("read", "list")})
    assert server.call("GET", f"{server.transit}/keys/{key}", token=token).status == 403
