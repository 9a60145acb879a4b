"""One HTTP request as the application sees it, and who sent it.

Everything is bytes as they came over the wire: the path is not decoded (a key name may hold an encoded slash), the
query is not parsed, header values are not interpreted. Only header *names* are changed, to lower case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

TLS_PEER = "ringfence.tls_peer"
"""Name of the extra information of a transport that speaks TLS: its `TlsPeer`."""


@dataclass(frozen=True, slots=True)
class TlsPeer:
    """What TLS established about a connection.

    version          `TLSv1.2` or `TLSv1.3`
    channel_binding  `tls-server-end-point:` and the hash of the server's certificate (RFC 5929), for GSSAPI; None when
                     the server has two certificates
    client_subject   subject of the certificate the client proved itself with (RFC 4514, `CN=nn,O=Example`), verified
                     against the configured authority; None without one
    client_name      its common name, when it has exactly one and that is printable
    """

    version: str
    channel_binding: bytes | None = None
    client_subject: str | None = None
    client_name: str | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection.

    `address` is the textual IP address over TCP (an IPv4 address even on a dual-stack socket) and `port` the port, both
    None over a Unix socket. There `uid`, `gid` and `pid` are the kernel's SO_PEERCRED: those of the process that called
    connect(), at that moment. A later exec or a passed descriptor keeps them, so decide by uid, never by pid. A uid
    that a user namespace could not translate is None, so that it matches no rule. `tls` is None on a connection
    without TLS.
    """

    address: str | None
    uid: int | None = None
    gid: int | None = None
    pid: int | None = None
    tls: TlsPeer | None = None
    port: int | None = None

    @property
    def is_unix(self) -> bool:
        """True for a connection over the Unix socket."""
        return self.address is None


class Request:
    """A whole request: the head and all of its body.

    method      b"GET", b"POST", ... upper case
    raw_path    undecoded, starts with b"/" (or is b"*"); an absolute-form target is reduced to its path
    raw_query   what follows the first b"?", without it; b"" when there is none
    headers     lower-case name -> value; a header given several times is joined by b", " (Cookie by b"; ")
    body        b"" when there is none; chunked bodies arrive joined
    peer        who sent it
    keep_alive  whether the client can send another request on this connection

    is_gone     whether nobody may wait for the answer any more: the connection is lost, or the client closed its side
                of it a second ago and more. Who only half-closed it still reads the answer, whatever that is then
    on_gone     called when that comes to be known, on the event loop, before the answer is there; for whoever answers
                later to set, and to take away when it has done with what nobody would miss
    """

    __slots__ = ("body", "headers", "is_gone", "keep_alive", "method", "on_gone", "peer", "raw_path", "raw_query")

    def __init__(
        self,
        method: bytes,
        raw_path: bytes,
        raw_query: bytes,
        headers: Mapping[bytes, bytes],
        body: bytes,
        peer: Peer,
        keep_alive: bool,
    ) -> None:
        self.method = method
        self.raw_path = raw_path
        self.raw_query = raw_query
        self.headers = headers
        self.body = body
        self.peer = peer
        self.keep_alive = keep_alive
        self.is_gone = False
        self.on_gone: Callable[[], object] | None = None

    def tell_gone(self) -> None:
        """For the connection, once or more often."""
        if not self.is_gone:
            self.is_gone = True
            if self.on_gone is not None:
                self.on_gone()

    def __repr__(self) -> str:
        # Neither query nor headers nor body: they carry user names, tokens and key material.
        return f"<Request {self.method.decode('ascii', 'replace')} {len(self.body)} bytes>"
