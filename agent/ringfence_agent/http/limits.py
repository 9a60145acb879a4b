"""How much one client, and all clients of one worker together, may ask of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one worker. Sizes are bytes on the wire, times are seconds.

    head_bytes          request line and headers; a Kerberos ticket with a large PAC needs 64 KiB. More is a 431. It is
                        checked after each 16 KiB read, so a head may exceed it by less than that.
    header_count        headers of one request; more is a 431
    body_bytes          body of one request; more is a 413. A batch of 1,000 re-encryptions is about 300 KB
    held_body_bytes     unfinished bodies of all connections together; more is a 503
    head_timeout_s      from a request's first byte to the end of its head; then 408
    body_timeout_s      from a request's first byte to its last; then 408
    idle_timeout_s      an idle connection is kept at least this long, and this is what the client is told. Java's
                        HttpURLConnection keeps 5 s unless told otherwise
    write_timeout_s     a client that reads nothing for so long is cut off
    connections         open at once; more are answered with a 503 and closed
    """

    head_bytes: int = 128 * 1024
    header_count: int = 200
    body_bytes: int = 16 * 1024 * 1024
    held_body_bytes: int = 256 * 1024 * 1024
    head_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    idle_timeout_s: float = 60.0
    write_timeout_s: float = 60.0
    connections: int = 4096
