"""AppRole and JWT: vault-measured sections 1.10, 3 and 6.4."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from vault_contract import ContractServer
from vault_doubles import VaultAnswer

WRONG = ["invalid role or secret ID"]


def _role(server: ContractServer, **settings: Any) -> tuple[str, str]:
    """A new role's name and id."""
    name = server.fresh("role")
    policy = server.write_policy('path "auth/token/lookup-self" { capabilities = ["read"] }')
    wished = {"token_policies": [policy], "token_no_default_policy": True, "token_period": "1h", **settings}
    server.done("POST", f"{server.approle}/role/{name}", wished)
    return name, str(server.call("GET", f"{server.approle}/role/{name}/role-id").data["role_id"])


def _secret_id(server: ContractServer, role: str) -> str:
    return str(server.call("POST", f"{server.approle}/role/{role}/secret-id").data["secret_id"])


def _log_in(server: ContractServer, role_id: str, secret_id: str) -> VaultAnswer:
    return server.call("POST", f"{server.approle}/login", {"role_id": role_id, "secret_id": secret_id}, token="")


def test_a_login(server: ContractServer) -> None:
    role, role_id = _role(server)
    answer = _log_in(server, role_id, _secret_id(server, role))
    assert answer.status == 200
    assert (answer.body["data"], answer.body["wrap_info"], answer.body["warnings"]) == (None, None, None)
    auth = answer.body["auth"]
    assert auth["metadata"] == {"role_name": role}
    assert (auth["lease_duration"], auth["renewable"], auth["token_type"]) == (3600, True, "service")
    assert (auth["orphan"], auth["mfa_requirement"], auth["num_uses"]) == (True, None, 0)
    assert "default" not in auth["policies"]
    looked_up = server.call("GET", "auth/token/lookup-self", token=auth["client_token"]).data
    assert (looked_up["period"], looked_up["path"]) == (3600, f"{server.approle}/login")


def test_a_role_is_returned(server: ContractServer) -> None:
    role, _ = _role(server, secret_id_num_uses=1, secret_id_ttl="10m")
    data = server.call("GET", f"{server.approle}/role/{role}").data
    assert (data["secret_id_num_uses"], data["secret_id_ttl"], data["token_period"]) == (1, 600, 3600)
    assert (data["token_no_default_policy"], data["bind_secret_id"]) == (True, True)


def test_a_secret_id_is_described(server: ContractServer) -> None:
    role, _ = _role(server, secret_id_num_uses=1, secret_id_ttl="10m")
    data = server.call("POST", f"{server.approle}/role/{role}/secret-id").data
    assert set(data) == {"secret_id", "secret_id_accessor", "secret_id_num_uses", "secret_id_ttl"}
    assert (data["secret_id_num_uses"], data["secret_id_ttl"]) == (1, 600)


def test_a_wrong_secret_id_and_an_unknown_role_look_alike(server: ContractServer) -> None:
    role, role_id = _role(server)
    wrong = _log_in(server, role_id, "wrong")
    unknown = _log_in(server, "00000000-0000-0000-0000-000000000000", _secret_id(server, role))
    assert (wrong.status, wrong.errors) == (unknown.status, unknown.errors) == (400, WRONG)


def test_a_single_use_secret_id_is_spent(server: ContractServer) -> None:
    role, role_id = _role(server, secret_id_num_uses=1)
    secret_id = _secret_id(server, role)
    assert _log_in(server, role_id, secret_id).status == 200
    again = _log_in(server, role_id, secret_id)
    assert (again.status, again.errors) == (400, WRONG)


def test_an_expired_secret_id_is_refused_once_it_is_swept_away(server: ContractServer) -> None:
    """Only the sweep of each minute ends it: until then it still logs in, whatever its TTL says."""
    role, role_id = _role(server, secret_id_ttl="1s")
    secret_id = _secret_id(server, role)
    server.let_pass(1.5)
    assert server.call("POST", f"{server.approle}/tidy/secret-id").status == 202
    lookup = f"{server.approle}/role/{role}/secret-id/lookup"
    server.until(lambda: server.call("POST", lookup, {"secret_id": secret_id}).status == 204)
    answer = _log_in(server, role_id, secret_id)
    assert (answer.status, answer.errors) == (400, WRONG)


def test_a_wrapped_secret_id(server: ContractServer) -> None:
    role, role_id = _role(server, secret_id_num_uses=1)
    answer = server.call("POST", f"{server.approle}/role/{role}/secret-id", headers={"X-Vault-Wrap-TTL": "60s"})
    info = answer.body["wrap_info"]
    assert info["creation_path"] == f"{server.approle}/role/{role}/secret-id"
    opened = server.call("POST", "sys/wrapping/unwrap", token=info["token"]).data
    assert info["wrapped_accessor"] == opened["secret_id_accessor"]
    assert _log_in(server, role_id, opened["secret_id"]).status == 200


def test_a_role_bound_to_other_addresses_logs_in_and_may_do_nothing(server: ContractServer) -> None:
    role, role_id = _role(server, token_bound_cidrs=["192.0.2.0/24"])
    token = _log_in(server, role_id, _secret_id(server, role)).body["auth"]["client_token"]
    assert server.call("GET", "auth/token/lookup-self", token=token).status == 403


def test_five_wrong_secret_ids_lock_the_role(server: ContractServer) -> None:
    """Also for the right one, which then gets what looks like a dead token's answer."""
    role, role_id = _role(server)
    secret_id = _secret_id(server, role)
    for _ in range(5):
        assert _log_in(server, role_id, "wrong").status == 400
    locked = _log_in(server, role_id, secret_id)
    assert (locked.status, locked.errors) == (403, ["permission denied"])
    mounts = server.call("GET", "sys/auth").data
    accessor = mounts[server.approle.removeprefix("auth/") + "/"]["accessor"]
    assert server.call("POST", f"sys/locked-users/{accessor}/unlock/{role_id}").status == 204
    assert _log_in(server, role_id, secret_id).status == 200


def test_a_mount_may_switch_the_lockout_off(server: ContractServer) -> None:
    path = server.mount_auth("approle", "unlockable").removeprefix("auth/")
    tuned = server.call("POST", f"sys/auth/{path}/tune", {"user_lockout_config": {"lockout_disable": True}})
    assert tuned.status == 204
    server.done("POST", f"auth/{path}/role/r", {"token_policies": ["default"]})
    role_id = server.call("GET", f"auth/{path}/role/r/role-id").data["role_id"]
    secret_id = server.call("POST", f"auth/{path}/role/r/secret-id").data["secret_id"]
    for _ in range(12):
        answer = server.call("POST", f"auth/{path}/login", {"role_id": role_id, "secret_id": "wrong"}, token="")
        assert answer.status == 400
    right = server.call("POST", f"auth/{path}/login", {"role_id": role_id, "secret_id": secret_id}, token="")
    assert right.status == 200


def test_the_lockouts_tuning_is_returned(server: ContractServer) -> None:
    path = server.mount_auth("approle", "tuned")
    tune = f"sys/{path}/tune"
    assert "user_lockout_disable" not in server.call("GET", tune).data
    server.done("POST", tune, {"user_lockout_config": {"lockout_disable": True}})
    data = server.call("GET", tune).data
    assert (data["user_lockout_disable"], data["token_type"]) == (True, "default-service")
    assert (data["default_lease_ttl"], data["max_lease_ttl"]) == (2764800, 2764800)
    assert server.call("GET", f"sys/{path}").data["type"] == "approle"


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"secret_id_num_uses": -1}, 400),
        ({"token_type": "odd"}, 400),
        ({"token_bound_cidrs": "nowhere"}, 400),
        ({"token_ttl": "2h", "token_max_ttl": "1h"}, 400),
        ({"token_type": "batch", "token_period": "1h"}, 400),
        ({"token_ttl": "abc"}, 400),
        ({"bind_secret_id": False}, 500),
    ],
)
def test_a_role_that_cannot_be(server: ContractServer, settings: dict[str, Any], status: int) -> None:
    assert server.call("POST", f"{server.approle}/role/{server.fresh('odd')}", settings).status == status


def test_no_login_gives_a_root_token(server: ContractServer) -> None:
    """The role may be written; it cannot be used."""
    role, role_id = _role(server, token_policies=["root"])
    answer = _log_in(server, role_id, _secret_id(server, role))
    assert (answer.status, answer.errors) == (400, ["auth methods cannot create root tokens"])


def test_a_login_without_a_role_or_a_secret_id(server: ContractServer) -> None:
    _, role_id = _role(server)
    answer = server.call("POST", f"{server.approle}/login", {}, token="")
    assert (answer.status, answer.errors) == (500, ["missing role_id"])
    answer = server.call("POST", f"{server.approle}/login", {"role_id": role_id}, token="")
    assert (answer.status, answer.errors) == (400, ["missing secret_id"])


def test_a_jwt_role_must_say_that_it_is_one(server: ContractServer) -> None:
    body = {"user_claim": "sub", "bound_subject": "a"}
    assert server.call("POST", f"{server.jwt}/role/{server.fresh('odd')}", body).status == 400


def test_a_secret_id_of_a_role_that_is_not_there(server: ContractServer) -> None:
    name = server.fresh("missing")
    answer = server.call("POST", f"{server.approle}/role/{name}/secret-id")
    assert (answer.status, answer.errors) == (404, [f'role "{name}" does not exist'])


Sign = Callable[..., str]


@pytest.fixture(scope="module")
def sign(server: ContractServer) -> Sign:
    """Configures the JWT method with an ES384 key and gives the signer."""
    key = ec.generate_private_key(ec.SECP384R1())
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    server.done("POST", f"{server.jwt}/config", {"jwt_validation_pubkeys": [pem.decode()]})

    def sign_claims(signer: ec.EllipticCurvePrivateKey = key, **claims: Any) -> str:
        now = int(time.time())
        body = {"sub": "arn:kms", "aud": "cluster-1", "iat": now, "exp": now + 3600, **claims}
        text = ".".join(map(_encode, (json.dumps({"alg": "ES384", "typ": "JWT"}), json.dumps(body))))
        numbers = decode_dss_signature(signer.sign(text.encode(), ec.ECDSA(hashes.SHA384())))
        return f"{text}.{_encode(b''.join(number.to_bytes(48) for number in numbers))}"

    return sign_claims


def _encode(part: str | bytes) -> str:
    raw = part.encode() if isinstance(part, str) else part
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def jwt_role(server: ContractServer) -> str:
    name = server.fresh("role")
    policy = server.write_policy('path "auth/token/lookup-self" { capabilities = ["read"] }')
    role = {
        "role_type": "jwt",
        "bound_audiences": ["cluster-1"],
        "bound_subject": "arn:kms",
        "user_claim": "sub",
        "token_policies": [policy],
        "token_no_default_policy": True,
        "token_period": "1h",
    }
    server.done("POST", f"{server.jwt}/role/{name}", role)
    return name


def _log_in_with(server: ContractServer, role: str, jwt: str) -> VaultAnswer:
    return server.call("POST", f"{server.jwt}/login", {"role": role, "jwt": jwt}, token="")


def test_a_jwt_logs_in_and_replays(server: ContractServer, jwt_role: str, sign: Sign) -> None:
    jwt = sign()
    for _ in range(2):
        answer = _log_in_with(server, jwt_role, jwt)
        assert answer.status == 200
        auth = answer.body["auth"]
        assert (auth["lease_duration"], auth["renewable"]) == (3600, True)
        assert auth["metadata"]["role"] == jwt_role
    assert server.call("GET", "auth/token/lookup-self", token=auth["client_token"]).status == 200


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"sub": "arn:other"}, "invalid subject (sub) claim"),
        ({"aud": "cluster-2"}, "invalid audience (aud) claim"),
        ({"iat": 1_000_000, "exp": 1_000_060}, "token is expired"),
    ],
)
def test_a_jwt_with_other_claims(
    server: ContractServer, jwt_role: str, sign: Sign, claims: dict[str, Any], words: str
) -> None:
    answer = _log_in_with(server, jwt_role, sign(**claims))
    assert answer.status == 400
    assert answer.errors[0].startswith("error validating token: ")
    assert words in answer.errors[0]


def test_a_jwt_of_another_key(server: ContractServer, jwt_role: str, sign: Sign) -> None:
    answer = _log_in_with(server, jwt_role, sign(ec.generate_private_key(ec.SECP384R1())))
    assert answer.status == 400
    assert answer.errors[0].startswith("error validating token: ")


def test_an_unknown_jwt_role(server: ContractServer, sign: Sign) -> None:
    assert _log_in_with(server, server.fresh("missing"), sign()).status == 400


def test_a_login_method_that_is_not_built_in(server: ContractServer) -> None:
    path = server.named("aws")
    answer = server.call("POST", f"sys/auth/{path}", {"type": "aws"})
    server.undo_later("DELETE", f"sys/auth/{path}")
    if server.flavour.has_aws_auth:
        assert answer.status == 204
    else:
        assert answer.status == 400
        assert "plugin not found in the catalog: aws" in answer.errors[0]
