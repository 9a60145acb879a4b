"""Kerberos authentication: the user is whom a SPNEGO token in `Authorization: Negotiate` proves.

Source: `KerberosAuthenticationHandler`, RFC 4559. Rules:

1. There is no way around it: no `user.name`, no cookie of another type and no other scheme is ever looked at.
2. One token, one request: what is proven goes on as a signed cookie, never as a property of the connection.
3. The server's answering token goes out with the response, whatever that is: clients demand mutual authentication.
4. Every failure is the same bare 401. What failed is for the audit log alone.
"""

from __future__ import annotations

from concurrent.futures import Executor

from ringfence_agent.kms.authentication.caller import Caller
from ringfence_agent.kms.authentication.sessions import Sessions
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.unready import Unready
from ringfence_agent.spnego.auth_to_local import AuthToLocal
from ringfence_agent.spnego.negotiate import CHALLENGE, Negotiator, TokenAcceptor, answer_value, find_token
from ringfence_zones.errors import AuthenticationError

TOKEN_TYPE = "kerberos-dt"  # noqa: S105 - the handler's name in the cookie


class NegotiateMechanism:
    """Identifies requests by their SPNEGO token; `executor` is where that is done."""

    challenge = CHALLENGE

    def __init__(self, sessions: Sessions, acceptor: TokenAcceptor, names: AuthToLocal, executor: Executor) -> None:
        self._sessions = sessions
        self._negotiator = Negotiator(acceptor, names, executor)

    def identify(self, call: Call) -> Caller:
        """See `ringfence_agent.kms.authentication.authenticator.Mechanism`. A token is accepted off the event loop."""
        headers = call.request.headers
        offered = headers.get(b"authorization")
        refusal = self._sessions.refusal(headers.get(b"cookie"))
        if offered is None:
            raise refusal
        token = find_token(offered)
        if token is None:
            call.detail = {"proof": "the Authorization header is no Negotiate token"}
            raise refusal
        raise Unready(lambda: self._accept(call, token, refusal))

    async def _accept(self, call: Call, token: bytes, refusal: AuthenticationError) -> None:
        tls = call.request.peer.tls
        binding = None if tls is None else tls.channel_binding
        try:
            accepted, user = await self._negotiator.accept(token, binding)
            answer = ("WWW-Authenticate", answer_value(accepted))
            call.session = self._sessions.begin(user, accepted.principal, answer)
        except AuthenticationError as error:
            call.detail = {"proof": error.message}
            raise refusal from error
