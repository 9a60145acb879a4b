"""A TCP proxy that cuts a connection at a chosen word of the client's, for what a lost connection leaves behind."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class CuttingProxy:
    """Passes everything on to a loopback port until `cut_at` is armed; each arming cuts once."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._word: bytes | None = None
        self._forward = False
        self.cuts = 0
        self.refuses_after_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_at(self, word: bytes, *, forward: bool) -> None:
        """At the next `word` from a client, closes both sides; `forward` says whether the server still gets it."""
        self._word, self._forward = word, forward

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuses_after_cut and self.cuts:
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target_port)) as server, suppress(OSError):
            while True:
                readable, _, _ = select.select([client, server], [], [])
                for source in readable:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client and self._word is not None and self._word in data:
                        self._word = None
                        self.cuts += 1
                        if self._forward:
                            server.sendall(data)
                            server.recv(65536)  # its answer is what gets lost: the server has done it
                        return
                    (server if source is client else client).sendall(data)


@contextmanager
def cutting_proxy(target_port: int) -> Iterator[CuttingProxy]:
    """A running proxy in front of a loopback port."""
    proxy = CuttingProxy(target_port)
    try:
        yield proxy
    finally:
        proxy.close()
