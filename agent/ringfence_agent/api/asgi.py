"""Runs an ASGI application on the agent's own HTTP core, with the peer's credentials in its scope.

Why not uvicorn: it hands an application neither peer credentials nor client certificates, and a second HTTP stack
would mean a second TLS and SPNEGO implementation (decision record 0006). The bridge is small because the core has
already read, bounded and checked the whole request: one `http.request` message, one response. It refuses to stream:
the answer is collected and written at once.

Extension of the scope: `ringfence.request` is the core's whole `Request`, with its `Peer`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from ringfence_agent.http.request import Request
from ringfence_agent.http.response import Response, ResponseHead

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApplication = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST = "ringfence.request"
# The core frames the answer and dates it itself.
_CORE_HEADERS = frozenset({b"connection", b"content-length", b"date", b"keep-alive", b"transfer-encoding"})


def asgi_scope(request: Request) -> Scope:
    """The connection scope of ASGI 3. Raises UnicodeDecodeError when the path is not UTF-8."""
    peer = request.peer
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method.decode("ascii"),
        "scheme": "http" if peer.tls is None else "https",
        "path": unquote_to_bytes(request.raw_path).decode("utf-8"),
        "raw_path": request.raw_path,
        "query_string": request.raw_query,
        "root_path": "",
        "headers": list(request.headers.items()),
        "client": None if peer.address is None else (peer.address, 0),
        "server": None,
        "state": {},
        REQUEST: request,
    }


class AsgiBridge:
    """An `Application` of the HTTP core around an ASGI application."""

    def __init__(self, application: AsgiApplication) -> None:
        self._application = application

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        try:
            scope = asgi_scope(request)
        except UnicodeDecodeError:
            return Response(ResponseHead(400), b"")
        return self._run(scope, request.body)

    async def _run(self, scope: Scope, body: bytes) -> Response:
        exchange = _Exchange(body)
        await self._application(scope, exchange.receive, exchange.send)
        return exchange.response()


class _Exchange:
    """One request's side of the ASGI conversation."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._start: Message | None = None
        self._chunks: list[bytes] = []
        self._complete = False

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        # Only an application that watches for a disconnect asks again. The core lets every answer run to its end,
        # so there is none to report: wait until this task is over.
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._start is None:
            self._start = message
        elif message["type"] == "http.response.body" and self._start is not None and not self._complete:
            self._chunks.append(bytes(message.get("body", b"")))
            self._complete = not message.get("more_body", False)
        else:
            raise RuntimeError(f"unexpected ASGI message {message['type']}")

    def response(self) -> Response:
        if self._start is None or not self._complete:
            raise RuntimeError("the ASGI application returned without a complete response")
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in self._start.get("headers", ())
            if name.lower() not in _CORE_HEADERS
        ]
        return Response(ResponseHead(self._start["status"], headers=headers), b"".join(self._chunks))
