"""Addresses of servers in configuration: scheme, host and port, and nothing else.

`urllib.parse.urlsplit` takes line breaks out silently and lets blanks and control characters through into the host,
which would be looked up, or stand in a request's header. Here a host is a DNS name or an IP address, in ASCII, and an
address with a user, a path, a query or port 0 is none.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?"
)


@dataclass(frozen=True, slots=True)
class HttpOrigin:
    """`scheme` is http or https; `host` has no brackets; `port` is None where none was written."""

    scheme: str
    host: str
    port: int | None

    @property
    def bracketed_host(self) -> str:
        """As it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host


def find_origin(text: str) -> HttpOrigin | None:
    """The parts of `https://HOST[:PORT][/]`; None for what is no such address."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    is_whole = parts.path in ("", "/") and not (parts.query or parts.fragment or "@" in parts.netloc)
    if _PRINTABLE.fullmatch(text) is None or not is_whole or parts.scheme not in ("http", "https") or port == 0:
        return None
    return HttpOrigin(parts.scheme, host, port) if _is_host(host) else None


def _is_host(host: str) -> bool:
    if ":" not in host:
        return _NAME.fullmatch(host) is not None
    try:
        return ipaddress.IPv6Address(host).scope_id is None
    except ValueError:
        return False
