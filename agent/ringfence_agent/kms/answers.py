"""The answers of the dialect that are not errors. Heads are rendered once and shared."""

from __future__ import annotations

from collections.abc import Callable

from ringfence_agent.http.response import Response, ResponseHead
from ringfence_agent.keystore.held import AnyVersion
from ringfence_agent.kms.remote_exception import JSON_HEADERS
from ringfence_zones import kms_wire
from ringfence_zones.keys import KeyVersion

JSON_OK = ResponseHead(200, headers=JSON_HEADERS)
_JSON_CREATED = ResponseHead(201, headers=JSON_HEADERS)
# The type that Hadoop's server gives an empty answer.
_EMPTY_OK = ResponseHead(200, headers=[("Content-Type", "text/plain;charset=utf-8")])


def json_ok(body: bytes, on_written: Callable[[], None] | None = None) -> Response:
    """200 with JSON."""
    return Response(JSON_OK, body, on_written=on_written)


def json_created(body: bytes, location: str, on_written: Callable[[], None] | None = None) -> Response:
    """201 with JSON; `location` must be percent-encoded."""
    return Response(_JSON_CREATED.with_headers(("Location", location)), body, on_written=on_written)


def version_json(version: AnyVersion, *, with_material: bool = True) -> dict[str, object]:
    """A key version. Its material is null where nobody may see it, and where Vault holds it: Hadoop's clients take
    that for a version whose material is absent.
    """
    material = version.material.reveal() if with_material and isinstance(version, KeyVersion) else None
    return kms_wire.key_version_json(version.key_name, version.name, material)


def empty_ok(on_written: Callable[[], None] | None = None) -> Response:
    """200 without a body."""
    return Response(_EMPTY_OK, on_written=on_written)
