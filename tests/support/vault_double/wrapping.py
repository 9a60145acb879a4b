"""Response wrapping: an answer kept behind a token that opens it once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vault_double.backend import Call
from vault_double.clock import as_rfc3339
from vault_double.tokens import TokenRole
from vault_double.wire import RefusedError, Reply

_NOT_VALID = "wrapping token is not valid or does not exist"
POLICY_NAME = "response-wrapping"


@dataclass(frozen=True, slots=True)
class Wrapped:
    """One wrapped answer."""

    reply: Reply
    creation_path: str
    created_at: float
    ttl_s: float


def wrap_reply(call: Call, reply: Reply, ttl_s: float, path: str) -> Reply:
    """The answer that goes out in place of `reply`."""
    now = call.core.clock.now()
    role = TokenRole(
        (POLICY_NAME,), path, "", ttl_s=ttl_s, explicit_max_ttl_s=ttl_s, renewable=False, namespace=call.namespace
    )
    token = call.core.tokens.make(role)
    call.core.storage.put(f"wrapped/{token.id}", Wrapped(reply, path, now, ttl_s))
    inner = (reply.auth or {}).get("accessor") or (reply.data or {}).get("secret_id_accessor") or ""
    info = {
        "token": token.id,
        "accessor": token.accessor,
        "ttl": int(ttl_s),
        "creation_time": as_rfc3339(now),
        "creation_path": path,
        "wrapped_accessor": inner,
    }
    return Reply(wrap_info={name: value for name, value in info.items() if name != "wrapped_accessor" or value})


def look_up(call: Call) -> dict[str, Any]:
    """Needs no token of its own, and does not use up the wrapping token."""
    wrapped = _find(call)
    return {
        "creation_path": wrapped.creation_path,
        "creation_time": as_rfc3339(wrapped.created_at),
        "creation_ttl": int(wrapped.ttl_s),
    }


def unwrap(call: Call) -> Reply:
    """Once: the second time there is no such token."""
    wrapped, identity = _find(call), _token_id(call)
    token = call.core.tokens.find(identity)
    if token is not None:
        call.core.tokens.revoke(token)
    call.core.storage.put(f"wrapped/{identity}", None)
    return wrapped.reply


def rewrap(call: Call) -> Reply:
    wrapped = _find(call)
    unwrap(call)
    return wrap_reply(call, wrapped.reply, wrapped.ttl_s, wrapped.creation_path)


def wrap(call: Call) -> Reply:
    """Wraps what the caller sends; the envelope does it when the header asks for it, as it must."""
    if not call.request.headers.get("x-vault-wrap-ttl"):
        raise RefusedError(400, "endpoint requires response wrapping to be used")
    return Reply(dict(call.data))


def _token_id(call: Call) -> str:
    return call.text("token") or call.request.token


def _find(call: Call) -> Wrapped:
    identity = _token_id(call)
    wrapped: Wrapped | None = call.core.storage.get(f"wrapped/{identity}")
    if wrapped is None or call.core.tokens.find(identity) is None:
        raise RefusedError(400, _NOT_VALID)
    return wrapped
