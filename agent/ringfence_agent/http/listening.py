"""Listening sockets, made before the fork, and who is at the other end of a connection.

Every listener is held open by the master for its whole life, so that connections waiting in a socket's queue survive
the death or replacement of the worker that serves it.

It refuses to share a TCP port with another program, even one of the same user that asks for SO_REUSEPORT too, and to
put a Unix socket where somebody else could replace it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ringfence_agent.http.request import TLS_PEER, Peer
from ringfence_zones.errors import ConfigError

_BACKLOG = 1024
# sun_path of sockaddr_un is 108 bytes with its terminating zero (unix(7)).
_UNIX_PATH_BYTES = 107
_PORT_ATTEMPTS = 20
_OVERFLOW_UID = 65534
_UCRED = struct.Struct("3i")
_NOT_ON_THIS_MACHINE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Listener(Protocol):
    """Sockets that a worker accepts from."""

    @property
    def label(self) -> str:
        """How messages name it."""

    def sockets_for(self, slot: int) -> Sequence[socket.socket]:
        """The listening sockets of one worker slot; other slots may have the same or others."""

    def keep_only(self, slot: int) -> None:
        """In a worker, after the fork: closes the sockets of other slots."""

    def close(self) -> None:
        """In the process that made it: stops listening and leaves nothing behind. Idempotent."""


class TcpListener:
    """One SO_REUSEPORT socket per worker slot and address: the kernel spreads connections over the slots."""

    def __init__(self, host: str, port: int, by_slot: Sequence[Sequence[socket.socket]]) -> None:
        self.host = host
        self.port = port
        self._by_slot = by_slot

    @property
    def label(self) -> str:
        return f"{self.host}:{self.port}"

    def sockets_for(self, slot: int) -> Sequence[socket.socket]:
        return self._by_slot[slot]

    def keep_only(self, slot: int) -> None:
        for other, sockets in enumerate(self._by_slot):
            if other != slot:
                _close_all(sockets)

    def close(self) -> None:
        for sockets in self._by_slot:
            _close_all(sockets)


class UnixListener:
    """One socket in the file system that all workers accept from; its file is removed on close if it is still ours."""

    def __init__(self, path: Path, listening: socket.socket) -> None:
        self.path = path
        self._socket = listening
        self._identity = _identity(path)

    @property
    def label(self) -> str:
        return str(self.path)

    def sockets_for(self, slot: int) -> Sequence[socket.socket]:  # noqa: ARG002 - every slot shares it
        return (self._socket,)

    def keep_only(self, slot: int) -> None:
        """Nothing to close: every slot shares the one socket."""

    def close(self) -> None:
        if self._socket.fileno() < 0:
            return
        self._socket.close()
        with suppress(OSError):
            if _identity(self.path) == self._identity:
                self.path.unlink()


def parse_listen(text: str) -> tuple[str, int]:
    """`HOST:PORT`, IPv6 in brackets; port 0 picks one. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"cannot listen on {text!r}", hint="write HOST:PORT, for example localhost:9600")
    return host, int(port)


def turn_away(sockets: Sequence[socket.socket]) -> None:
    """Closes every connection that waits to be accepted: its client tries again, or another server, at once."""
    for one in sockets:
        one.setblocking(False)
        with suppress(OSError):
            while True:
                one.accept()[0].close()


def listen_tcp(host: str, port: int, *, slots: int) -> TcpListener:
    """Listens on every address of `host`, with one socket per slot. Port 0 picks one that all slots share.

    Raises ConfigError when the name has no address here or the port is taken.
    """
    addresses = _addresses(host, port)
    for attempt in range(_PORT_ATTEMPTS):
        try:
            return _listen_all(host, port, addresses, slots)
        except OSError as error:
            # A port picked on the first address can be taken on the second: pick another.
            if port == 0 and error.errno == errno.EADDRINUSE and attempt + 1 < _PORT_ATTEMPTS:
                continue
            raise _tcp_error(host, port, error) from error
    raise AssertionError("the last attempt returns or raises")


def listen_unix(path: Path, *, mode: int = 0o660) -> UnixListener:
    """Listens on a Unix socket with these permission bits; takes over the file of a dead predecessor.

    Raises ConfigError when the path is too long, the directory is open to others, or something else is there.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow a link put in the socket's place
    length_bytes = len(os.fsencode(path))
    if length_bytes > _UNIX_PATH_BYTES:
        raise ConfigError(
            f"the Unix socket path {path} has {length_bytes} bytes; the system allows {_UNIX_PATH_BYTES}",
            hint="choose a shorter path, for example below /run",
        )
    _check_directory(path)
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous_umask = os.umask(0o177)
    try:
        listening.bind(str(path))
        path.chmod(mode)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise ConfigError(f"cannot listen on the Unix socket {path}: {error.strerror}") from error
    finally:
        os.umask(previous_umask)
    return UnixListener(path, listening)


def find_peer(transport: asyncio.BaseTransport) -> Peer | None:
    """Who is at the other end; None when the connection is gone already."""
    connection = transport.get_extra_info("socket")
    if connection is None:
        return None
    if connection.family == socket.AF_UNIX:
        return _find_unix_peer(connection.fileno())
    name = transport.get_extra_info("peername")
    if not name:
        return None
    return Peer(str(name[0]).removeprefix("::ffff:"), tls=transport.get_extra_info(TLS_PEER), port=int(name[1]))


def _find_unix_peer(descriptor: int) -> Peer | None:
    try:
        # The event loop's socket object does not offer getsockopt; a duplicate descriptor does.
        with socket.socket(fileno=os.dup(descriptor)) as duplicate:
            credentials = duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError:
        return None
    pid, uid, gid = _UCRED.unpack(credentials)
    return Peer(None, uid=uid if 0 <= uid != _OVERFLOW_UID else None, gid=gid, pid=pid)


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError(
            f"cannot listen on {host}: the name has no address", hint="listen on localhost or on an IP address"
        ) from error
    # getaddrinfo repeats itself when /etc/hosts does; the order is kept.
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _listen_all(host: str, port: int, addresses: Sequence[tuple[socket.AddressFamily, str]], slots: int) -> TcpListener:
    by_slot: list[list[socket.socket]] = [[] for _ in range(slots)]
    missing: OSError | None = None
    try:
        for family, address in addresses:
            try:
                first = _bind(family, address, port, first=True)
            except OSError as error:
                # localhost often means ::1 too, on machines without IPv6.
                if error.errno not in _NOT_ON_THIS_MACHINE:
                    raise
                missing = error
                continue
            by_slot[0].append(first)
            port = first.getsockname()[1]
            for sockets in by_slot[1:]:
                sockets.append(_bind(family, address, port, first=False))
        if missing is not None and not by_slot[0]:
            raise missing
        for listening in (one for sockets in by_slot for one in sockets):
            listening.listen(_BACKLOG)
    except OSError:
        for sockets in by_slot:
            _close_all(sockets)
        raise
    return TcpListener(host, port, by_slot)


def _bind(family: socket.AddressFamily, address: str, port: int, *, first: bool) -> socket.socket:
    """Binds one slot's socket. The first binds alone and joins the group afterwards.

    With SO_REUSEPORT from the start, a second server of the same user would bind happily and take half of the
    connections; without it bind() fails while anybody else has the port.
    """
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if not first:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((address, port))
        if first:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        listening.close()
        raise
    return listening


def _close_all(sockets: Sequence[socket.socket]) -> None:
    for listening in sockets:
        listening.close()


def _tcp_error(host: str, port: int, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"port {port} on {host} is taken by another process",
            hint="stop that process, or listen on another port (port 0 picks a free one)",
            command=f"ss -ltnp 'sport = :{port}'",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConfigError(
            f"not allowed to listen on port {port} of {host}", hint="use a port above 1023, as Hadoop's 9600 is"
        )
    if error.errno in _NOT_ON_THIS_MACHINE:
        return ConfigError(
            f"cannot listen on {host}: it is not an address of this machine",
            hint="listen on localhost or on one of the machine's own addresses",
        )
    return ConfigError(f"cannot listen on {host}:{port}: {error.strerror}")


def _check_directory(path: Path) -> None:
    """Everyone who can rename entries on the way to the socket could put another in its place."""
    try:
        parent = path.parent.stat()
    except OSError as error:
        raise ConfigError(
            f"cannot use the directory of the Unix socket {path}: {error.strerror}",
            command=f"install -d -m 0750 {path.parent}",
        ) from error
    own_group_only = parent.st_mode & stat.S_IWGRP and parent.st_gid != os.getegid()
    if parent.st_mode & stat.S_IWOTH or own_group_only or parent.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"the directory of the Unix socket {path} can be changed by other users",
            hint="use a directory that only the service can write to",
            command=f"chmod go-w {path.parent}",
        )
    for ancestor in path.parent.parents:
        mode = ancestor.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise ConfigError(
                f"{ancestor}, above the Unix socket {path}, can be changed by everybody",
                command=f"chmod o-w {ancestor}",
            )


def _remove_stale(path: Path) -> None:
    try:
        there = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(there.st_mode):
        raise ConfigError(f"{path} exists and is not a socket", hint="choose another path for the Unix socket")
    if there.st_uid != os.geteuid():
        raise ConfigError(
            f"the socket {path} belongs to another user (uid {there.st_uid})", hint="remove it, or choose another path"
        )
    if _is_answered(path):
        raise ConfigError(
            f"another process is listening on the Unix socket {path}", hint="stop it, or choose another path"
        )
    path.unlink()


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True  # its queue is full: somebody is there
        except OSError:
            return False
    return True


def _identity(path: Path) -> tuple[int, int]:
    there = path.lstat()
    return there.st_dev, there.st_ino
