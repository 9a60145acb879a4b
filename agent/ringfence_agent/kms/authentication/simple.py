"""Simple authentication: the user is whoever `user.name` says.

Source: `PseudoAuthenticationHandler`. Rules:

1. `user.name` alone is enough on any request: hdfs-native sends no OPTIONS and no cookie, ever.
2. A new session goes out as Set-Cookie with whatever the answer is, refusals included.
3. Nobody is anonymous, whatever `simple.anonymous.allowed` says.

The user is a claim and nothing more. This module refuses to treat it as proof: the policy endpoint never asks it.
"""

from __future__ import annotations

from ringfence_agent.kms.authentication import cookie
from ringfence_agent.kms.authentication.caller import Caller
from ringfence_agent.kms.authentication.sessions import Sessions
from ringfence_agent.kms.call import Call
from ringfence_zones.errors import AuthenticationError

CHALLENGE = "PseudoAuth"
TOKEN_TYPE = "simple-dt"  # noqa: S105 - the handler's name in the cookie

_CACHE_LIMIT = 4096
# A fresh cookie is handed out again to the same user for so long, instead of being signed for each request.
_REUSE_MS = 60_000


class UserNameMechanism:
    """Identifies requests by `user.name`; remembers the session that a name was given, within bounds."""

    challenge = CHALLENGE

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        # By user: until when (epoch ms) the session may be handed out again, and the session.
        self._by_user: dict[str, tuple[int, Caller]] = {}

    def identify(self, call: Call) -> Caller:
        """See `ringfence_agent.kms.authentication.authenticator.Mechanism`. Decides from memory alone."""
        user = call.query.user_name
        if user is None or not cookie.is_cookie_safe(user):
            raise self._sessions.refusal(call.request.headers.get(b"cookie"))
        now_ms = self._sessions.now_ms()
        known = self._by_user.get(user)
        # Not from the future either: the clock was set back, and the secret that signed it may not verify now.
        if known is not None and known[0] - _REUSE_MS <= now_ms <= known[0]:
            return known[1]
        caller = self._sessions.begin(user, None)
        if len(self._by_user) >= _CACHE_LIMIT:
            self._by_user.clear()
        self._by_user[user] = (min(caller.expires_ms, now_ms + _REUSE_MS), caller)
        return caller


def plain_name(name: str) -> str:
    """The name itself, when it can be a user's: simple authentication has no rules. Raises AuthenticationError."""
    if not cookie.is_cookie_safe(name):
        raise AuthenticationError("the name holds characters that a user name may not")
    return name
