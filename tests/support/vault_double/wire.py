"""Requests as they arrive and answers as they leave: Vault's envelope, its errors and its limits on JSON."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

MAX_BODY_BYTES = 32 << 20
PERMISSION_DENIED = "permission denied"


def in_multierror(message: str) -> str:
    """How Go's multierror prints a single error."""
    return f"1 error occurred:\n\t* {message}\n\n"


class RefusedError(Exception):
    """An answer other than success, with Vault's own words."""

    def __init__(self, status: int, *errors: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, *errors)
        self.answer = Answer(status, {"errors": list(errors)}, headers or {})


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, JSON body (None: no body; a fault's may be text as it stands) and extra headers."""

    status: int
    body: Mapping[str, Any] | str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Reply:
    """What a backend answers, before it becomes an envelope. Neither `data` nor `auth`: 204."""

    data: dict[str, Any] | None = None
    auth: dict[str, Any] | None = None
    wrap_info: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    status: int = 200

    @property
    def is_empty(self) -> bool:
        return self.data is None and self.auth is None and self.wrap_info is None and not self.warnings

    def envelope(self) -> dict[str, Any]:
        return {
            "request_id": str(uuid.uuid4()),
            "lease_id": "",
            "renewable": False,
            "lease_duration": 0,
            "data": self.data,
            "wrap_info": self.wrap_info,
            "warnings": self.warnings or None,
            "auth": self.auth,
        }


@dataclass(slots=True)
class HttpRequest:
    """One request as it arrived. Header names are lower case; `path` has no query and no leading `/v1/`.

    `items` becomes the length of a batch.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes
    peer: str
    items: int = 1

    @property
    def token(self) -> str:
        bearer = self.headers.get("authorization", "")
        return self.headers.get("x-vault-token") or (bearer[7:] if bearer.lower().startswith("bearer ") else "")


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """What a server accepts of a JSON body; keys count as strings."""

    max_strings: int | None


def parse_body(request: HttpRequest, limits: JsonLimits) -> dict[str, Any]:
    """The body's fields: JSON, or a form. Raises RefusedError as the server would answer."""
    if len(request.body) > MAX_BODY_BYTES:
        raise RefusedError(413, "http: request body too large")
    if not request.body.strip():
        return {}
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
    counted_keys = 0

    def collect(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal counted_keys
        counted_keys += len(pairs)
        return dict(pairs)

    try:
        value = json.loads(request.body, object_pairs_hook=collect)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"failed to decode JSON input: {error}") from None
    if limits.max_strings is not None and counted_keys + _count_strings(value) > limits.max_strings:
        message = "refused JSON input due to high complexity: exceeded maximum number of strings"
        raise RefusedError(400, message)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RefusedError(400, "failed to decode JSON input: cannot unmarshal into an object")
    batch = value.get("batch_input")
    request.items = len(batch) if isinstance(batch, list) else 1
    return value


def _count_strings(value: Any) -> int:
    if isinstance(value, str):
        return 1
    if isinstance(value, dict):
        return sum(map(_count_strings, value.values()))
    if isinstance(value, list):
        return sum(map(_count_strings, value))
    return 0


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def duration_s(value: Any) -> float:
    """Seconds of 30, "30", "30s", "1h30m". Raises RefusedError."""
    if isinstance(value, bool) or value is None:
        raise _no_duration(value)
    if isinstance(value, int | float):
        return float(value)
    text = str(value).strip()
    if re.fullmatch(r"-?\d+", text) or not text:
        return float(text or 0)
    parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        raise _no_duration(value)
    return float(sum(float(number) * _UNIT_S[unit] for number, unit in parts))


def _no_duration(value: Any) -> RefusedError:
    return RefusedError(400, f'time: invalid duration "{value}"')
