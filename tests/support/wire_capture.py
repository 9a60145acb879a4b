"""What crosses the loopback interface: captured by a packet socket where this process may, and always by a relay.

The packet socket sees every connection to a port, whoever made it, and needs root. The relay is a SOCKS server that
Hadoop's own clients go through when they are told to (`org.apache.hadoop.net.SocksSocketFactory`); it sees what one
client sends and gets, and needs nothing. A test that asks both learns the same from both, or one of them is wrong.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping

_ETH_P_IP = 0x0800
_TCP = 6
_BUFFER = 64 * 1024 * 1024
_FRAGMENT = 64


class Wire:
    """Bytes by the server's port, both directions of a connection apart."""

    def __init__(self) -> None:
        self._streams: dict[tuple[int, object], bytearray] = defaultdict(bytearray)
        self._lock = threading.Lock()

    def add(self, port: int, connection: object, payload: bytes) -> None:
        with self._lock:
            self._streams[port, connection] += payload

    def size(self, port: int) -> int:
        """How much was seen of that port: a capture that saw nothing proves nothing."""
        return sum(len(stream) for (of, _), stream in self._copy().items() if of == port)

    def share_in_clear(self, port: int, pattern: bytes) -> float:
        """How much of `pattern` can be read there, in pieces of 64 bytes: 1.0 all of it, 0.0 nothing."""
        pieces = [pattern[at : at + _FRAGMENT] for at in range(0, len(pattern), _FRAGMENT)]
        streams = [stream for (of, _), stream in self._copy().items() if of == port]
        return sum(any(piece in stream for stream in streams) for piece in pieces) / len(pieces)

    def find(self, port: int, pattern: bytes) -> bytes | None:
        """What the group of a regular expression matches there first."""
        streams = [stream for (of, _), stream in self._copy().items() if of == port]
        matches = (re.search(pattern, stream, re.DOTALL) for stream in streams)
        return next((match[1] for match in matches if match is not None), None)

    def _copy(self) -> Mapping[tuple[int, object], bytes]:
        with self._lock:
            return {key: bytes(stream) for key, stream in self._streams.items()}


@contextlib.contextmanager
def captured_packets(*ports: int) -> Iterator[Wire | None]:
    """Everything that loopback carries to and from these TCP ports meanwhile; None when this process is not root."""
    if os.geteuid() != 0:
        yield None
        return
    wire = Wire()
    # Bound to IP alone it gets each packet once, on its way in.
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IP)) as packets:
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        packets.bind(("lo", _ETH_P_IP))
        packets.settimeout(0.2)
        ended = threading.Event()
        reader = threading.Thread(target=_read_packets, args=(packets, frozenset(ports), wire, ended))
        reader.start()
        try:
            yield wire
        finally:
            ended.set()
            reader.join()


def _read_packets(packets: socket.socket, ports: frozenset[int], wire: Wire, ended: threading.Event) -> None:
    while True:
        try:
            frame = packets.recv(1 << 17)
        except TimeoutError:
            if ended.is_set():
                return
            continue
        packet = frame[14:]
        if packet[9] != _TCP:
            continue
        header = (packet[0] & 15) * 4
        source, target = struct.unpack_from(">HH", packet, header)
        port = next((port for port in (target, source) if port in ports), None)
        if port is None:
            continue
        length = struct.unpack_from(">H", packet, 2)[0]
        data = header + (packet[header + 12] >> 4) * 4
        # With large offloaded segments the length field says nothing.
        payload = packet[data : length or len(packet)]
        if payload:
            wire.add(port, (source, target), payload)


class Relay:
    """A SOCKS 5 server on loopback that keeps what passes through it."""

    def __init__(self) -> None:
        self.wire = Wire()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Relay:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A blocked accept does not end by close alone.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    @property
    def client_options(self) -> tuple[str, str]:
        """For a command of Hadoop's: every connection of its RPC and of its block transfer goes through the relay."""
        return (
            "-Dhadoop.rpc.socket.factory.class.default=org.apache.hadoop.net.SocksSocketFactory",
            f"-Dhadoop.socks.server=127.0.0.1:{self.port}",
        )

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), client.makefile("rb", buffering=0) as words:
            _version, methods = words.read(2)
            words.read(methods)
            client.sendall(b"\x05\x00")
            _version, _command, _reserved, kind = words.read(4)
            host = socket.inet_ntoa(words.read(4)) if kind == 1 else words.read(words.read(1)[0]).decode()
            port = struct.unpack(">H", words.read(2))[0]
            with socket.create_connection((host, port)) as server:
                client.sendall(b"\x05\x00\x00\x01" + bytes(6))
                back = threading.Thread(target=self._pass_on, args=(server, client, port), daemon=True)
                back.start()
                self._pass_on(client, server, port)
                back.join()

    def _pass_on(self, source: socket.socket, target: socket.socket, port: int) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(1 << 16):
                self.wire.add(port, (id(source), id(target)), chunk)
                target.sendall(chunk)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
