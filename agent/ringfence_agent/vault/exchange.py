"""One HTTP exchange of the control plane with one node of Vault, or with the socket of a Vault Agent.

Rules:

1. Neither the environment's proxies, `.netrc` nor CA variables apply; no cookie is kept; no redirect is followed.
2. An answer is read up to a bound and within a deadline, whatever its status.
3. What requests and http.client raise ends here: their exceptions hold the request with its token. What leaves is
   `ProtectorUnavailableError`, made outside of their handlers so that it has no context to lead back to them.
"""

from __future__ import annotations

import errno
import http.client
import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http import cookiejar
from pathlib import Path
from typing import Any, Protocol

import requests
import urllib3
from requests.adapters import HTTPAdapter

from ringfence_agent.vault.connection import make_tls_context
from ringfence_agent.vault.settings import VaultSettings
from ringfence_zones.errors import ProtectorUnavailableError
from ringfence_zones.secret import Secret
from ringfence_zones.unix_http import UnixHTTPConnection

NO_TOKEN = Secret(b"")
_MAX_ANSWER_BYTES = 32 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: to connect, for each wait, and for the whole answer."""

    connect_s: float
    read_s: float
    whole_s: float

    def within(self, seconds: float) -> Patience:
        """No longer than that altogether."""
        return Patience(min(self.connect_s, seconds), min(self.read_s, seconds), min(self.whole_s, seconds))


PROBE = Patience(1.0, 2.0, 2.0)
CALL = Patience(2.0, 5.0, 8.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultRequest:
    """`path` follows `/v1/`. The body and the token never show themselves."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    token: Secret = NO_TOKEN
    namespace: str | None = None
    wrap_ttl_s: int | None = None

    @property
    def what(self) -> str:
        """How messages name it."""
        return f"{self.method} {self.path}"

    @property
    def headers(self) -> dict[str, str]:
        """Vault's headers. X-Vault-Request is what an Agent asks for so that no browser can be made to call it."""
        headers = {"X-Vault-Request": "true", "Accept": "application/json", "Accept-Encoding": "identity"}
        if self.body is not None:
            headers["Content-Type"] = "application/json"
        if len(self.token):
            headers["X-Vault-Token"] = self.token.reveal().decode("ascii")
        if self.namespace is not None:
            headers["X-Vault-Namespace"] = self.namespace
        if self.wrap_ttl_s is not None:
            headers["X-Vault-Wrap-TTL"] = f"{self.wrap_ttl_s}s"
        return headers


@dataclass(frozen=True, slots=True)
class VaultAnswer:
    """A whole answer. Its body may be secret whatever the status."""

    status: int
    body: bytes = field(repr=False)
    retry_after_s: float = 0.0

    @property
    def json(self) -> dict[str, Any]:
        """The body as an object; empty for a body that is none."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}


class Way(Protocol):
    """How one node is reached."""

    def send(self, request: VaultRequest, patience: Patience) -> VaultAnswer:
        """The answer, whatever its status. Raises ProtectorUnavailableError; without `may_have_changed` the request
        certainly did not arrive."""

    def close(self) -> None:
        """Closes what is open."""


class TcpWay:
    """A node by its address. May be used by several threads."""

    def __init__(self, address: str, settings: VaultSettings) -> None:
        self._address = address
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.cookies.set_policy(cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        context = make_tls_context(settings.ca_file) if address.startswith("https:") else None
        self._session.mount(address, _Adapter(context))

    def send(self, request: VaultRequest, patience: Patience) -> VaultAnswer:
        """See Way."""
        try:
            return self._send(request, patience)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            why, arrived = _why(error), not _never_left(error)
        raise _unreachable(self._address, why, may_have_changed=arrived)

    def _send(self, request: VaultRequest, patience: Patience) -> VaultAnswer:
        give_up_at = time.monotonic() + patience.whole_s
        prepared = self._session.prepare_request(
            requests.Request(
                request.method,
                f"{self._address}/v1/{request.path}",
                params=dict(request.params),
                data=request.body,
                headers=request.headers,
            )
        )
        timeout = (patience.connect_s, patience.read_s)
        with self._session.send(prepared, timeout=timeout, allow_redirects=False, stream=True) as answer:
            # One system call at a time: what drips must not outlive the deadline.
            body = _read_within(lambda: answer.raw.read1(_CHUNK_BYTES, decode_content=False), give_up_at)
            return VaultAnswer(answer.status_code, body, _seconds(answer.headers.get("Retry-After")))

    def close(self) -> None:
        """Closes the connections."""
        self._session.close()


class SocketWay:
    """The Unix socket of a Vault Agent or Proxy: one connection per call, for it is on this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, request: VaultRequest, patience: Patience) -> VaultAnswer:
        """See Way."""
        arrived = False
        give_up_at = time.monotonic() + patience.whole_s
        try:
            with closing(UnixHTTPConnection(self._path, patience.read_s)) as connection:
                connection.connect()
                arrived = True
                target = requests.Request("GET", f"http://localhost/v1/{request.path}", params=dict(request.params))
                connection.request(request.method, target.prepare().path_url, request.body, request.headers)
                answer = connection.getresponse()
                body = _read_within(lambda: answer.read1(_CHUNK_BYTES), give_up_at)
                return VaultAnswer(answer.status, body, _seconds(answer.headers.get("Retry-After")))
        except TimeoutError:
            why = "no answer in time"
        except OSError as error:
            why = error.strerror or "the connection broke off"
        except http.client.HTTPException:
            why = "what it sends is no HTTP"
        raise _unreachable(str(self._path), why, may_have_changed=arrived)

    def close(self) -> None:
        """Nothing stays open."""


class _Adapter(HTTPAdapter):
    """TLS with our own trust instead of the authorities that requests brings."""

    def __init__(self, context: Any) -> None:
        self._context = context
        super().__init__(pool_connections=1, pool_maxsize=_CONNECTIONS)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        if self._context is not None:
            options["ssl_context"] = self._context
        super().init_poolmanager(*arguments, **options)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:  # noqa: ARG002 - the interface's
        conn.cert_reqs = "CERT_REQUIRED"


def _read_within(read: Callable[[], bytes], give_up_at: float) -> bytes:
    """All that `read` gives until it gives nothing. Raises TimeoutError, and OSError for too much."""
    body = bytearray()
    while chunk := read():
        body += chunk
        if len(body) > _MAX_ANSWER_BYTES:
            raise OSError(errno.EMSGSIZE, f"it sends more than {_MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > give_up_at:
            raise TimeoutError
    return bytes(body)


def _unreachable(node: str, why: str, *, may_have_changed: bool) -> ProtectorUnavailableError:
    tls = "certificate" in why
    return ProtectorUnavailableError(
        f"Vault at {node} does not answer: {why}",
        hint="name the PEM file of the authority that signed its certificate as vault.ca_file" if tls else None,
        may_have_changed=may_have_changed,
        reason="unreachable",
    )


def _seconds(retry_after: str | None) -> float:
    """Retry-After in seconds; 0 without one, or for a date."""
    return float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else 0.0


def _never_left(error: Exception) -> bool:
    """Whether no byte of the request can have reached a server. TLS fails in its handshake, which comes first."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(
        reason,
        urllib3.exceptions.NewConnectionError
        | urllib3.exceptions.NameResolutionError
        | urllib3.exceptions.ConnectTimeoutError
        | urllib3.exceptions.SSLError,
    )


def _why(error: Exception) -> str:
    """A few words of our own: what requests says names addresses, classes and pools."""
    if isinstance(error, requests.exceptions.SSLError):
        return "its TLS certificate is not trusted or names another host, or it speaks no TLS"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno == errno.EMSGSIZE and error.strerror:
        return error.strerror
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(reason, urllib3.exceptions.NameResolutionError):
        return "unknown host"
    return "connection refused" if _never_left(error) else "the connection broke off"
