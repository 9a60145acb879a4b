"""Serving in one process: accept, sweep, drain.

Draining loses no request that reached this machine before it began: what waits in the accept queue is taken, each
connection's next request is answered with `Connection: close`, connections that stay idle are closed, and only then
does the process go.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ringfence_agent.http.protocol import HttpProtocol
from ringfence_agent.http.service import HttpService

if TYPE_CHECKING:  # a server without TLS does without `cryptography`
    from ringfence_agent.http.tls import ServerTls

_log = logging.getLogger(__name__)

_BACKLOG = 1024
# A client that holds an idle connection may be about to use it. It learns of the drain with its next answer, or is
# closed after this long without a request.
_DRAIN_QUIET_S = 1.5
_DRAIN_POLL_S = 0.05
_TLS_POLL_S = 2.0


class HttpServer:
    """Serves one `HttpService` on listening sockets that belong to someone else (the supervisor's master).

    Needs a running event loop. `sweep_interval_s` is how often deadlines are enforced and Date is refreshed. With `tls`
    every TCP socket speaks TLS and nothing else; a Unix socket never does.
    """

    def __init__(
        self,
        service: HttpService,
        sockets: Sequence[socket.socket],
        *,
        tls: ServerTls | None = None,
        sweep_interval_s: float = 1.0,
    ) -> None:
        self._service = service
        self._sockets = list(sockets)
        self._tls = tls
        self._tls_watch: asyncio.Task[None] | None = None
        self._sweep_interval_s = sweep_interval_s
        self._servers: list[asyncio.AbstractServer] = []
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Accepts connections from now on."""
        loop = asyncio.get_running_loop()
        self._sweep()
        if self._tls is not None:
            self._tls.refresh()  # the files may have changed since the fork
            self._tls_watch = loop.create_task(self._watch_tls(self._tls))
        for listening in self._sockets:
            # The event loop closes what it is given; the original stays for the last accept of the drain.
            own = listening.dup()
            if listening.family == socket.AF_UNIX:
                self._servers.append(await loop.create_unix_server(self._protocol, sock=own, backlog=_BACKLOG))
            else:
                self._servers.append(await loop.create_server(self._tcp_protocol, sock=own, backlog=_BACKLOG))

    async def drain(self, timeout_s: float) -> bool:
        """Stops accepting and returns when every connection is done, or after `timeout_s`, cutting off the rest.

        Returns whether everything was answered. Closes this process's copies of the listening sockets.
        """
        service = self._service
        service.draining = True
        for server in self._servers:
            server.close()
        await self._accept_queued()
        deadline = time.monotonic() + timeout_s
        while service.connections or service.awaited:
            if time.monotonic() > deadline:
                break
            self._tick()
            for connection in tuple(service.connections):
                connection.retire(service.now, _DRAIN_QUIET_S)
            await asyncio.sleep(_DRAIN_POLL_S)
        finished = not service.connections and not service.awaited
        if not finished:
            _log.warning("%d connections were cut off after %g s of draining", len(service.connections), timeout_s)
        if service.outbox is not None:
            service.outbox.flush()
        for connection in tuple(service.connections):
            connection.abort()
        if self._timer is not None:
            self._timer.cancel()
        if self._tls_watch is not None:
            self._tls_watch.cancel()
        return finished

    async def _accept_queued(self) -> None:
        """Takes the connections that clients already see as open. A new worker may be taking them as well."""
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            listening.setblocking(False)
            with suppress(OSError):  # BlockingIOError: the queue is empty
                while True:
                    accepted, _ = listening.accept()
                    unix = listening.family == socket.AF_UNIX
                    await loop.connect_accepted_socket(self._protocol if unix else self._tcp_protocol, accepted)
            listening.close()

    def _protocol(self) -> HttpProtocol:
        return HttpProtocol(self._service)

    def _tcp_protocol(self) -> asyncio.Protocol:
        protocol = self._protocol()
        return protocol if self._tls is None else self._tls.connection(self._service, protocol)

    async def _watch_tls(self, tls: ServerTls) -> None:
        """Takes up changed certificates. The files may lie on a slow disk: they are read in a thread."""
        while True:
            await asyncio.sleep(_TLS_POLL_S)
            try:
                change = await asyncio.to_thread(tls.find_change)
                if change is not None:
                    tls.apply(change)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a file, the watch and the old one stay
                self._service.report_bug(error)

    def _tick(self) -> None:
        self._service.tick(asyncio.get_running_loop().time(), time.time())

    def _sweep(self) -> None:
        self._tick()
        for connection in tuple(self._service.connections):
            try:
                connection.expire(self._service.now)
            except Exception as error:  # noqa: BLE001 - one bad connection must not end the sweep of all others
                self._service.report_bug(error)
                connection.abort()
        self._timer = asyncio.get_running_loop().call_later(self._sweep_interval_s, self._sweep)
