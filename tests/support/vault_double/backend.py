"""What a mount is made of: routes, and the call that a handler gets.

A handler returns a `Reply`, the data alone, or None (204 for a write, 404 for a read or a list).
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vault_double.storage import View
from vault_double.wire import HttpRequest, RefusedError, Reply, duration_s, in_multierror

if TYPE_CHECKING:
    from vault_double.cluster import Node
    from vault_double.core import Core
    from vault_double.tokens import Token

# Vault's names of keys and roles: word characters, with dots and dashes inside.
NAME = r"(?P<name>[A-Za-z0-9_](?:[A-Za-z0-9_.\-]*[A-Za-z0-9_])?)"
TRUE_WORDS, FALSE_WORDS = {"1", "t", "T", "TRUE", "true", "True"}, {"0", "f", "F", "FALSE", "false", "False", ""}


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted engine or login method; `path` ends in a slash, with `auth/` before a login method's."""

    path: str
    kind: str
    accessor: str
    uuid: str
    options: Mapping[str, str] | None = None
    description: str = ""
    tuning: Mapping[str, Any] = field(default_factory=dict)
    made_at: float = 0.0


@dataclass(slots=True)
class Call:
    """One request on its way through a mount. `store` is the mount's own storage as this node sees it."""

    core: Core
    node: Node
    request: HttpRequest
    namespace: str
    mount: Mount
    store: View
    operation: str
    data: dict[str, Any]
    names: dict[str, str]
    token: Token | None
    warnings: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.names["name"]

    @property
    def view(self) -> View:
        """The server's storage as this node sees it."""
        return View(self.store.storage, self.store.lag_s, self.store.is_active)

    def has(self, name: str) -> bool:
        return self.data.get(name) is not None

    def text(self, name: str, default: str = "") -> str:
        """A string; numbers and truth values are taken as Vault's weak conversion takes them."""
        value = self.data.get(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return "1" if value else "0"
        if isinstance(value, dict | list):
            raise self.invalid(name, value)
        return str(value)

    def flag(self, name: str, *, default: bool = False) -> bool:
        value = self.data.get(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return value != 0
        if isinstance(value, str) and value in TRUE_WORDS | FALSE_WORDS:
            return value in TRUE_WORDS
        raise self.invalid(name, value)

    def number(self, name: str, default: int = 0) -> int:
        value = self.data.get(name)
        if value is None:
            return default
        try:
            number = int(value)
        except (TypeError, ValueError):
            raise self.invalid(name, value) from None
        if isinstance(value, float) and number != value:
            raise self.invalid(name, value)
        return number

    def count(self, name: str, default: int = 0) -> int:
        """A number that is not negative."""
        number = self.number(name, default)
        if number < 0:
            raise RefusedError(400, f"{name} cannot be negative")
        return number

    def seconds(self, name: str, default: float = 0.0) -> float:
        value = self.data.get(name)
        return default if value is None else duration_s(value)

    def strings(self, name: str) -> tuple[str, ...]:
        """A list, or one string with commas."""
        value = self.data.get(name)
        if value is None:
            return ()
        parts = value if isinstance(value, list) else str(value).split(",")
        return tuple(str(part).strip() for part in parts if str(part).strip())

    def cidrs(self, name: str) -> tuple[str, ...]:
        """Addresses or blocks of them. Raises ValueError for what is neither."""
        blocks = self.strings(name)
        for block in blocks:
            ipaddress.ip_network(block, strict=False)
        return blocks

    def invalid(self, name: str, value: Any) -> RefusedError:
        return RefusedError(400, f'Field validation failed: error converting input for field "{name}"')


Handler = Callable[[Call], Reply | dict[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Route:
    """A path of a mount. `fields` are the parameters it knows (None: any); `exists` tells create from update."""

    pattern: re.Pattern[str]
    handlers: Mapping[str, Handler]
    fields: frozenset[str] | None = None
    exists: Callable[[Call], bool] | None = None
    is_login: bool = False
    needs_sudo: bool = False


def route(
    pattern: str,
    fields: str | None = "",
    *,
    exists: Callable[[Call], bool] | None = None,
    is_login: bool = False,
    needs_sudo: bool = False,
    **handlers: Handler,
) -> Route:
    """A route; `fields` is a list with blanks between, None for any. Handlers by operation: read, update, list, ..."""
    known = None if fields is None else frozenset(fields.split())
    return Route(re.compile(pattern), handlers, known, exists, is_login, needs_sudo)


@dataclass(frozen=True, slots=True)
class Backend:
    """A kind of mount."""

    routes: tuple[Route, ...]

    def find_route(self, path: str) -> tuple[Route, dict[str, str]] | None:
        for candidate in self.routes:
            match = candidate.pattern.fullmatch(path)
            if match is not None:
                return candidate, {name: value for name, value in match.groupdict().items() if value is not None}
        return None


def run_route(found: Route, call: Call) -> Reply:
    """Runs the handler of the call's operation; 405 where there is none."""
    handler = found.handlers.get(call.operation)
    if handler is None and call.operation == "create":
        handler = found.handlers.get("update")
    if handler is None:
        raise RefusedError(405, in_multierror("unsupported operation"))
    result = handler(call)
    if result is None and call.operation in ("read", "list"):
        raise RefusedError(404)
    reply = result if isinstance(result, Reply) else Reply(result)
    if found.fields is not None and call.operation in ("create", "update"):
        unknown = sorted(set(call.data) - found.fields)
        if unknown and not reply.is_empty:
            reply.warnings.append(f"Endpoint ignored these unrecognized parameters: [{' '.join(unknown)}]")
    reply.warnings.extend(call.warnings)
    return reply


def unsupported_path() -> RefusedError:
    return RefusedError(404, in_multierror("unsupported path"))


def decode_base64(text: str) -> bytes:
    """As Go's StdEncoding: line breaks are skipped, everything else is strict. Raises ValueError in Go's words."""
    joined = text.replace("\r", "").replace("\n", "")
    try:
        return base64.b64decode(joined, validate=True)
    except (binascii.Error, ValueError):
        foreign = re.search(r"[^A-Za-z0-9+/]", joined)
        position = foreign.start() if foreign else len(joined) - len(joined) % 4
        raise ValueError(f"illegal base64 data at input byte {position}") from None


def encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
