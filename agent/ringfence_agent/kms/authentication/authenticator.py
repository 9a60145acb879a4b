"""Who sent a request: the session's cookie, else a delegation token, else the configured mechanism.

Source: `AuthenticationFilter.doFilter` over `DelegationTokenAuthenticationHandler`. Rules:

1. A valid cookie wins. A bad, foreign or expired one is as good as none.
2. A delegation token decides alone: a bad one is refused (403), whatever else the request carries.
3. To get or renew a token takes more than a token, and to cancel one takes no more than having it.
4. There is one mechanism, and none to fall back to.
"""

from __future__ import annotations

from typing import Protocol

from ringfence_agent.http.response import Response, ResponseHead
from ringfence_agent.kms import remote_exception
from ringfence_agent.kms.authentication.caller import Caller, Identity
from ringfence_agent.kms.authentication.sessions import Sessions
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.routes import TokenOperation
from ringfence_zones.errors import AuthenticationError

TOKEN_HEADER = b"x-hadoop-delegation-token"
# Who cancels a token without credentials: the token itself is what authorises that.
_NOBODY = Caller("", Identity.NONE)


class Mechanism(Protocol):
    """How a caller without a session proves itself."""

    @property
    def challenge(self) -> str:
        """The WWW-Authenticate header of a refusal."""

    def identify(self, call: Call) -> Caller:
        """The caller, with a new session. Raises as `Authenticator.authenticate`."""


class TokenVerifier(Protocol):
    """What is needed of `ringfence_agent.kms.authentication.delegation_tokens.DelegationTokens`."""

    def verify(self, call: Call, url_string: bytes) -> Caller:
        """Whose token this is. Raises InvalidTokenError, and Unready, whose load sets `call.session`."""


class CallAuthenticator:
    """The authenticator of one server (`ringfence_agent.kms.call.Authenticator`).

    `token_in_query` takes the token from the query parameter `delegation` as well, where proxies would log it.
    """

    def __init__(
        self, sessions: Sessions, mechanism: Mechanism, tokens: TokenVerifier, *, token_in_query: bool = False
    ) -> None:
        self.cleared_cookie = sessions.cleared
        self._sessions = sessions
        self._mechanism = mechanism
        self._tokens = tokens
        self._token_in_query = token_in_query
        self._cleared = (("WWW-Authenticate", mechanism.challenge), ("Set-Cookie", sessions.cleared))

    def authenticate(self, call: Call) -> Caller:
        """See `Authenticator`."""
        request = call.request
        session = self._sessions.find(request.headers.get(b"cookie"))
        if session is not None:
            return session
        if not call.is_token_operation:
            token = request.headers.get(TOKEN_HEADER)
            if token is None and self._token_in_query and call.query.delegation is not None:
                token = call.query.delegation.encode("utf-8", "replace")
            if token is not None:
                return self._tokens.verify(call, token)
        elif call.query.token_operation is TokenOperation.CANCEL:
            return _NOBODY
        return self._mechanism.identify(call)

    def refuse(self, call: Call, error: AuthenticationError) -> Response:
        """The 401 with its challenge, the cause as the reason phrase and no body; 403 for a bad token.

        To get or renew a token without credentials is, under simple authentication, a bare 403 with the challenge.
        """
        status, java_class = remote_exception.status_and_class(error)
        if status != 401:
            return remote_exception.remote_exception(status, java_class, error.message)
        if not call.is_token_operation:
            return Response(ResponseHead(401, error.message, self._cleared))
        return Response(ResponseHead(403 if self._mechanism.challenge != "Negotiate" else 401, None, self._cleared[:1]))
