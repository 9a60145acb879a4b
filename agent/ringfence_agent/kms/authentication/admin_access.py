"""Who administers this KMS: whoever the kernel, a secret, Kerberos or a certificate proves (contracts section 3).

Accepted are the peer credentials of the Unix socket (root, or the user this service runs as); a bearer token from a
0600 file, taken only from this machine itself or over TLS; and a principal among the published policy's `kms.admins`
(`admin.users` of kms.yaml before the first revision), proven by Kerberos or by a client certificate whose common name
it is.

Never accepted: a claimed user name, a delegation token, and whoever acts for somebody else.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import stat
from pathlib import Path

from ringfence_agent.http.request import Peer, Request
from ringfence_agent.kms.authentication.caller import Caller, Identity
from ringfence_agent.kms.authentication.cookie import is_cookie_safe
from ringfence_agent.kms.authorization.published import PublishedPolicy
from ringfence_zones.access_list import AccessList, GroupsOf
from ringfence_zones.errors import ConfigError
from ringfence_zones.secret import Secret

NOBODY = AccessList()
# A delegation token is not among them: it outlives the ticket it came from.
_PROVEN = (Identity.KERBEROS, Identity.CERTIFICATE)
_MIN_TOKEN_BYTES = 16
_MAX_TOKEN_BYTES = 4096
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/=-]+")  # RFC 6750, b64token


class AdminAccess:
    """Recognises administrators. `first` are those of a KMS without a published policy."""

    def __init__(
        self,
        token: Secret | None,
        first: AccessList = NOBODY,
        groups_of: GroupsOf = lambda _: frozenset(),
    ) -> None:
        self._token = token
        self._first = first
        self._groups_of = groups_of
        self._own_uid = os.geteuid()

    def find_caller(self, request: Request) -> Caller | None:
        """Who sent this, when the connection or a secret proves it; None when it takes an authenticator."""
        admin = self.find_admin(request)
        if admin is not None:
            return Caller(admin, Identity.ADMIN)
        tls = request.peer.tls
        if tls is None or tls.client_name is None or not is_cookie_safe(tls.client_name):
            return None
        return Caller(tls.client_name, Identity.CERTIFICATE, principal=tls.client_subject)

    def may_administer(self, caller: Caller, published: PublishedPolicy) -> bool:
        """Whether this caller may read and replace the policy. Raises Unready while groups are looked up."""
        if caller.identity is Identity.ADMIN:
            return True
        if caller.identity not in _PROVEN or caller.real_user is not None:
            return False
        admins = published.admins if published.revision else self._first
        return admins.admits(caller.user, self._groups_of)

    def find_admin(self, request: Request) -> str | None:
        """How the audit log names the administrator who sent this, None when it was somebody else."""
        peer = request.peer
        if peer.is_unix and peer.uid is not None and peer.uid in (0, self._own_uid):
            return f"uid {peer.uid}"
        if self._token is not None and (_is_local(peer) or peer.tls is not None) and self._has_token(request):
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
