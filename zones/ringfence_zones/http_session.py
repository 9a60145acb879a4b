"""HTTP to the daemons of a cluster: straight to the host named, as whoever this process can prove to be.

Rules:

1. Neither the environment's proxies nor `.netrc` apply, and no redirect is followed.
2. Without Kerberos nothing is added to a request and no cookie kept: each request says who it is, and a signed cookie
   would only age.
3. With Kerberos a request carries the cookie of this session, else a fresh token (SPNEGO). A cookie that is not taken
   any more costs one repetition: what was answered with 401 was not carried out. The server must prove itself too.
4. An answer is read up to a bound.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus, cookiejar
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from ringfence_zones.errors import AuthenticationError
from ringfence_zones.kerberos import KerberosLogin
from ringfence_zones.tls_trust import TlsTrust

_COOKIE = re.compile(r'hadoop\.auth=("[^"]*"|[^;,]*)')
_TOKEN = re.compile(r"Negotiate\s+([A-Za-z0-9+/]+=*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HttpAccess:
    """How this process proves itself over HTTP (None: not at all) and whose certificates it trusts."""

    kerberos: KerberosLogin | None = None
    trust: TlsTrust = field(default_factory=TlsTrust)


PLAIN_ACCESS = HttpAccess()
"""Nothing is proven, the system's authorities are trusted."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer; `body` is cut one byte above the bound that was asked for."""

    status: int
    body: bytes


class DaemonSession:
    """Connections that stay open, with one cookie for each server. Not to be shared between threads."""

    def __init__(self, access: HttpAccess = PLAIN_ACCESS) -> None:
        self._kerberos = access.kerberos
        self._trust = access.trust
        self._session = _direct_session()
        self._trusts = False
        self._cookies: dict[str, str] = {}

    def exchange(
        self,
        method: str,
        url: str,
        *,
        timeout: tuple[float, float],
        max_bytes: int,
        params: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpAnswer:
        """One request and its answer; `timeout` in seconds to connect and for each wait.

        Raises requests' exceptions, AuthenticationError, and ConfigError for trust that cannot be set up.
        """
        request = requests.Request(method, url, params=list(params), data=body, headers=dict(headers or {}))
        if self._kerberos is None:
            return self._send(request, {}, timeout, max_bytes)[0]
        parts = urlsplit(url)
        cookie = self._cookies.get(parts.netloc)
        if cookie is not None:
            answer, received = self._send(request, {"Cookie": cookie}, timeout, max_bytes)
            if answer.status != HTTPStatus.UNAUTHORIZED:
                self._keep_cookie(parts.netloc, received)
                return answer
            del self._cookies[parts.netloc]
        return self._negotiate(self._kerberos, request, parts.netloc, timeout, max_bytes)

    def _negotiate(
        self, login: KerberosLogin, request: requests.Request, server: str, timeout: tuple[float, float], max_bytes: int
    ) -> HttpAnswer:
        host = urlsplit(request.url or "").hostname or ""
        with login.initiate(host) as initiator:
            try:
                token = initiator.first_token()
            except AuthenticationError as error:
                raise login.no_ticket(error.message) from error
            header = {"Authorization": f"Negotiate {base64.b64encode(token).decode()}"}
            answer, received = self._send(request, header, timeout, max_bytes)
            if answer.status == HTTPStatus.UNAUTHORIZED:
                raise AuthenticationError(
                    f"{server} does not accept this Kerberos ticket",
                    hint=f"is HTTP/{host} the name in its keytab, and does its keytab hold the present key?",
                    command=login.command,
                )
            proof = _TOKEN.search(received.get("WWW-Authenticate", ""))
            # Errors that a server makes outside its Kerberos filter carry no proof, and nothing to rely on.
            if proof is not None or answer.status < HTTPStatus.BAD_REQUEST:
                initiator.verify(_decoded(proof))
        self._keep_cookie(server, received)
        return answer

    def _keep_cookie(self, server: str, received: Mapping[str, str]) -> None:
        found = _COOKIE.search(received.get("Set-Cookie", ""))
        if found is not None:
            value = found[1].strip('"')
            if value:
                self._cookies[server] = f'hadoop.auth="{value}"'
            else:
                self._cookies.pop(server, None)

    def _send(
        self, request: requests.Request, extra: Mapping[str, str], timeout: tuple[float, float], max_bytes: int
    ) -> tuple[HttpAnswer, Mapping[str, str]]:
        if not self._trusts and (request.url or "").startswith("https:"):
            # With the first TLS connection: a cluster without TLS needs no trust store.
            self._session.mount("https://", _TrustingAdapter(self._trust.make_context()))
            self._trusts = True
        prepared = self._session.prepare_request(request)
        prepared.headers.update(extra)
        with self._session.send(prepared, timeout=timeout, allow_redirects=False, stream=True) as answer:
            content = answer.raw.read(max_bytes + 1, decode_content=True)
            return HttpAnswer(answer.status_code, content), answer.headers

    def close(self) -> None:
        """Closes the connections."""
        self._session.close()


def _decoded(proof: re.Match[str] | None) -> bytes:
    try:
        return base64.b64decode(proof[1], validate=True) if proof is not None else b""
    except binascii.Error:
        return b""


def _direct_session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.cookies.set_policy(_NoCookies())
    return session


class _TrustingAdapter(HTTPAdapter):
    """TLS with our own trust instead of the authorities that requests brings."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, ssl_context=self._context)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:  # noqa: ARG002 - the interface's
        conn.cert_reqs = "CERT_REQUIRED"


class _NoCookies(cookiejar.DefaultCookiePolicy):
    def set_ok(self, cookie: Any, request: Any) -> bool:  # noqa: ARG002 - the interface's signature
        return False
