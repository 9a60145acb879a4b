"""The token login method: create, look up, renew and revoke."""

from __future__ import annotations

from typing import Any

from vault_double.backend import Backend, Call, route
from vault_double.tokens import Token, TokenRole, capped_warning, with_default
from vault_double.wire import PERMISSION_DENIED, RefusedError, Reply, in_multierror

_CREATE_FIELDS = (
    "id policies ttl explicit_max_ttl period num_uses no_parent no_default_policy renewable type display_name meta "
    "lease entity_alias"
)


def create_token(call: Call) -> Reply:
    return _create(call, orphan=call.flag("no_parent"))


def create_orphan(call: Call) -> Reply:
    return _create(call, orphan=True)


def _create(call: Call, *, orphan: bool) -> Reply:
    parent, meta = _own(call), call.data.get("meta")
    if meta is not None and not isinstance(meta, dict):
        raise call.invalid("meta", meta)
    if call.number("num_uses") < 0:
        raise RefusedError(400, "number of uses cannot be negative")
    wished = call.strings("policies") or parent.role.policies
    privileged = parent.is_root or call.core.acl_of(parent, call.view).has_sudo(call.mount.path + "create")
    if not privileged:
        if not set(wished) <= {*parent.role.policies, "default"}:
            raise RefusedError(400, "child policies must be subset of parent")
        if orphan or call.has("id") or call.has("period"):
            raise RefusedError(400, "root or sudo privileges required")
    kind = call.text("type", "service")
    if kind not in ("service", "batch", "default-service"):
        raise RefusedError(400, "invalid 'token_type' value")
    for name in ("explicit_max_ttl", "num_uses", "period"):
        if kind == "batch" and call.data.get(name):
            raise RefusedError(400, f'batch tokens cannot have "{name}" set')
    display = call.text("display_name")
    role = TokenRole(
        with_default(wished, no_default=call.flag("no_default_policy")),
        "auth/token/create",
        f"token-{display}" if display else "token",
        None if meta is None else {str(name): str(value) for name, value in meta.items()},
        ttl_s=call.seconds("ttl", call.seconds("lease")),
        period_s=call.seconds("period"),
        explicit_max_ttl_s=call.seconds("explicit_max_ttl"),
        num_uses=call.number("num_uses"),
        renewable=call.flag("renewable", default=True),
        kind=kind.removeprefix("default-"),
        parent="" if orphan else parent.id,
        namespace=call.namespace,
        id=call.text("id"),
    )
    made, warnings = call.core.tokens.make(role), []
    if role.explicit_max_ttl_s and role.ttl_s > role.explicit_max_ttl_s:
        warnings = [capped_warning(role.ttl_s, role.explicit_max_ttl_s)]
    return Reply(auth=made.as_auth(call.core.clock.now()), warnings=warnings)


def look_up_self(call: Call) -> dict[str, Any]:
    return _own(call).as_lookup(call.core.clock.now())


def look_up(call: Call) -> dict[str, Any]:
    return _named(call).as_lookup(call.core.clock.now())


def look_up_accessor(call: Call) -> dict[str, Any]:
    # Without the token itself: whoever holds an accessor must not gain its token.
    return _by_accessor(call).as_lookup(call.core.clock.now()) | {"id": ""}


def renew_self(call: Call) -> Reply:
    return _renew(call, _own(call))


def renew(call: Call) -> Reply:
    token = call.core.tokens.find(call.text("token"))
    if token is None:
        raise RefusedError(400, "token not found")
    return _renew(call, token)


def renew_accessor(call: Call) -> Reply:
    return _renew(call, _by_accessor(call))


def _renew(call: Call, token: Token) -> Reply:
    if token.role.kind == "batch":
        raise RefusedError(400, "batch tokens cannot be renewed")
    if token.expires_at is None:
        raise RefusedError(400, "invalid lease ID")
    if not token.is_renewable:
        raise RefusedError(400, "lease is not renewable")
    renewed, warnings = call.core.tokens.renew(token, call.seconds("increment"))
    return Reply(auth=renewed.as_auth(call.core.clock.now()), warnings=warnings)


def revoke_self(call: Call) -> None:
    _revoke(call, _own(call))


def revoke(call: Call) -> None:
    """What is not there needs no revoking."""
    token = call.core.tokens.find(call.text("token"))
    if token is not None:
        _revoke(call, token)


def revoke_accessor(call: Call) -> Reply | None:
    if call.core.tokens.find_by_accessor(call.text("accessor")) is None:
        return Reply(warnings=["No token found with this accessor"])
    _revoke(call, _by_accessor(call))
    return None


def _revoke(call: Call, token: Token) -> None:
    if token.role.kind == "batch":
        raise RefusedError(400, "batch tokens cannot be revoked")
    call.core.tokens.revoke(token)


def list_accessors(call: Call) -> dict[str, Any] | None:
    accessors = call.core.tokens.accessors()
    return {"keys": accessors} if accessors else None


def _own(call: Call) -> Token:
    if call.token is None:
        raise RefusedError(403, PERMISSION_DENIED)
    return call.token


def _named(call: Call) -> Token:
    token = call.core.tokens.find(call.text("token") or call.request.token)
    if token is None:
        raise RefusedError(403, "bad token")
    return token


def _by_accessor(call: Call) -> Token:
    token = call.core.tokens.find_by_accessor(call.text("accessor"))
    if token is None:
        raise RefusedError(400, in_multierror("invalid accessor"))
    return token


TOKEN = Backend(
    (
        route("create", _CREATE_FIELDS, update=create_token),
        route("create-orphan", _CREATE_FIELDS, update=create_orphan, needs_sudo=True),
        route("lookup-self", "token", read=look_up_self, update=look_up_self),
        route("lookup", "token", read=look_up, update=look_up),
        route("lookup-accessor", "accessor", update=look_up_accessor),
        route("renew-self", "token increment", update=renew_self),
        route("renew", "token increment", update=renew),
        route("renew-accessor", "accessor increment", update=renew_accessor),
        route("revoke-self", "token", update=revoke_self),
        route("revoke", "token", update=revoke),
        route("revoke-accessor", "accessor", update=revoke_accessor),
        route("accessors/?", list=list_accessors, needs_sudo=True),
    )
)
