"""Tokens and response wrapping: vault-measured section 3."""

from __future__ import annotations

from typing import Any

import pytest
from vault_contract import CONTEXT, DEK, ContractServer
from vault_doubles import VaultAnswer

SELF = """
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
"""
WRAPPING_GONE = "wrapping token is not valid or does not exist"


def _make(server: ContractServer, **settings: Any) -> dict[str, Any]:
    wished = {"policies": [server.write_policy(SELF)], "no_default_policy": True, "ttl": "10m", **settings}
    return dict(server.done("POST", "auth/token/create", wished).body["auth"])


def _look_up(server: ContractServer, token: str) -> VaultAnswer:
    return server.call("GET", "auth/token/lookup-self", token=token)


def test_a_created_token(server: ContractServer) -> None:
    auth = _make(server, ttl="10m", display_name="suite", meta={"a": "b"})
    assert set(auth) >= {
        "client_token",
        "accessor",
        "policies",
        "token_policies",
        "metadata",
        "lease_duration",
        "renewable",
        "entity_id",
        "token_type",
        "orphan",
        "mfa_requirement",
        "num_uses",
    }
    assert auth["client_token"].startswith(server.flavour.token_prefix)
    assert (auth["token_type"], auth["renewable"], auth["lease_duration"]) == ("service", True, 600)


def test_lookup_self(server: ContractServer) -> None:
    token = _make(server, ttl="10m", meta={"a": "b"})["client_token"]
    data = _look_up(server, token).data
    assert set(data) >= {
        "accessor",
        "creation_time",
        "creation_ttl",
        "display_name",
        "entity_id",
        "expire_time",
        "explicit_max_ttl",
        "id",
        "issue_time",
        "meta",
        "num_uses",
        "orphan",
        "path",
        "policies",
        "renewable",
        "ttl",
        "type",
    }
    assert data["id"] == token
    assert (data["creation_ttl"], data["meta"], data["path"]) == (600, {"a": "b"}, "auth/token/create")
    assert 0 < data["ttl"] <= 600
    assert "period" not in data


@pytest.mark.parametrize(("no_default", "has_default"), [(True, False), (False, True)])
def test_the_default_policy(server: ContractServer, no_default: bool, has_default: bool) -> None:
    assert ("default" in _make(server, no_default_policy=no_default)["policies"]) is has_default


def test_an_expired_token_is_dead(server: ContractServer) -> None:
    token = _make(server, ttl="1s")["client_token"]
    server.let_pass(1.0)
    server.until(lambda: _look_up(server, token).status == 403)
    for answer in (_look_up(server, token), server.call("POST", "auth/token/renew-self", token=token)):
        assert (answer.status, tuple(answer.errors)) == (403, server.flavour.dead_token_errors)


def test_a_periodic_token_returns_to_its_period(server: ContractServer) -> None:
    auth = _make(server, period="10m", ttl=None)
    assert auth["lease_duration"] == 600
    data = _look_up(server, auth["client_token"]).data
    assert data["period"] == 600
    server.let_pass(1.0)
    answer = server.call("POST", "auth/token/renew-self", token=auth["client_token"])
    assert (answer.status, answer.body["auth"]["lease_duration"]) == (200, 600)


def test_an_explicit_maximum_caps_a_renewal_with_a_warning(server: ContractServer) -> None:
    token = _make(server, ttl="5m", explicit_max_ttl="10m")["client_token"]
    answer = server.call("POST", "auth/token/renew-self", {"increment": "1h"}, token=token)
    assert answer.status == 200
    assert "exceeded the effective max_ttl" in answer.body["warnings"][0]
    assert 0 < answer.body["auth"]["lease_duration"] <= 600


def test_a_batch_token_cannot_be_renewed(server: ContractServer) -> None:
    token = _make(server, type="batch")["client_token"]
    assert token.startswith("b." if server.flavour.name == "openbao" else "hvb.")
    answer = server.call("POST", "auth/token/renew-self", token=token)
    assert (answer.status, answer.errors) == (400, ["batch tokens cannot be renewed"])


def test_a_number_of_uses(server: ContractServer) -> None:
    token = _make(server, num_uses=2)["client_token"]
    statuses = [_look_up(server, token).status for _ in range(3)]
    assert statuses == [200, 200, 403]


def test_revoke_self(server: ContractServer) -> None:
    token = _make(server)["client_token"]
    assert server.call("POST", "auth/token/revoke-self", token=token).status == 204
    assert _look_up(server, token).status == 403


def test_revoke_by_accessor(server: ContractServer) -> None:
    auth = _make(server)
    assert server.call("POST", "auth/token/revoke-accessor", {"accessor": auth["accessor"]}).status == 204
    answer = _look_up(server, auth["client_token"])
    assert (answer.status, tuple(answer.errors)) == (403, server.flavour.dead_token_errors)


def test_a_lookup_by_accessor_hides_the_token(server: ContractServer) -> None:
    auth = _make(server)
    data = server.call("POST", "auth/token/lookup-accessor", {"accessor": auth["accessor"]}).data
    assert (data["accessor"], data["id"]) == (auth["accessor"], "")


def test_an_accessor_that_is_not_there(server: ContractServer) -> None:
    """Looking up is a mistake, revoking is done already."""
    answer = server.call("POST", "auth/token/lookup-accessor", {"accessor": "missing"})
    assert (answer.status, answer.errors) == (400, ["1 error occurred:\n\t* invalid accessor\n\n"])
    answer = server.call("POST", "auth/token/revoke-accessor", {"accessor": "missing"})
    assert (answer.status, answer.body["warnings"]) == (200, ["No token found with this accessor"])


@pytest.mark.parametrize(
    "settings", [{"ttl": "abc"}, {"num_uses": -1}, {"type": "odd"}, {"type": "batch", "period": "1h"}, {"meta": "x"}]
)
def test_a_token_that_cannot_be(server: ContractServer, settings: dict[str, Any]) -> None:
    assert server.call("POST", "auth/token/create", {"policies": ["default"], **settings}).status == 400


def test_another_token_that_is_not_there(server: ContractServer) -> None:
    """Renewing is a mistake, looking up is forbidden, revoking is done already."""
    statuses = [
        server.call("POST", f"auth/token/{verb}", {"token": "missing"}).status for verb in ("renew", "lookup", "revoke")
    ]
    assert statuses == [400, 403, 204]


def test_wrapping_must_be_asked_for(server: ContractServer) -> None:
    answer = server.call("POST", "sys/wrapping/wrap", {"a": "b"})
    assert (answer.status, answer.errors) == (400, ["endpoint requires response wrapping to be used"])


def test_children_die_with_their_parent(server: ContractServer) -> None:
    policy = server.write_policy(SELF + 'path "auth/token/create" { capabilities = ["update"] }')
    wished = {"policies": [policy], "no_default_policy": True}
    parent = server.done("POST", "auth/token/create", wished).body["auth"]["client_token"]
    child = server.call("POST", "auth/token/create", wished, token=parent).body["auth"]["client_token"]
    assert _look_up(server, child).status == 200
    assert server.call("POST", "auth/token/revoke-self", token=parent).status == 204
    server.until(lambda: _look_up(server, child).status == 403)


def test_a_child_gets_no_policy_that_its_parent_lacks(server: ContractServer) -> None:
    policy = server.write_policy('path "auth/token/create" { capabilities = ["update"] }')
    other = server.write_policy(SELF)
    wished = {"policies": [policy], "no_default_policy": True}
    parent = server.done("POST", "auth/token/create", wished).body["auth"]["client_token"]
    answer = server.call("POST", "auth/token/create", {"policies": [other]}, token=parent)
    assert (answer.status, answer.errors) == (400, ["child policies must be subset of parent"])


def test_a_bearer_header_works(server: ContractServer) -> None:
    token = _make(server)["client_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert server.call("GET", "auth/token/lookup-self", token="", headers=headers).data["id"] == token


def _wrapped(server: ContractServer, ttl: str = "60s") -> dict[str, Any]:
    answer = server.call("GET", f"{server.transit}/keys/{server.key()}", headers={"X-Vault-Wrap-TTL": ttl})
    assert answer.status == 200
    assert answer.body["data"] is None
    return dict(answer.body["wrap_info"])


def test_a_wrapped_answer_opens_once(server: ContractServer) -> None:
    info = _wrapped(server)
    assert set(info) >= {"token", "accessor", "ttl", "creation_time", "creation_path"}
    assert info["ttl"] == 60
    assert info["creation_path"].startswith(f"{server.transit}/keys/")
    opened = server.call("POST", "sys/wrapping/unwrap", token=info["token"])
    assert opened.data["type"] == "aes256-gcm96"
    again = server.call("POST", "sys/wrapping/unwrap", token=info["token"])
    assert (again.status, again.errors) == (400, [WRAPPING_GONE])


def test_a_wrapping_token_may_stand_in_the_body(server: ContractServer) -> None:
    info = _wrapped(server)
    assert server.call("POST", "sys/wrapping/unwrap", {"token": info["token"]}).data["type"] == "aes256-gcm96"


def test_looking_up_a_wrapping_token_needs_no_token_and_uses_nothing_up(server: ContractServer) -> None:
    info = _wrapped(server)
    for _ in range(2):
        answer = server.call("POST", "sys/wrapping/lookup", {"token": info["token"]}, token="")
        assert set(answer.data) == {"creation_path", "creation_time", "creation_ttl"}
        assert (answer.data["creation_path"], answer.data["creation_ttl"]) == (info["creation_path"], 60)
    assert server.call("POST", "sys/wrapping/unwrap", token=info["token"]).status == 200
    answer = server.call("POST", "sys/wrapping/lookup", {"token": info["token"]}, token="")
    assert (answer.status, answer.errors) == (400, [WRAPPING_GONE])


def test_an_expired_wrapping_token_is_gone(server: ContractServer) -> None:
    token = _wrapped(server, "1s")["token"]
    server.let_pass(1.0)
    server.until(lambda: server.call("POST", "sys/wrapping/lookup", {"token": token}, token="").status == 400)
    answer = server.call("POST", "sys/wrapping/unwrap", token=token)
    assert (answer.status, answer.errors) == (400, [WRAPPING_GONE])


def test_a_forged_wrapping_shows_where_it_was_made(server: ContractServer) -> None:
    answer = server.call("POST", "sys/wrapping/wrap", {"secret_id": "forged"}, headers={"X-Vault-Wrap-TTL": "60s"})
    info = answer.body["wrap_info"]
    assert info["creation_path"] == "sys/wrapping/wrap"
    assert server.call("POST", "sys/wrapping/unwrap", token=info["token"]).data == {"secret_id": "forged"}


def test_a_wrapping_token_opens_nothing_else(server: ContractServer) -> None:
    info = _wrapped(server)
    path = f"{server.transit}/encrypt/{server.key()}"
    assert server.call("POST", path, {"plaintext": DEK, "context": CONTEXT}, token=info["token"]).status == 403
