"""One HTTP request as the application sees it, and who sent it.

Everything is bytes as they came over the wire: the path is not decoded (a key name may hold an encoded slash), the
query is not parsed, header values are not interpreted. Only header *names* are changed, to lower case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection.

    `address` is the textual IP address over TCP (an IPv4 address even on a dual-stack socket), None over a Unix
    socket. There `uid`, `gid` and `pid` are the kernel's SO_PEERCRED: those of the process that called connect(),
    at that moment. A later exec or a passed descriptor keeps them, so decide by uid, never by pid. A uid that a
    user namespace could not translate is None, so that it matches no rule.
    """

    address: str | None
    uid: int | None = None
    gid: int | None = None
    pid: int | None = None

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
    """

    __slots__ = ("body", "headers", "keep_alive", "method", "peer", "raw_path", "raw_query")

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

    def __repr__(self) -> str:
        # Neither query nor headers nor body: they carry user names, tokens and key material.
        return f"<Request {self.method.decode('ascii', 'replace')} {len(self.body)} bytes>"
