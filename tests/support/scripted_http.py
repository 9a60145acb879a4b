"""A server that answers what a test tells it to, for failures no healthy server can be made to show.

It records every request. What a real server does is tested against real servers.
"""

from __future__ import annotations

import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class ScriptedServer:
    """`address` is a port, or a path for a Unix socket."""

    port: int
    seen: list[Seen] = field(default_factory=list)


# Status, body, and headers where a test needs some; None closes the connection without an answer.
Answer = tuple[int, bytes] | tuple[int, bytes, dict[str, str]] | None
Script = Callable[[Seen], Answer]


@contextmanager
def scripted_server(
    script: Script, unix_socket: Path | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[ScriptedServer]:
    """Serves `script` on a free loopback port, with `tls` over TLS, or on a Unix socket, until the block ends."""
    server = ScriptedServer(0)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            seen = Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            server.seen.append(seen)
            answer = script(seen)
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer[0])
            self.send_header("Content-Type", "application/json")
            for name, value in (answer[2] if len(answer) == 3 else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer[1])))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer[1])

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_LIST = answer  # noqa: N815

        def log_message(self, *_arguments: object) -> None:
            pass

    # A Unix peer has no address to log.
    Handler.address_string = lambda _self: "unix"  # type: ignore[method-assign]
    listener: socketserver.BaseServer
    if unix_socket is not None:
        listener = _UnixServer(str(unix_socket), Handler)
    else:
        tcp = _TcpServer(("127.0.0.1", 0), Handler)
        server.port = tcp.server_address[1]
        if tls is not None:
            tcp.socket = tls.wrap_socket(tcp.socket, server_side=True, do_handshake_on_connect=False)
        listener = tcp
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


class _TcpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
