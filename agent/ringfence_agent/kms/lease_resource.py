"""`/ringfence/v1/leases/NAME`: who of several agents may act now. For administrators, as the policy is.

`PUT` takes `{"holder", "ttl_s"}` (1 to 300 seconds), takes the lease or renews it for the same holder, and answers as
`GET` does: `{"name", "holder", "epoch", "ttl_s", "left_s"}`. 409 when somebody else has it: a RemoteException with the
same object as `lease` beside it. `left_s` is how long until somebody else can have it, a second longer than its holder
may count on. `DELETE ...?holder=HOLDER` gives it back, and does nothing when nobody has it.

A holder is a text of the caller's choice: administrators are believed about who they are, not told apart by it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable

from ringfence_agent.http.response import Response
from ringfence_agent.kms.answers import json_ok
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.kms import Kms
from ringfence_agent.kms.parameters import json_body, require_text
from ringfence_agent.leases.terms import NOBODY, Instant, Terms
from ringfence_zones import kms_wire
from ringfence_zones.errors import InputError, MalformedJsonError
from ringfence_zones.leases import check_ttl

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HOLDER = re.compile(r"[!-~]{1,200}")
_NEVER = Terms(NOBODY, 0, 0, Instant(b"", 0))


def get(kms: Kms, call: Call) -> Awaitable[Response]:
    """Who has it."""
    call.op = "GET_LEASE"
    return _get(kms, call, _name(call))


def put(kms: Kms, call: Call) -> Awaitable[Response]:
    """Takes or renews it."""
    call.op = "TAKE_LEASE"
    name = _name(call)
    try:
        body = kms_wire.decode_lease(json_body(call.request))
    except MalformedJsonError as error:
        raise InputError(error.message) from None
    return _put(kms, call, name, _holder(call, body.holder), check_ttl(body.ttl_s))


def delete(kms: Kms, call: Call) -> Awaitable[Response]:
    """Gives it back."""
    call.op = "RELEASE_LEASE"
    name = _name(call)
    return _delete(kms, call, name, _holder(call, call.query.holder))


async def _get(kms: Kms, call: Call, name: str) -> Response:
    return _answer(call, name, await kms.leases.ask(lambda book: book.find(name)))


async def _put(kms: Kms, call: Call, name: str, holder: str, ttl_s: float) -> Response:
    taken = await kms.leases.ask(lambda book: book.take(name, holder, round(ttl_s * 1000)))
    return _answer(call, name, (taken, taken.left_ms(taken.renewed)))


async def _delete(kms: Kms, call: Call, name: str, holder: str) -> Response:
    return _answer(call, name, await kms.leases.ask(lambda book: book.give_back(name, holder)))


def _answer(call: Call, name: str, found: tuple[Terms, int] | None) -> Response:
    terms, left_ms = found if found is not None else (_NEVER, 0)
    lease = {
        "name": name,
        "holder": terms.holder if left_ms else None,
        "epoch": terms.epoch,
        "ttl_s": terms.ttl_ms / 1000,
        "left_s": left_ms / 1000,
    }
    call.detail = {**(call.detail or {}), "epoch": terms.epoch}
    return json_ok(kms_wire.encode(lease))


def _name(call: Call) -> str:
    name = require_text(call.name, "name")
    if not _NAME.fullmatch(name):
        raise InputError("a lease is named by up to 64 of a-z, 0-9 and ._- and begins with a letter or digit")
    call.detail = {"lease": name}
    return name


def _holder(call: Call, text: str | None) -> str:
    holder = require_text(text, "holder")
    if not _HOLDER.fullmatch(holder):
        raise InputError("a lease's holder is a text of up to 200 printable ASCII characters without blanks")
    call.detail = {**(call.detail or {}), "holder": holder}
    return holder
