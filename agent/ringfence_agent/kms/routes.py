"""From a raw path and a raw query to what is meant.

Source: the JAX-RS annotations of `org.apache.hadoop.crypto.key.kms.server.KMS`. Rules:

1. Paths are percent-decoded and `+` stays `+`; in queries `+` is a blank.
2. A key name is everything up to the known last segment, encoded and plain slashes included.
3. One trailing slash means nothing, unless it belongs to a name that ends the path.
4. The first of a repeated parameter counts; only `doAs` and the value of `op` ignore case.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote_to_bytes

from ringfence_zones.errors import InputError

API = b"/kms/v1"
ADMIN = b"/ringfence/v1"

_LIMIT = 8192
# Longer ones are read each time: what strangers send must not fill the memory.
_REMEMBERED_BYTES = 1024
MAX_NAME_CHARS = 1024
_MAX_PARAMETERS = 500


class Resource(enum.Enum):
    """What a path names. The value is the last segment of those below a key."""

    # Members are singletons; Enum's own hash is Python code, and this is looked up on every request.
    __hash__ = object.__hash__

    ROOT = ""
    KEYS = "keys"
    KEY_NAMES = "keys/names"
    KEYS_METADATA = "keys/metadata"
    KEY = "key"
    METADATA = "_metadata"
    CURRENT_VERSION = "_currentversion"
    VERSIONS = "_versions"
    GENERATE = "_eek"
    REENCRYPT_BATCH = "_reencryptbatch"
    INVALIDATE_CACHE = "_invalidatecache"
    KEY_VERSION = "keyversion"
    OPEN_EEK = "keyversion/_eek"
    STATUS = "status"
    POLICY = "policy"
    DELETED_KEYS = "keys/deleted"
    UNDELETE = "_undelete"
    LEASE = "leases"
    GRANTS = "grants"
    GRANT = "grants/"
    JMX = "jmx"
    METRICS = "metrics"


_BELOW_KEY = {
    resource.value.encode(): resource
    for resource in (
        Resource.METADATA,
        Resource.CURRENT_VERSION,
        Resource.VERSIONS,
        Resource.GENERATE,
        Resource.REENCRYPT_BATCH,
        Resource.INVALIDATE_CACHE,
    )
}
_BELOW_ADMIN_KEY = {b"_undelete": Resource.UNDELETE}
_NAMED = ((ADMIN + b"/leases/", Resource.LEASE), (ADMIN + b"/grants/", Resource.GRANT))
_BELOW_KEY_VERSION = {b"_eek": Resource.OPEN_EEK}
_FIXED = {
    API: Resource.ROOT,
    API + b"/keys": Resource.KEYS,
    API + b"/keys/names": Resource.KEY_NAMES,
    API + b"/keys/metadata": Resource.KEYS_METADATA,
    ADMIN + b"/status": Resource.STATUS,
    ADMIN + b"/policy": Resource.POLICY,
    ADMIN + b"/keys/deleted": Resource.DELETED_KEYS,
    ADMIN + b"/grants": Resource.GRANTS,
    b"/jmx": Resource.JMX,
    b"/kms/jmx": Resource.JMX,
    b"/metrics": Resource.METRICS,
}


@dataclass(frozen=True, slots=True)
class Route:
    """`name` is the key, key version, lease or grant named in the path, "" where there is none."""

    resource: Resource
    name: str = ""


class TokenOperation(enum.Enum):
    """`DelegationTokenOperation`: what `op` may ask for on any path."""

    GET = "GETDELEGATIONTOKEN"
    RENEW = "RENEWDELEGATIONTOKEN"
    CANCEL = "CANCELDELEGATIONTOKEN"

    @property
    def method(self) -> bytes:
        """The one method that such a request has."""
        return b"GET" if self is TokenOperation.GET else b"PUT"


_TOKEN_OPERATIONS = {operation.value: operation for operation in TokenOperation}


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters that mean something; None when absent. `repr` leaves the tokens out."""

    user_name: str | None = None
    do_as: str | None = None
    token_operation: TokenOperation | None = None
    renewer: str | None = None
    service: str | None = None
    token: str | None = field(default=None, repr=False)
    delegation: str | None = field(default=None, repr=False)
    eek_op: str | None = None
    num_keys: str | None = None
    qry: str | None = None
    holder: str | None = None
    keys: tuple[str, ...] = ()


class Router:
    """Remembers what it has parsed, by raw bytes, within bounds."""

    def __init__(self) -> None:
        self._routes: dict[bytes, Route] = {}
        self._queries: dict[bytes, Query] = {b"": Query()}

    def find_route(self, raw_path: bytes) -> Route | None:
        """What the path names, None for an unknown path. Raises InputError for a name that cannot be one."""
        known = self._routes.get(raw_path)
        if known is not None:
            return known
        route = _parse_path(raw_path)
        if route is not None and len(raw_path) <= _REMEMBERED_BYTES:
            if len(self._routes) >= _LIMIT:
                self._routes.clear()
            self._routes[raw_path] = route
        return route

    def query(self, raw_query: bytes) -> Query:
        """The parameters. Raises InputError when they are not UTF-8 or too many."""
        known = self._queries.get(raw_query)
        if known is not None:
            return known
        query = _parse_query(raw_query)
        if len(raw_query) <= _REMEMBERED_BYTES:
            if len(self._queries) >= _LIMIT:
                self._queries.clear()
            self._queries[raw_query] = query
        return query


def _parse_path(raw_path: bytes) -> Route | None:
    fixed = _FIXED.get(raw_path.removesuffix(b"/"))
    if fixed is not None:
        return Route(fixed)
    if raw_path.startswith(API + b"/key/"):
        return _below(raw_path.removeprefix(API + b"/key/"), _BELOW_KEY, Resource.KEY)
    if raw_path.startswith(API + b"/keyversion/"):
        return _below(raw_path.removeprefix(API + b"/keyversion/"), _BELOW_KEY_VERSION, Resource.KEY_VERSION)
    if raw_path.startswith(ADMIN + b"/key/"):
        route = _below(raw_path.removeprefix(ADMIN + b"/key/"), _BELOW_ADMIN_KEY, Resource.KEY)
        return None if route.resource is Resource.KEY else route
    for prefix, resource in _NAMED:
        if raw_path.startswith(prefix):
            return Route(resource, _decode(raw_path.removeprefix(prefix).removesuffix(b"/")))
    return None


def _below(rest: bytes, resources: Mapping[bytes, Resource], itself: Resource) -> Route:
    name, mark, last = rest.removesuffix(b"/").rpartition(b"/")
    resource = resources.get(last) if mark else None
    return Route(itself, _decode(rest)) if resource is None else Route(resource, _decode(name))


def _decode(name: bytes) -> str:
    try:
        decoded = unquote_to_bytes(name).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError("the name in the path is not UTF-8") from None
    if len(decoded) > MAX_NAME_CHARS:
        raise InputError(f"the name in the path is longer than {MAX_NAME_CHARS} characters")
    return decoded


def _parse_query(raw_query: bytes) -> Query:
    try:
        pairs = parse_qsl(
            raw_query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except ValueError:
        raise InputError("the query cannot be read: not UTF-8, or too many parameters") from None
    first: dict[str, str] = {}
    for name, value in pairs:
        first.setdefault("doAs" if name.lower() == "doas" else name, value)
    return Query(
        user_name=first.get("user.name"),
        do_as=first.get("doAs"),
        token_operation=_TOKEN_OPERATIONS.get(first.get("op", "").upper()),
        renewer=first.get("renewer"),
        service=first.get("service"),
        token=first.get("token"),
        delegation=first.get("delegation"),
        eek_op=first.get("eek_op"),
        num_keys=first.get("num_keys"),
        qry=first.get("qry"),
        holder=first.get("holder"),
        keys=tuple(value for name, value in pairs if name == "key"),
    )
