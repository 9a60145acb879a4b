"""A door for a browser on this machine to the agent's page: a loopback port of whoever runs `ringfence agent page`.

A browser cannot speak to a Unix socket, and the agent knows callers on its own machine by nothing else. The door
stands between: it asks the agent as the user who runs it, over the Unix socket. Rules:

1. Only that user's own programs get through. Anybody on the machine can connect to a loopback port, so the kernel is
   asked for each request whose the other end is (`/proc/net/tcp`, proc(5)); what it does not say is a refusal.
2. GET and HEAD only, and only the page and what it reads: nothing can be changed through a door.
3. What browsers are made to do by somebody else's page is refused here already (`api.browsers`).
4. It holds no secret, needs none, and ends with the terminal that it was started in.
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from ringfence_agent.api.browsers import BrowserGuard
from ringfence_agent.http.limits import Limits
from ringfence_agent.http.listening import TcpListener, listen_tcp
from ringfence_agent.http.request import Peer, Request
from ringfence_agent.http.response import Response, ResponseHead, plain_error
from ringfence_agent.http.server import HttpServer
from ringfence_agent.http.service import HttpService
from ringfence_zones.unix_http import UnixHTTPConnection

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_ESTABLISHED = "01"
_READ = (b"GET", b"HEAD")
_OPEN = re.compile(rb"/|/page/[a-z.]*|/v1/(?:health|overview|moves/refused|transfers)")
_TIMEOUT_S = 15.0
_DRAIN_S = 1.0
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
# A browser opens six connections at a time.
_LIMITS = Limits(head_bytes=32 * 1024, header_count=64, body_bytes=0, held_body_bytes=0, connections=64)
_PASSED_ON = (
    *("Content-Type", "ETag", "Cache-Control", "Location", "Content-Security-Policy", "X-Content-Type-Options"),
    *("X-Frame-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy"),
)


class PageDoor:
    """An `Application` of the HTTP core that asks the agent at `socket_path`. `find_uid` tells whose a peer is."""

    def __init__(self, socket_path: Path, uid: int, find_uid: Callable[[Peer], int | None]) -> None:
        self._socket_path = socket_path
        self._uid = uid
        self._find_uid = find_uid

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        if request.method not in _READ:
            return plain_error(405, "nothing can be changed through this door")
        if not _OPEN.fullmatch(request.raw_path):
            return plain_error(404, "only the page and what it reads is open here")
        return asyncio.to_thread(self._answer, request)

    def _answer(self, request: Request) -> Response:
        if self._find_uid(request.peer) != self._uid:
            return plain_error(403, "this door is open to the user who runs it")
        known = request.headers.get(b"if-none-match")
        headers = {"If-None-Match": known.decode("latin-1")} if known is not None else {}
        connection = UnixHTTPConnection(self._socket_path, _TIMEOUT_S)
        try:
            # HEAD is asked as GET: the core leaves the body away.
            connection.request("GET", request.raw_path.decode("ascii"), headers=headers)
            answer = connection.getresponse()
            body = answer.read(_MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException):
            return plain_error(502, f"the agent at {self._socket_path} does not answer")
        finally:
            connection.close()
        if len(body) > _MAX_ANSWER_BYTES:
            return plain_error(502, "the agent's answer is too long")
        passed = [(name, value) for name in _PASSED_ON if (value := answer.headers.get(name)) is not None]
        return Response(ResponseHead(answer.status, headers=passed), body)


def find_uid_of(peer: Peer, port: int) -> int | None:
    """The user whose program is at the other end of a loopback connection to our `port`; None when nobody can tell."""
    if peer.address is None or peer.port is None:
        return None
    wanted = {(_row_address(name, peer.port), _row_address(name, port)) for name in _spellings(peer.address)}
    for table in _TABLES:
        try:
            lines = table.read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, remote, state, _, _, _, uid, *_ = line.split()
            if state == _ESTABLISHED and (local, remote) in wanted:
                return int(uid)
    return None


def _spellings(address: str) -> tuple[str, ...]:
    # An IPv4 connection of a program that speaks IPv6 stands in the other table, mapped.
    return (address, f"::ffff:{address}") if "." in address else (address,)


def _row_address(address: str, port: int) -> str:
    """As the kernel writes it: each 32-bit word in the machine's byte order, in hex."""
    packed = ipaddress.ip_address(address).packed
    words = (int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4))
    return f"{''.join(f'{word:08X}' for word in words)}:{port:04X}"


def serve(socket_path: Path, port: int, on_ready: Callable[[str], None]) -> None:
    """Keeps the door open until SIGINT or SIGTERM; `on_ready` gets the page's address. Raises ConfigError."""
    listener = listen_tcp("localhost", port, slots=1)
    try:
        asyncio.run(_run(socket_path, listener, on_ready))
    finally:
        listener.close()


async def _run(socket_path: Path, listener: TcpListener, on_ready: Callable[[str], None]) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    door = PageDoor(socket_path, os.geteuid(), lambda peer: find_uid_of(peer, listener.port))
    service = HttpService(BrowserGuard(door, plain_error), _LIMITS, plain_error)
    # The server closes what it is given when it drains.
    server = HttpServer(service, [one.dup() for one in listener.sockets_for(0)])
    await server.start()
    on_ready(f"http://localhost:{listener.port}/page/")
    await ended.wait()
    await server.drain(_DRAIN_S)
