"""Who sent a request: the kernel's word over the Unix socket; over TLS a token, a ticket or a certificate.

Rules:

1. Over the Unix socket the peer's uid decides. A bearer token sent there as well must be one of that very user; it adds
   its rights (the second factor of somebody whom the uid alone does not entitle), and its scope then binds.
2. Over TCP there is TLS or nothing. `Authorization` decides when it is there: a bearer token, or Negotiate. Only
   without it does the certificate that the connection proved. Nothing is ever tried in place of what failed.
3. A token as the password of Basic is taken for GET and HEAD alone: that is what a browser sends by itself, and then
   to requests that other pages made it send, too.
4. No other header, no query and no body says who is asking.
5. Who fails is told that, and not why. An address that fails often is made to wait before anything is tried.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ringfence_agent.api.access import AccessRules, Accounts
from ringfence_agent.api.caller import Caller, Proof
from ringfence_agent.api.tokens import TokenBook
from ringfence_agent.http.request import Peer
from ringfence_zones.errors import AuthenticationError

Headers = Sequence[tuple[str, str]]
_SAFE_METHODS = ("GET", "HEAD")
_MAX_BASIC_BYTES = 1024


class Negotiator(Protocol):
    """What is needed of `ringfence_agent.spnego.negotiate.Negotiator`."""

    async def prove(self, header: bytes, binding: bytes | None) -> tuple[str, str, str]:
        """Short name, principal, and the answering header's value. Raises AuthenticationError."""


@dataclass(frozen=True, slots=True)
class Identified:
    """A caller, and what goes out with the answer, whatever that is: the server's half of SPNEGO."""

    caller: Caller
    headers: Headers = ()


class Identifier:
    """Identifies the senders of requests. Without `tokens` or `negotiator` there are none of that kind."""

    def __init__(
        self,
        rules: AccessRules,
        accounts: Accounts,
        *,
        tokens: TokenBook | None = None,
        negotiator: Negotiator | None = None,
    ) -> None:
        self._rules = rules
        self._accounts = accounts
        self._tokens = tokens
        self._negotiator = negotiator

    def challenges(self, peer: Peer) -> Headers:
        """The WWW-Authenticate headers of a 401 (RFC 9110 15.5.2 wants one)."""
        if peer.is_unix:
            # There is nothing to send: the kernel says who calls.
            return [("WWW-Authenticate", "PeerCredentials")]
        offered = [("WWW-Authenticate", "Negotiate")] if self._negotiator is not None else []
        if self._tokens is not None:
            offered += [("WWW-Authenticate", "Bearer"), ("WWW-Authenticate", 'Basic realm="Ringfence agent"')]
        return offered or [("WWW-Authenticate", "Certificate")]

    async def identify(self, peer: Peer, method: str, headers: Mapping[bytes, bytes]) -> Identified:
        """The sender. Raises AuthenticationError when nobody was proven, AccessDeniedError when no rule admits them."""
        authorization = headers.get(b"authorization")
        if peer.is_unix:
            caller = self._rules.admit_peer(peer)
            return Identified(caller if authorization is None else self._with_token(caller, authorization))
        if peer.tls is None:
            raise AuthenticationError("over TCP the agent is asked through TLS alone")
        if authorization is not None:
            return await self._by_header(peer, method, authorization)
        if peer.tls.client_name is None:
            raise AuthenticationError("the request proves nobody")
        return Identified(self._rules.admit_name(peer.tls.client_name, Proof.CERTIFICATE, peer.tls.client_subject))

    def _with_token(self, caller: Caller, authorization: bytes) -> Caller:
        scheme, value = _parts(authorization)
        if scheme != b"bearer":
            return caller  # the kernel has said who it is; nothing else is asked for here
        added = self._by_token(value)
        if added.user != caller.user:
            raise AuthenticationError("the token is another user's")
        return replace(
            caller,
            roles=caller.roles | added.roles,
            verbs=caller.verbs | added.verbs,
            paths=added.paths,
            may_delegate=False,
            token_id=added.token_id,
            issuer=added.issuer,
        )

    async def _by_header(self, peer: Peer, method: str, authorization: bytes) -> Identified:
        scheme, value = _parts(authorization)
        if scheme == b"bearer":
            return Identified(self._by_token(value))
        if scheme == b"basic" and method in _SAFE_METHODS:
            return Identified(self._by_token(_password(value)))
        if scheme == b"negotiate" and self._negotiator is not None and peer.tls is not None:
            user, principal, answer = await self._negotiator.prove(authorization, peer.tls.channel_binding)
            caller = self._rules.admit_name(user, Proof.KERBEROS, principal)
            return Identified(caller, [("WWW-Authenticate", answer)])
        raise AuthenticationError("the Authorization header is of a kind that is not taken here")

    def _by_token(self, presented: bytes) -> Caller:
        if self._tokens is None:
            raise AuthenticationError("tokens are not taken here")
        return self._tokens.find(presented).caller(self._accounts)


def _parts(authorization: bytes) -> tuple[bytes, bytes]:
    scheme, _, value = authorization.partition(b" ")
    return scheme.lower(), value.strip(b" ")


def _password(encoded: bytes) -> bytes:
    if len(encoded) > _MAX_BASIC_BYTES:
        raise AuthenticationError("the Authorization header is too long")
    try:
        return base64.b64decode(encoded, validate=True).partition(b":")[2]
    except binascii.Error:
        raise AuthenticationError("the Authorization header is no Basic one") from None
