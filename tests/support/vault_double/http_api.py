"""The API's listeners: one per node on loopback, with or without TLS, and one on a Unix socket in place of an agent.

Connections are kept alive and each has a thread. An answer leaves in one write. Nothing is logged.
"""

from __future__ import annotations

import json
import re
import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

from vault_double.cluster import Node
from vault_double.core import Core
from vault_double.faults import Faults, Rule
from vault_double.recording import Recording, Seen
from vault_double.wire import MAX_BODY_BYTES, Answer, HttpRequest

_STANDING_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Type": "application/json",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
}
_HANG_LIMIT_S = 90.0
_LOOK_INTERVAL_S = 0.02


class _Handler(BaseHTTPRequestHandler):
    """One connection of one node."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    core: ClassVar[Core]
    faults: ClassVar[Faults]
    recording: ClassVar[Recording]
    node: ClassVar[Node]
    seen: Seen

    def handle_request(self) -> None:
        body = self._read_body()
        if body is None:
            return
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = HttpRequest(
            self.command,
            path.removeprefix("/v1/"),
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers,
            body,
            self.peer(),
        )
        self.seen = self.recording.begin(
            self.node.index,
            self.command,
            request.path,
            headers.get("x-vault-namespace", ""),
            has_token="x-vault-token" in headers,
        )
        try:
            rule = self.faults.find(self.node.index, self.command, request.path)
            if rule is None:
                self._send(request, self._answer(request, path))
            else:
                self._serve_with(rule, request, path)
        except (OSError, ssl.SSLError):
            self.close_connection = True
        finally:
            self.recording.end(self.seen, 0, request.items)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_LIST = do_PATCH = handle_request  # noqa: N815

    def _read_body(self) -> bytes | None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._read_chunks()
        if length > MAX_BODY_BYTES:
            # Read on, so that the client gets to see the refusal; keep none of it.
            while length > 0:
                length -= len(self.rfile.read(min(length, 1 << 20)) or b"x" * length)
            answer = Answer(413, {"errors": ["http: request body too large"]})
            self.wfile.write(_as_bytes(answer, head_only=False))
            return None
        return self.rfile.read(length)

    def _read_chunks(self) -> bytes:
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _answer(self, request: HttpRequest, path: str) -> Answer:
        if "//" in path or "/./" in path or "/../" in path:
            return Answer(307, None, {"Location": re.sub(r"/(\.?/)+", "/", path)})
        if not path.startswith("/v1/"):
            return Answer(404)
        return self.core.answer(self.node, request)

    def _serve_with(self, rule: Rule, request: HttpRequest, path: str) -> None:
        if rule.action == "delay":
            rule.released.wait(rule.seconds)
            self._send(request, self._answer(request, path))
            return
        if rule.action == "hang":
            self._hang(rule)
            return
        answer = self._answer(request, path) if rule.action in _EXECUTING else None
        if rule.action in ("status", "execute_then_status"):
            self._send(request, Answer(rule.status, rule.body, rule.headers))
            return
        self.close_connection = True
        if rule.action == "truncate" and answer is not None:
            whole = _as_bytes(answer, head_only=False)
            self.wfile.write(whole[: max(1, len(whole) - len(_body_of(answer)) // 2 - 1)])

    def _hang(self, rule: Rule) -> None:
        """Until the rule is cleared or the client has gone; then the connection closes without an answer."""
        self.close_connection = True
        waited_s = 0.0
        while not rule.released.wait(_LOOK_INTERVAL_S) and waited_s < _HANG_LIMIT_S:
            waited_s += _LOOK_INTERVAL_S
            if isinstance(self.connection, ssl.SSLSocket):
                continue
            readable, _, _ = select.select([self.connection], [], [], 0)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return

    def _send(self, request: HttpRequest, answer: Answer) -> None:
        self.recording.end(self.seen, answer.status, request.items)
        self.wfile.write(_as_bytes(answer, head_only=self.command == "HEAD"))

    def peer(self) -> str:
        """The client's address; a Unix socket's client has none."""
        address: object = self.client_address
        return str(address[0]) if isinstance(address, tuple) and address else "unix"

    def log_message(self, *_arguments: object) -> None:
        pass

    def address_string(self) -> str:
        return "client"


_EXECUTING = ("execute_then_status", "execute_then_drop", "truncate")


def _body_of(answer: Answer) -> bytes:
    if isinstance(answer.body, str):
        return answer.body.encode()
    return b"" if answer.body is None else json.dumps(answer.body, separators=(",", ":")).encode() + b"\n"


def _as_bytes(answer: Answer, *, head_only: bool) -> bytes:
    body = _body_of(answer)
    reason = BaseHTTPRequestHandler.responses.get(answer.status, ("Unknown",))[0]
    headers = {**_STANDING_HEADERS, **answer.headers}
    if answer.status != 204:
        headers["Content-Length"] = str(len(body))
    lines = [f"HTTP/1.1 {answer.status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (b"" if head_only else body)


class _TcpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: object, client_address: object) -> None:
        # The handshake belongs in the connection's thread: a silent client must not stop the listener.
        try:
            if self.tls is not None:
                assert isinstance(request, socket.socket)
                request = self.tls.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)  # type: ignore[arg-type]
        except OSError:
            pass

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left is no news."""


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left is no news."""


class Api:
    """The listeners of all nodes."""

    def __init__(self, core: Core, faults: Faults, recording: Recording) -> None:
        self._parts = {"core": core, "faults": faults, "recording": recording}

    def listen(self, node: Node, tls: Mapping[str, str] | None, port: int = 0) -> None:
        """A listener for a node on a free loopback port; sets the node's address."""
        server = _TcpServer(("127.0.0.1", port), self._handler(node))
        if tls is not None:
            server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.tls.load_cert_chain(tls["certificate"], tls["key"])
        node.address = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def listen_unix(self, node: Node, path: Path) -> None:
        """Also on a Unix socket, as a Vault Agent's listener would be."""
        server = _UnixServer(str(path), self._handler(node, disable_nagle_algorithm=False))
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def _handler(self, node: Node, **settings: object) -> type[_Handler]:
        return type("NodeHandler", (_Handler,), {**self._parts, **settings, "node": node})
