"""Kerberos authentication: the user is whom a SPNEGO token in `Authorization: Negotiate` proves.

Source: `KerberosAuthenticationHandler`, RFC 4559. Rules:

1. There is no way around it: no `user.name`, no cookie of another type and no other scheme is ever looked at.
2. One token, one request: what is proven goes on as a signed cookie, never as a property of the connection.
3. The server's answering token goes out with the response, whatever that is: clients demand mutual authentication.
4. Every failure is the same bare 401. What failed is for the audit log alone.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from concurrent.futures import Executor
from typing import Protocol

from ringfence_agent.kms.authentication.auth_to_local import AuthToLocal
from ringfence_agent.kms.authentication.caller import Caller
from ringfence_agent.kms.authentication.sessions import Sessions
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.unready import Unready
from ringfence_zones.errors import AuthenticationError
from ringfence_zones.gssapi import MAX_TOKEN_BYTES, Accepted

CHALLENGE = "Negotiate"
TOKEN_TYPE = "kerberos-dt"  # noqa: S105 - the handler's name in the cookie


class TokenAcceptor(Protocol):
    """What is needed of `ringfence_zones.gssapi.Acceptor`."""

    def accept(self, token: bytes, binding: bytes | None = None) -> Accepted:
        """The client that sent this token. Blocks. Raises AuthenticationError."""


class NegotiateMechanism:
    """Identifies requests by their SPNEGO token; `executor` is where that is done."""

    challenge = CHALLENGE

    def __init__(self, sessions: Sessions, acceptor: TokenAcceptor, names: AuthToLocal, executor: Executor) -> None:
        self._sessions = sessions
        self._acceptor = acceptor
        self._names = names
        self._executor = executor

    def identify(self, call: Call) -> Caller:
        """See `ringfence_agent.kms.authentication.authenticator.Mechanism`. A token is accepted off the event loop."""
        headers = call.request.headers
        offered = headers.get(b"authorization")
        refusal = self._sessions.refusal(headers.get(b"cookie"))
        if offered is None:
            raise refusal
        token = _find_token(offered)
        if token is None:
            call.detail = {"proof": "the Authorization header is no Negotiate token"}
            raise refusal
        raise Unready(lambda: self._accept(call, token, refusal))

    async def _accept(self, call: Call, token: bytes, refusal: AuthenticationError) -> None:
        loop = asyncio.get_running_loop()
        tls = call.request.peer.tls
        binding = None if tls is None else tls.channel_binding
        try:
            accepted, user = await loop.run_in_executor(self._executor, self._prove, token, binding)
            answer = ("WWW-Authenticate", f"Negotiate {base64.b64encode(accepted.token).decode('ascii')}")
            call.session = self._sessions.begin(user, accepted.principal, answer)
        except AuthenticationError as error:
            call.detail = {"proof": error.message}
            raise refusal from error

    def _prove(self, token: bytes, binding: bytes | None) -> tuple[Accepted, str]:
        accepted = self._acceptor.accept(token, binding)
        return accepted, self._names.short_name(accepted.principal)


def _find_token(header: bytes) -> bytes | None:
    """The token of a Negotiate header; None for another scheme, several of them, nothing, or no strict base64."""
    scheme, _, encoded = header.partition(b" ")
    if scheme.lower() != b"negotiate" or len(encoded) > MAX_TOKEN_BYTES * 4 // 3 + 4:
        return None
    try:
        return base64.b64decode(encoded.strip(b" "), validate=True) or None
    except binascii.Error:
        return None
