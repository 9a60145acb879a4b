"""The AppRole login method: role ids, secret ids with a number of uses and a TTL, and the lockout after five failures.

A role whose id is known can be locked by anybody; a locked one answers 403 to the right secret id too. A secret id
whose TTL is over still logs in until the sweep of the minute has taken it away, or `tidy/secret-id` has.
"""

from __future__ import annotations

import ipaddress
import uuid
from dataclasses import dataclass, replace
from typing import Any

from vault_double.backend import NAME, Backend, Call, route
from vault_double.clock import as_rfc3339
from vault_double.lockout import check_not_locked, clear_failures, count_failure
from vault_double.login_roles import TOKEN_FIELDS, TokenParameters
from vault_double.wire import RefusedError, Reply, in_multierror

_INVALID = "invalid role or secret ID"
_SWEEP_INTERVAL_S = 60.0
_ROLE = NAME.replace("?P<name>", "?P<role>")


@dataclass(frozen=True, slots=True)
class AppRole:
    """One role."""

    role_id: str
    tokens: TokenParameters
    secret_id_num_uses: int = 0
    secret_id_ttl_s: float = 0.0
    secret_id_bound_cidrs: tuple[str, ...] = ()
    bind_secret_id: bool = True


@dataclass(frozen=True, slots=True)
class SecretId:
    """One secret id of a role. `uses_left` 0 with `num_uses` 0: no limit."""

    value: str
    accessor: str
    num_uses: int
    uses_left: int
    created_at: float
    ttl_s: float
    cidrs: tuple[str, ...]
    metadata: dict[str, str]

    def is_over(self, now: float) -> bool:
        return bool(self.ttl_s) and now >= self.created_at + self.ttl_s

    def is_swept(self, began: float, now: float) -> bool:
        """Whether one of the sweeps, a minute apart since the server began, found it expired."""
        last_sweep = began + (now - began) // _SWEEP_INTERVAL_S * _SWEEP_INTERVAL_S
        return self.is_over(last_sweep)

    def allows(self, peer: str) -> bool:
        if not self.cidrs:
            return True
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in ipaddress.ip_network(cidr, strict=False) for cidr in self.cidrs)


def write_role(call: Call) -> None:
    role = _find_role(call) or AppRole(str(uuid.uuid4()), TokenParameters())
    role = replace(
        role,
        role_id=call.text("role_id", role.role_id),
        tokens=role.tokens.changed_by(call),
        secret_id_num_uses=call.count("secret_id_num_uses", role.secret_id_num_uses),
        secret_id_ttl_s=call.seconds("secret_id_ttl", role.secret_id_ttl_s),
        secret_id_bound_cidrs=_cidrs(call, "secret_id_bound_cidrs") or role.secret_id_bound_cidrs,
        bind_secret_id=call.flag("bind_secret_id", default=role.bind_secret_id),
    )
    if not (role.bind_secret_id or role.secret_id_bound_cidrs or role.tokens.bound_cidrs):
        raise RefusedError(500, in_multierror("at least one constraint should be enabled on the role"))
    call.store.put(f"role/{call.names['role']}", role)
    call.store.put(f"role-id/{role.role_id}", call.names["role"])


def read_role(call: Call) -> dict[str, Any] | None:
    role = _find_role(call)
    if role is None:
        return None
    return role.tokens.as_data() | {
        "bind_secret_id": role.bind_secret_id,
        "local_secret_ids": False,
        "secret_id_bound_cidrs": list(role.secret_id_bound_cidrs) or None,
        "secret_id_num_uses": role.secret_id_num_uses,
        "secret_id_ttl": int(role.secret_id_ttl_s),
    }


def delete_role(call: Call) -> None:
    role = _find_role(call)
    if role is not None:
        call.store.delete(f"role/{call.names['role']}")
        call.store.delete(f"role-id/{role.role_id}")
        call.store.below(f"secret-id/{call.names['role']}/").clear()


def list_roles(call: Call) -> dict[str, Any] | None:
    names = call.store.names("role/")
    return {"keys": names} if names else None


def read_role_id(call: Call) -> dict[str, Any] | None:
    role = _find_role(call)
    return None if role is None else {"role_id": role.role_id}


def write_role_id(call: Call) -> None:
    role = _get_role(call)
    call.store.delete(f"role-id/{role.role_id}")
    call.store.put(f"role/{call.names['role']}", replace(role, role_id=call.text("role_id")))
    call.store.put(f"role-id/{call.text('role_id')}", call.names["role"])


def make_secret_id(call: Call) -> dict[str, Any]:
    role = _get_role(call)
    num_uses = call.count("num_uses", role.secret_id_num_uses)
    secret = SecretId(
        call.text("secret_id") or str(uuid.uuid4()),
        str(uuid.uuid4()),
        num_uses,
        num_uses,
        call.core.clock.now(),
        call.seconds("ttl", role.secret_id_ttl_s),
        _cidrs(call, "cidr_list") or role.secret_id_bound_cidrs,
        {},
    )
    call.store.put(f"secret-id/{call.names['role']}/{secret.value}", secret)
    return {
        "secret_id": secret.value,
        "secret_id_accessor": secret.accessor,
        "secret_id_num_uses": secret.num_uses,
        "secret_id_ttl": int(secret.ttl_s),
    }


def list_secret_ids(call: Call) -> dict[str, Any] | None:
    store = call.store.below(f"secret-id/{call.names['role']}/")
    accessors = sorted(store.get(value).accessor for value in store.names())
    return {"keys": accessors} if accessors else None


def look_up_secret_id(call: Call) -> dict[str, Any] | None:
    secret = _find_secret_id(call, call.names["role"])
    if secret is None:
        return None
    return {
        "cidr_list": list(secret.cidrs),
        "creation_time": as_rfc3339(secret.created_at),
        "expiration_time": as_rfc3339(secret.created_at + secret.ttl_s) if secret.ttl_s else "0001-01-01T00:00:00Z",
        "metadata": secret.metadata,
        "secret_id_accessor": secret.accessor,
        "secret_id_num_uses": secret.uses_left,
        "secret_id_ttl": int(secret.ttl_s),
        "token_bound_cidrs": [],
    }


def destroy_secret_id(call: Call) -> None:
    call.store.delete(f"secret-id/{call.names['role']}/{call.text('secret_id')}")


def destroy_secret_id_by_accessor(call: Call) -> None:
    store = call.store.below(f"secret-id/{call.names['role']}/")
    accessor = call.text("secret_id_accessor")
    found = [value for value in store.names() if store.get(value).accessor == accessor]
    if not found:
        message = f'failed to find accessor entry for secret_id_accessor: "{accessor}"'
        raise RefusedError(500, in_multierror(message))
    for value in found:
        store.delete(value)


def tidy(call: Call) -> Reply:
    """The sweep, at once."""
    for key in call.store.names("secret-id/"):
        if call.store.get(f"secret-id/{key}").is_over(call.core.clock.now()):
            call.store.delete(f"secret-id/{key}")
    return Reply(warnings=["Tidy operation successfully started."], status=202)


def log_in(call: Call) -> Reply:
    role_id = call.text("role_id")
    if not role_id:
        raise RefusedError(500, "missing role_id")
    name = call.store.get(f"role-id/{role_id}")
    if name is None:
        raise RefusedError(400, _INVALID)
    check_not_locked(call, role_id)
    role: AppRole = call.store.get(f"role/{name}")
    if role.bind_secret_id:
        _use_secret_id(call, name, role_id)
    clear_failures(call, role_id)
    token = role.tokens.issue(call, role_id, {"role_name": name}, "approle")
    return Reply(auth=token.as_auth(call.core.clock.now()))


def _use_secret_id(call: Call, name: str, role_id: str) -> None:
    if not call.text("secret_id"):
        raise RefusedError(400, "missing secret_id")
    secret = _find_secret_id(call, name)
    if secret is None:
        count_failure(call, role_id)
        raise RefusedError(400, _INVALID)
    if not secret.allows(call.request.peer):
        raise RefusedError(
            400, f"source address {call.request.peer!r} unauthorized through CIDR restrictions on the secret ID"
        )
    key = f"secret-id/{name}/{secret.value}"
    if secret.num_uses:
        left = secret.uses_left - 1
        call.store.put(key, replace(secret, uses_left=left) if left else None)


def _cidrs(call: Call, name: str) -> tuple[str, ...]:
    try:
        return call.cidrs(name)
    except ValueError as error:
        raise RefusedError(500, in_multierror(f"failed to validate CIDR blocks: {error}")) from None


def _find_role(call: Call) -> AppRole | None:
    role: AppRole | None = call.store.get(f"role/{call.names['role']}")
    return role


def _get_role(call: Call) -> AppRole:
    role = _find_role(call)
    if role is None:
        raise RefusedError(404, f'role "{call.names["role"]}" does not exist')
    return role


def _find_secret_id(call: Call, role: str) -> SecretId | None:
    secret: SecretId | None = call.store.get(f"secret-id/{role}/{call.text('secret_id')}")
    if secret is None or secret.is_swept(call.core.cluster.began, call.core.clock.now()):
        return None
    return secret


_ROLE_FIELDS = (
    f"role_name role_id secret_id_num_uses secret_id_ttl secret_id_bound_cidrs bind_secret_id local_secret_ids "
    f"{TOKEN_FIELDS}"
)
_SECRET_FIELDS = "role_name secret_id metadata cidr_list token_bound_cidrs num_uses ttl"
APPROLE = Backend(
    (
        route("role/?", list=list_roles),
        route(
            f"role/{_ROLE}",
            _ROLE_FIELDS,
            exists=lambda call: _find_role(call) is not None,
            update=write_role,
            read=read_role,
            delete=delete_role,
        ),
        route(f"role/{_ROLE}/role-id", "role_name role_id", read=read_role_id, update=write_role_id),
        route(f"role/{_ROLE}/secret-id/?", _SECRET_FIELDS, update=make_secret_id, list=list_secret_ids),
        route(f"role/{_ROLE}/custom-secret-id", _SECRET_FIELDS, update=make_secret_id),
        route(f"role/{_ROLE}/secret-id/lookup", "role_name secret_id", update=look_up_secret_id),
        route(f"role/{_ROLE}/secret-id/destroy", "role_name secret_id", update=destroy_secret_id),
        route(
            f"role/{_ROLE}/secret-id-accessor/destroy",
            "role_name secret_id_accessor",
            update=destroy_secret_id_by_accessor,
        ),
        route("tidy/secret-id", update=tidy),
        route("login", "role_id secret_id", is_login=True, read=log_in, update=log_in),
    )
)
