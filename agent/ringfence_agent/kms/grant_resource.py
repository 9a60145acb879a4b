"""`/ringfence/v1/grants`: what one job may do beyond the policy's flows. For administrators, as the policy is.

`PUT grants/ID` takes `{"user", "from", "to", "lifetime_s", "purpose", "approver"}` with `token` (the sequence number of
a delegation token) or `address` (and `real_user`), zones by their root in the published policy, and answers with the
grant; sent again it answers with the same one, and something else under that id is a 400. `DELETE grants/ID` ends it,
`GET grants` answers `{"grants": [...]}`: those in force and those that ended lately.

A grant admits past the flow rules and past nothing else: key ACLs are asked before, HDFS asks its own. It is on record,
on disk, before it is in force.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import math
import re
import time
from collections.abc import Awaitable

from ringfence_agent.flow.grants import DELETED, MAX_GRANTS, TIME, FlowGrant
from ringfence_agent.http.response import Response
from ringfence_agent.kms.answers import json_ok
from ringfence_agent.kms.audit.record import Details
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.kms import Kms
from ringfence_agent.kms.parameters import json_body, require_text
from ringfence_zones import kms_wire
from ringfence_zones.errors import GrantNotFoundError, InputError, MalformedJsonError
from ringfence_zones.grants import Grant
from ringfence_zones.kms_wire import GrantBody

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_USER = re.compile(r"[!-~]{1,200}")
_MAX_TEXT_CHARS = 500
_MAX_TOKEN = 2**31 - 1


def get(kms: Kms, call: Call) -> Awaitable[Response]:
    """All of them."""
    call.op = "GET_GRANTS"
    return _list(kms)


def put(kms: Kms, call: Call) -> Awaitable[Response]:
    """Makes one."""
    call.op = "CREATE_GRANT"
    call.detail = {"grant": (grant_id := _id(call))}
    try:
        body = kms_wire.decode_grant(json_body(call.request))
    except MalformedJsonError as error:
        raise InputError(error.message) from None
    return _create(kms, call, _read(kms, call, grant_id, body))


def delete(kms: Kms, call: Call) -> Awaitable[Response]:
    """Ends one."""
    call.op = "END_GRANT"
    call.detail = {"grant": (grant_id := _id(call))}
    return _end(kms, call, grant_id)


async def _list(kms: Kms) -> Response:
    kept = await kms.flows.ask(lambda memory: memory.grants.list_kept())
    return json_ok(kms_wire.encode({"grants": [grant_json(each.grant) for each in kept]}))


async def _create(kms: Kms, call: Call, new: FlowGrant) -> Response:
    token = new.grant.token
    if token is not None and await kms.store.read_tokens(lambda store: store.find_token(token)) is None:
        raise InputError(f"there is no delegation token {token}, or not any more")
    call.detail = described(new.grant)
    await kms.begin_change(call)
    made = await kms.flows.ask(lambda memory: memory.grants.create(new))
    if made is None:
        raise InputError(f"{MAX_GRANTS} grants of the last days are kept, and no more are taken")
    if not _says_the_same(made, new):
        raise InputError(f"grant {new.grant.id} was made before, and says something else")
    call.detail = described(made.grant)
    return json_ok(kms_wire.encode(grant_json(made.grant)))


async def _end(kms: Kms, call: Call, grant_id: str) -> Response:
    await kms.begin_change(call)
    ended = await kms.flows.ask(lambda memory: memory.grants.end(grant_id, DELETED))
    if ended is None:
        raise GrantNotFoundError(grant_id)
    call.detail = described(ended.grant)
    return json_ok(kms_wire.encode(grant_json(ended.grant)))


def grant_json(grant: Grant) -> dict[str, object]:
    """A grant as it travels. One whose time is over says so, whether anybody has written that down yet or not."""
    is_over = grant.ended_ms is None and now_ms() >= grant.not_after_ms
    return {
        "id": grant.id,
        "user": grant.user,
        "from": grant.source,
        "to": grant.target,
        "token": grant.token,
        "address": grant.address,
        "real_user": grant.real_user,
        "purpose": grant.purpose,
        "approver": grant.approver,
        "granted_by": grant.granted_by,
        "created": grant.created_ms,
        "not_after": grant.not_after_ms,
        "ended": grant.not_after_ms if is_over else grant.ended_ms,
        "ended_by": TIME if is_over else grant.ended_by,
    }


def described(grant: Grant) -> Details:
    """What the audit log says of a grant that is made or ended."""
    facts = {name: value for name, value in grant_json(grant).items() if value is not None and name != "id"}
    return {"grant": grant.id, **{f"grant_{name}": value for name, value in facts.items()}}


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


# -- what was asked for


def _read(kms: Kms, call: Call, grant_id: str, body: GrantBody) -> FlowGrant:
    """The grant, checked. Raises InputError."""
    longest_s = kms.grant_lifetime_s
    if not 1 <= body.lifetime_s <= longest_s or not math.isfinite(body.lifetime_s):
        raise InputError(f"a grant lasts 1 to {longest_s:g} seconds (grant_lifetime)")
    keys = _keys_of(kms)
    source, target = (_zone(keys, path, name) for path, name in ((body.source, "from"), (body.target, "to")))
    if source == target:
        raise InputError("from and to are one zone, inside which nothing has to be granted")
    made_ms = now_ms()
    grant = Grant(
        id=grant_id,
        user=_user(body.user, "user"),
        source=body.source,
        target=body.target,
        token=_token(body),
        address=_address(body),
        real_user=None if body.real_user is None else _user(body.real_user, "real_user"),
        purpose=_text(body.purpose, "purpose"),
        approver=_text(body.approver, "approver"),
        granted_by=call.acting_user,
        created_ms=made_ms,
        not_after_ms=made_ms + round(body.lifetime_s * 1000),
    )
    return FlowGrant(grant, source, target)


def _keys_of(kms: Kms) -> dict[str, str]:
    document = kms.access.published.document
    if document is None:
        raise InputError("no policy is published, so there are no zones to grant anything between")
    return {zone["path"]: zone["key"] for zone in json.loads(document)["zones"]}


def _zone(keys: dict[str, str], path: str, name: str) -> str:
    if path not in keys:
        raise InputError(f"{name} is not the root of a zone of the published policy")
    return keys[path]


def _token(body: GrantBody) -> int | None:
    if (body.token is None) == (body.address is None):
        raise InputError("a grant is for one session: token, or address for who comes without one")
    if body.token is not None and (body.real_user is not None or not 1 <= body.token <= _MAX_TOKEN):
        raise InputError("token is the sequence number of a delegation token, which says itself who acts for whom")
    return body.token


def _address(body: GrantBody) -> str | None:
    if body.address is None:
        return None
    try:
        return ipaddress.ip_address(body.address).compressed
    except ValueError:
        raise InputError("address is the IP address that the session's requests come from") from None


def _user(text: str, name: str) -> str:
    if not _USER.fullmatch(text):
        raise InputError(f"{name} is a short user name: up to 200 printable ASCII characters without blanks")
    return text


def _text(text: str, name: str) -> str:
    if not text.strip() or len(text) > _MAX_TEXT_CHARS or not text.isprintable():
        raise InputError(f"{name} is one line of up to {_MAX_TEXT_CHARS} characters")
    return text


def _id(call: Call) -> str:
    grant_id = require_text(call.name, "id")
    if not _ID.fullmatch(grant_id):
        raise InputError("a grant's id has up to 64 letters, digits and ._- and begins with a letter or digit")
    return grant_id


def _says_the_same(made: FlowGrant, new: FlowGrant) -> bool:
    """Whether one request made both: they differ in what happened since, and in when."""

    def said(of: FlowGrant) -> tuple[object, ...]:
        grant = dataclasses.replace(of.grant, created_ms=0, not_after_ms=0, ended_ms=None, ended_by=None)
        return grant, of.source, of.target, of.grant.not_after_ms - of.grant.created_ms

    return said(made) == said(new)
