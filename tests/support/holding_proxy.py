"""A TCP proxy that holds up what goes to a database server: a commit under way, its answer, or everything.

For deaths and silences that no timing could hit. Connections stay open while they are held, as on a network that
loses packets.
"""

from __future__ import annotations

import re
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_POLL_S = 0.01
_COMMIT = re.compile(rb"COMMIT(?!TED)")  # not READ COMMITTED


class HoldingProxy:
    """Passes everything on to a loopback port, but for what it was told to hold."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closed = False
        self._is_armed = False
        self._delivers = False
        self._passing = threading.Event()
        self._passing.set()
        self._released = threading.Event()
        self._refusing = False
        self.port: int = self._listener.getsockname()[1]
        self.holds = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def hold_commit(self, *, delivers: bool) -> None:
        """The next one from a client. The server gets it at once when `delivers`, and its answer never arrives;
        otherwise the server gets it at `release`, whatever became of the client.
        """
        self._released.clear()
        self.holds.clear()
        self._delivers = delivers
        self._is_armed = True

    def hold_nothing(self) -> None:
        """Takes back `hold_commit`, unless it holds one already."""
        self._is_armed = False

    def release(self) -> None:
        """What was kept back goes on."""
        self._released.set()

    def be_silent(self) -> None:
        """Nothing passes from here on, and connections stay open."""
        self._passing.clear()

    def be_gone(self) -> None:
        """Every connection ends, and new ones are refused at once."""
        self._refusing = True

    def be_well(self) -> None:
        """Ends either."""
        self._refusing = False
        self._passing.set()

    def close(self) -> None:
        self._closed = True
        self.release()
        self.be_well()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                client.close()
            else:
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target_port)) as server, suppress(OSError):
            while not self._closed and not self._refusing:
                readable, _, _ = select.select([client, server], [], [], _POLL_S)
                self._passing.wait()
                for source in readable:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client and self._is_armed and _COMMIT.search(data):
                        self._is_armed = False
                        self._hold(client, server, data)
                        return
                    (server if source is client else client).sendall(data)

    def _hold(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        if self._delivers:
            server.sendall(data)
            server.recv(65536)  # it has done it
            self.holds.set()
            while client.recv(65536):
                pass
            return
        self.holds.set()
        self._released.wait()
        server.sendall(data)
        server.recv(65536)


@contextmanager
def holding_proxy(target_port: int) -> Iterator[HoldingProxy]:
    """A running proxy in front of a loopback port."""
    proxy = HoldingProxy(target_port)
    try:
        yield proxy
    finally:
        proxy.close()
