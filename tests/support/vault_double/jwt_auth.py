"""The JWT login method with public keys given in its configuration. A JWT replays until it expires, as on real ones."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from vault_double.backend import NAME, Backend, Call, route
from vault_double.login_roles import TOKEN_FIELDS, TokenParameters
from vault_double.wire import RefusedError, Reply

_LEEWAY_S = 60.0
_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}


@dataclass(frozen=True, slots=True)
class JwtRole:
    """One role."""

    tokens: TokenParameters
    bound_audiences: tuple[str, ...]
    bound_subject: str
    bound_claims: dict[str, Any]
    user_claim: str


class JwtError(Exception):
    """The JWT is not good; the text is the server's."""


def write_config(call: Call) -> None:
    for pem in call.strings("jwt_validation_pubkeys"):
        try:
            serialization.load_pem_public_key(pem.encode())
        except ValueError:
            raise RefusedError(400, "error parsing public key: data does not contain any valid public keys") from None
    if not (call.strings("jwt_validation_pubkeys") or call.text("oidc_discovery_url") or call.text("jwks_url")):
        raise RefusedError(
            400, "exactly one of 'jwt_validation_pubkeys', 'jwks_url' or 'oidc_discovery_url' must be set"
        )
    call.store.put("config", {name: value for name, value in call.data.items() if value is not None})


def read_config(call: Call) -> dict[str, Any] | None:
    config: dict[str, Any] | None = call.store.get("config")
    return config


def write_role(call: Call) -> Reply | None:
    if call.text("role_type", "oidc") != "jwt":
        raise RefusedError(400, "'allowed_redirect_uris' must be set if 'role_type' is 'oidc' or unspecified.")
    claims = call.data.get("bound_claims") or {}
    role = JwtRole(
        TokenParameters().changed_by(call),
        call.strings("bound_audiences"),
        call.text("bound_subject"),
        claims,
        call.text("user_claim"),
    )
    if not role.user_claim:
        raise RefusedError(400, "a user claim must be defined on the role")
    if not (role.bound_audiences or role.bound_subject or claims or role.tokens.bound_cidrs):
        raise RefusedError(400, "must have at least one bound constraint when creating/updating a role")
    call.store.put(f"role/{call.name}", role)
    return None


def read_role(call: Call) -> dict[str, Any] | None:
    role: JwtRole | None = call.store.get(f"role/{call.name}")
    if role is None:
        return None
    return role.tokens.as_data() | {
        "bound_audiences": list(role.bound_audiences) or None,
        "bound_claims": role.bound_claims or None,
        "bound_subject": role.bound_subject,
        "role_type": "jwt",
        "user_claim": role.user_claim,
    }


def list_roles(call: Call) -> dict[str, Any] | None:
    names = call.store.names("role/")
    return {"keys": names} if names else None


def delete_role(call: Call) -> None:
    call.store.delete(f"role/{call.name}")


def log_in(call: Call) -> Reply:
    config, name = call.store.get("config"), call.text("role")
    if config is None:
        raise RefusedError(400, "could not load configuration")
    role: JwtRole | None = call.store.get(f"role/{name}")
    if role is None:
        raise RefusedError(400, f'role "{name}" could not be found')
    try:
        claims = _verified_claims(call.text("jwt"), call.store.get("config").get("jwt_validation_pubkeys") or [])
        _check_claims(claims, role, call.core.clock.now())
    except JwtError as error:
        raise RefusedError(400, f"error validating token: {error}") from None
    user = claims.get(role.user_claim)
    if not isinstance(user, str):
        raise RefusedError(400, f'claim "{role.user_claim}" not found in token')
    token = role.tokens.issue(call, user, {"role": name}, f"jwt-{user}")
    return Reply(auth=token.as_auth(call.core.clock.now()))


def _verified_claims(jwt: str, pems: Any) -> dict[str, Any]:
    keys = pems if isinstance(pems, list) else [pems]
    try:
        head, body, signature = jwt.split(".")
        header, claims, raw = json.loads(_unpadded(head)), json.loads(_unpadded(body)), _unpadded(signature)
    except ValueError:
        raise JwtError("error parsing token: go-jose/go-jose: compact JWS format must have three parts") from None
    for pem in keys:
        if _is_signed_by(pem, header.get("alg", ""), f"{head}.{body}".encode(), raw):
            return dict(claims)
    raise JwtError("no known key successfully validated the token signature")


def _is_signed_by(pem: str, algorithm: str, message: bytes, signature: bytes) -> bool:
    key, hash_of = serialization.load_pem_public_key(pem.encode()), _HASHES.get(algorithm[2:])
    if hash_of is None:
        return False
    try:
        if isinstance(key, ec.EllipticCurvePublicKey) and algorithm.startswith("ES"):
            half = len(signature) // 2
            numbers = (int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
            key.verify(encode_dss_signature(*numbers), message, ec.ECDSA(hash_of()))
            return True
        if isinstance(key, rsa.RSAPublicKey) and algorithm.startswith("RS"):
            key.verify(signature, message, padding.PKCS1v15(), hash_of())
            return True
    except InvalidSignature:
        pass
    return False


def _check_claims(claims: dict[str, Any], role: JwtRole, now: float) -> None:
    expires, not_before = claims.get("exp"), claims.get("nbf")
    if expires is not None and now > expires + _LEEWAY_S:
        raise JwtError("invalid expiration time (exp) claim: token is expired")
    if not_before is not None and now < not_before - _LEEWAY_S:
        raise JwtError("invalid not before (nbf) claim: token not yet valid")
    if role.bound_subject and claims.get("sub") != role.bound_subject:
        raise JwtError("invalid subject (sub) claim")
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience or []
    if audiences and not role.bound_audiences:
        raise JwtError("audience claim found in JWT but no audiences bound to the role")
    if role.bound_audiences and not set(audiences) & set(role.bound_audiences):
        raise JwtError("invalid audience (aud) claim: audience claim does not match any bound audience")
    for name, wanted in role.bound_claims.items():
        if claims.get(name) not in (wanted if isinstance(wanted, list) else [wanted]):
            raise JwtError(f'claim "{name}" does not match any associated bound claim values')


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


JWT = Backend(
    (
        route("config", None, read=read_config, update=write_config),
        route(
            f"role/{NAME}",
            f"name role_type bound_audiences bound_subject bound_claims user_claim {TOKEN_FIELDS}",
            exists=lambda call: call.store.get(f"role/{call.name}") is not None,
            read=read_role,
            update=write_role,
            delete=delete_role,
        ),
        route("role/?", list=list_roles),
        route("login", "role jwt", is_login=True, update=log_in),
    )
)
