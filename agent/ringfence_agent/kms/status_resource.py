"""`/ringfence/v1/status`: what this server is and which revision it enforces, for any authenticated user."""

from __future__ import annotations

from ringfence_agent.http.response import Response
from ringfence_agent.kms.answers import json_ok
from ringfence_agent.kms.call import Call, Kms
from ringfence_zones import kms_wire


def get(kms: Kms, call: Call) -> Response:
    """`{"product", "version", "revision", "digest", "authentication"}`; revision 0 before the first publication.

    With `authentication` `simple` users are claims, and nothing this server says makes them more.
    """
    call.op = "GET_STATUS"
    published = kms.access.published
    return json_ok(
        kms_wire.encode(
            {
                "product": "ringfence",
                "version": kms.version,
                "revision": published.revision,
                "digest": published.digest,
                "authentication": kms.authentication,
            }
        )
    )
