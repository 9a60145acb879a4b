"""Who administers this KMS: whoever the kernel or a secret proves, never whoever a request says (contracts section 3).

Accepted are the peer credentials of the Unix socket (root, or the user this service runs as) and a bearer token from
a 0600 file. A token is taken only from this machine itself: without TLS it would cross the network in clear.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import stat
from pathlib import Path

from ringfence_agent.http.request import Peer, Request
from ringfence_zones.errors import ConfigError
from ringfence_zones.secret import Secret

_MIN_TOKEN_BYTES = 16
_MAX_TOKEN_BYTES = 4096
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/=-]+")  # RFC 6750, b64token


class AdminAccess:
    """Recognises administrators."""

    def __init__(self, token: Secret | None) -> None:
        self._token = token
        self._own_uid = os.geteuid()

    def find_admin(self, request: Request) -> str | None:
        """How the audit log names the administrator who sent this, None when it was somebody else."""
        peer = request.peer
        if peer.is_unix and peer.uid is not None and peer.uid in (0, self._own_uid):
            return f"uid {peer.uid}"
        if self._token is not None and _is_local(peer) and self._has_token(request):
            return "bearer token"
        return None

    def _has_token(self, request: Request) -> bool:
        scheme, _, given = request.headers.get(b"authorization", b"").partition(b" ")
        assert self._token is not None
        return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token.reveal())


def _is_local(peer: Peer) -> bool:
    if peer.is_unix:
        return True
    try:
        return ipaddress.ip_address(peer.address or "").is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> Secret:
    """The administrators' bearer token. Raises ConfigError unless the file is ours alone and holds a usable token."""
    try:
        with path.open("rb") as stream:
            state = os.fstat(stream.fileno())
            text = stream.read(_MAX_TOKEN_BYTES + 1).strip()
    except OSError as error:
        raise ConfigError(f"cannot read the admin token file {path}: {error.strerror}") from error
    if state.st_uid not in (0, os.geteuid()) or stat.S_IMODE(state.st_mode) & 0o077:
        raise ConfigError(f"the admin token file {path} can be read by others", command=f"chmod 0600 {path}")
    if not _MIN_TOKEN_BYTES <= len(text) <= _MAX_TOKEN_BYTES or not _TOKEN.fullmatch(text):
        raise ConfigError(
            f"the admin token file {path} must hold one line of {_MIN_TOKEN_BYTES} to {_MAX_TOKEN_BYTES} letters,"
            " digits and -._~+/=",
            command=f"openssl rand -hex 32 > {path}",
        )
    return Secret(text)
