"""One HttpServer in a background thread, and a client that sends and reads raw bytes."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import uvloop

from ringfence_agent.http.limits import Limits
from ringfence_agent.http.listening import Listener, listen_tcp
from ringfence_agent.http.outbox import Recorded
from ringfence_agent.http.response import Application, ErrorRenderer, plain_error
from ringfence_agent.http.server import HttpServer
from ringfence_agent.http.service import HttpService
from ringfence_agent.http.tls import ServerTls

DEADLINE_S = 10.0


@dataclass
class Running:
    """A server under test. `service` belongs to the server's thread; tests only read numbers from it."""

    listener: Listener
    service: HttpService
    loop: asyncio.AbstractEventLoop
    server: HttpServer
    client_context: ssl.SSLContext | None = None

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listener.sockets_for(0)[0].getsockname()[:2]
        return host, port

    def connect(self, context: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None) -> RawClient:
        """Through the TLS handshake where a context is given, here or to `serving`."""
        client = self.connect_plain()
        context = context or self.client_context
        if context is not None:
            try:
                client.socket = context.wrap_socket(client.socket, server_hostname="localhost", session=session)
            except BaseException:
                client.socket.close()
                raise
        return client

    def connect_plain(self) -> RawClient:
        """Without TLS, whatever the server speaks."""
        return RawClient(socket.create_connection(self.address, timeout=DEADLINE_S))

    def drain(self, timeout_s: float = 5.0) -> bool:
        return asyncio.run_coroutine_threadsafe(self.server.drain(timeout_s), self.loop).result(DEADLINE_S)


@dataclass
class Answer:
    """One parsed response. Header names keep the case they arrived in."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


@dataclass
class RawClient:
    """Bytes in, bytes out; `read_answer` parses exactly one response."""

    socket: socket.socket
    buffer: bytes = field(default=b"")

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            self._fill()
        found, self.buffer = self.buffer.split(mark, 1)
        return found + mark

    def read_answer(self, *, to_head: bool = False) -> Answer:
        lines = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")[:-2]
        version, status, reason = lines[0].split(" ", 2)
        assert version == "HTTP/1.1"
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines[1:])]
        length = int(next((value for name, value in headers if name == "Content-Length"), "0"))
        if to_head:
            length = 0
        pieces, size = [self.buffer], len(self.buffer)
        while size < length:  # Pieces, because a large answer that grows byte string by byte string takes seconds.
            pieces.append(self._receive())
            size += len(pieces[-1])
        self.buffer = b"".join(pieces)
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return Answer(int(status), reason, headers, body)

    def end_input(self) -> None:
        """Says that nothing more will be sent, and still reads: close_notify over TLS, a half-closed socket else."""
        if not isinstance(self.socket, ssl.SSLSocket):
            self.socket.shutdown(socket.SHUT_WR)
            return
        # OpenSSL looks for the other side's close_notify at once, and drops an answer that it finds in its place. So it
        # gets a descriptor on which nothing arrives, and what it wrote there is passed on.
        connection = socket.socket(fileno=os.dup(self.socket.fileno()))
        ours, openssls = socket.socketpair()
        with connection, ours, openssls:
            os.dup2(openssls.fileno(), self.socket.fileno())
            self.socket.settimeout(0)
            with suppress(ssl.SSLWantReadError):
                self.socket.unwrap()
            os.dup2(connection.fileno(), self.socket.fileno())
            self.socket.settimeout(DEADLINE_S)
            connection.sendall(ours.recv(65536))

    def is_closed(self) -> bool:
        """Waits for the server to close; false when it says something more instead."""
        try:
            return self.buffer == b"" and self.socket.recv(1) == b""
        except (ConnectionResetError, ssl.SSLZeroReturnError):
            return True

    def _fill(self) -> None:
        self.buffer += self._receive()

    def _receive(self) -> bytes:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError(f"closed by the server after {self.buffer[:200]!r}")
        return data


@contextmanager
def serving(
    application: Application | Recorded,
    *,
    limits: Limits | None = None,
    render_error: ErrorRenderer = plain_error,
    listener: Listener | None = None,
    tls: ServerTls | None = None,
    client_context: ssl.SSLContext | None = None,
    sweep_interval_s: float = 0.02,
) -> Iterator[Running]:
    """Serves on a free loopback port, or on the given listener, until the block ends."""
    listener = listener or listen_tcp("127.0.0.1", 0, slots=1)
    service = HttpService(application, limits or Limits(), render_error)
    server = HttpServer(service, listener.sockets_for(0), tls=tls, sweep_interval_s=sweep_interval_s)
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(DEADLINE_S)
        running = Running(listener, service, loop, server, client_context)
        yield running
    finally:
        # Also after a failure: uvloop waits for ever for open connections when it is closed.
        if not service.draining:
            asyncio.run_coroutine_threadsafe(server.drain(0.0), loop).result(DEADLINE_S)
        listener.close()
        asyncio.run_coroutine_threadsafe(_cancel_tasks(service), loop).result(DEADLINE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE_S)
        loop.close()


async def _cancel_tasks(service: HttpService) -> None:
    """What asyncio.run does at its end."""
    tasks = [answer for answer in service.awaited if isinstance(answer, asyncio.Task)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
