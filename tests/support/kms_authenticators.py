"""Authenticators of the KMS without a server around them."""

from __future__ import annotations

from collections.abc import Callable

from ringfence_agent.http.request import Peer, Request
from ringfence_agent.kms.authentication.authenticator import CallAuthenticator, Mechanism, TokenVerifier
from ringfence_agent.kms.authentication.caller import Caller, Identity
from ringfence_agent.kms.authentication.cookie import CookieAttributes, CookieSigner, RollingSecrets
from ringfence_agent.kms.authentication.sessions import Sessions
from ringfence_agent.kms.authentication.simple import TOKEN_TYPE, UserNameMechanism
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.routes import Query
from ringfence_zones.errors import InvalidTokenError
from ringfence_zones.secret import Secret


class RefusedTokens:
    """No delegation token is good."""

    def verify(self, call: Call, url_string: bytes) -> Caller:
        raise InvalidTokenError("no token is good here")


def sessions_at(
    now_ms: Callable[[], int],
    validity_s: int = 1000,
    token_type: str = TOKEN_TYPE,
    identity: Identity = Identity.CLAIMED,
    max_inactive_s: int | None = None,
) -> Sessions:
    signer = CookieSigner(RollingSecrets(Secret(b"r" * 32), validity_s), token_type, validity_s, now_ms, max_inactive_s)
    return Sessions(signer, identity, now_ms, CookieAttributes(), max_inactive_s)


def simple_authenticator(
    now_ms: Callable[[], int], validity_s: int = 1000, tokens: TokenVerifier | None = None
) -> CallAuthenticator:
    sessions = sessions_at(now_ms, validity_s)
    return authenticator_of(sessions, UserNameMechanism(sessions), tokens)


def authenticator_of(
    sessions: Sessions, mechanism: Mechanism, tokens: TokenVerifier | None = None
) -> CallAuthenticator:
    return CallAuthenticator(sessions, mechanism, tokens or RefusedTokens())


def call_with(query: Query | None = None, method: bytes = b"GET", **headers: bytes) -> Call:
    """A request with these headers; underscores in their names stand for dashes."""
    named = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    request = Request(method, b"/kms/v1/", b"", named, b"", Peer("127.0.0.1"), keep_alive=True)
    return Call(request, query or Query())
