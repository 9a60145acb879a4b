"""`/ringfence/v1/status`: what this server is and which revision it enforces, for any authenticated user; for an
administrator also how it is.
"""

from __future__ import annotations

from collections.abc import Awaitable

from ringfence_agent.http.response import Response
from ringfence_agent.kms.answers import json_ok
from ringfence_agent.kms.authentication.caller import Identity
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.kms import Kms
from ringfence_zones import kms_wire
from ringfence_zones.errors import RingfenceError


def get(kms: Kms, call: Call) -> Response | Awaitable[Response]:
    """`{"product", "version", "revision", "digest", "authentication", "custody", "flows"}`; revision 0 before the first
    publication, `flows` null when the policy has none.

    With `authentication` `simple` users are claims, and nothing this server says makes them more. An administrator
    gets `server` as well (`monitoring.Monitoring.describe`).
    """
    call.op = "GET_STATUS"
    if call.caller is not None and call.caller.identity is Identity.ADMIN:
        return _with_server(kms)
    return json_ok(kms_wire.encode(_about(kms)))


def _about(kms: Kms) -> dict[str, object]:
    published = kms.access.published
    return {
        "product": "ringfence",
        "version": kms.version,
        "revision": published.revision,
        "digest": published.digest,
        "authentication": kms.authentication,
        "custody": list(kms.custodies),
        "flows": kms.flows.describe(claims_only=kms.authentication == "simple"),
    }


async def _with_server(kms: Kms) -> Response:
    # First, because it waits no longer than its deadline for a store that does not answer.
    health = await kms.monitoring.health.check()
    keys: int | None = None
    if not health.store_problem:
        try:
            keys = await kms.store.read(lambda store: len(store.list_metadata()))
        except RingfenceError:
            keys = None
    server = await kms.monitoring.describe(kms.store.label, keys)
    if kms.flows.is_tracking:
        table = kms.monitoring.metrics.table
        counts = {name: table.total(f"flow_{name}") for name in ("refusals", "shadow_refusals", "undecided")}
        server["flow_memory"] = {"problem": kms.flows.problem, **counts}
    return json_ok(kms_wire.encode({**_about(kms), "server": server}))
