"""A proxy in front of a key server that lets single requests go wrong, as networks and dying servers do.

Handshakes (OPTIONS) pass; every other request takes the next fault of the list, and passes when the list is used up.
What was asked is remembered, so that a case can tell how often a client really sent something.
"""

from __future__ import annotations

import enum
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_TIMEOUT_S = 30.0
SLOW_S = 2.5
"""How long a SLOW answer takes: longer than the client's timeout in these cases."""


class Fault(enum.Enum):
    """What happens to one request."""

    PASSES = "passes"
    NO_ANSWER = "closed, not served"
    ANSWER_LOST = "served, closed without an answer"
    SLOW = "served, answered after the client's timeout"
    UNAVAILABLE = "503 without JSON"
    RETRIABLE = "503 RetriableException"
    IO_ERROR = "500 IOException"
    UNAUTHORIZED = "401 without a session"
    FORBIDDEN = "403 without JSON"


_JSON_FAULTS = {
    Fault.RETRIABLE: (503, "org.apache.hadoop.ipc.RetriableException"),
    Fault.IO_ERROR: (500, "java.io.IOException"),
}
_PLAIN_FAULTS = {Fault.UNAVAILABLE: 503, Fault.UNAUTHORIZED: 401, Fault.FORBIDDEN: 403}


class FaultyProxy(ThreadingHTTPServer):
    """Listens on one address, forwards to `server_port` on localhost."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], server_port: int, faults: Sequence[Fault], *, for_ever: bool) -> None:
        super().__init__(address, _Handler)
        self.server_port_behind = server_port
        self.asked: list[str] = []
        self._faults = list(faults)
        self._for_ever = for_ever
        self._lock = threading.Lock()

    def next_fault(self, asked: str) -> Fault:
        """The fault for a request, which is noted."""
        with self._lock:
            self.asked.append(asked)
            if not self._faults:
                return Fault.PASSES
            return self._faults[0] if self._for_ever else self._faults.pop(0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what these cases are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        fault = Fault.PASSES
        if self.command != "OPTIONS":
            fault = self.server.next_fault(f"{self.command} {self.path.partition('?')[0]}")
        if fault is Fault.NO_ANSWER:
            self._hang_up()
        elif fault in _PLAIN_FAULTS:
            self._answer(
                _PLAIN_FAULTS[fault], {"WWW-Authenticate": "PseudoAuth"} if fault is Fault.UNAUTHORIZED else {}
            )
        elif fault in _JSON_FAULTS:
            self._refuse(*_JSON_FAULTS[fault])
        else:
            self._forward(body, fault)

    # http.server finds its methods by these names.
    do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = _handle  # noqa: N815

    def _forward(self, body: bytes, fault: Fault) -> None:
        behind = http.client.HTTPConnection("localhost", self.server.server_port_behind, timeout=_TIMEOUT_S)
        try:
            behind.request(self.command, self.path, body or None, dict(self.headers))
            answer = behind.getresponse()
            content = answer.read()
        finally:
            behind.close()
        if fault is Fault.ANSWER_LOST:
            self._hang_up()
            return
        if fault is Fault.SLOW:
            time.sleep(SLOW_S)
        kept = ("content-type", "set-cookie", "www-authenticate")
        headers = {name: value for name, value in answer.getheaders() if name.lower() in kept}
        self._answer(answer.status, headers, content, answer.reason)

    def _refuse(self, status: int, java_class: str) -> None:
        error = {"message": "a fault", "exception": java_class.rpartition(".")[2], "javaClassName": java_class}
        self._answer(status, {"Content-Type": "application/json"}, json.dumps({"RemoteException": error}).encode())

    def _answer(self, status: int, headers: dict[str, str], content: bytes = b"", reason: str | None = None) -> None:
        self.send_response(status, reason)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextmanager
def faulty_proxy(
    server_port: int, faults: Sequence[Fault], *, host: str = "127.0.0.1", port: int = 0, for_ever: bool = False
) -> Iterator[FaultyProxy]:
    """A proxy that is listening; `for_ever` repeats the first fault instead of using the list up."""
    with FaultyProxy((host, port), server_port, faults, for_ever=for_ever) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
