"""Simple authentication: the user is whoever `user.name` says, or the signed cookie that followed from it.

Source: `PseudoAuthenticationHandler` under `AuthenticationFilter`. Rules:

1. A valid cookie wins. A bad, foreign or expired one is ignored when `user.name` is there, and is a 401 without it.
2. `user.name` alone is enough on any request: hdfs-native sends no OPTIONS and no cookie, ever.
3. A new session goes out as Set-Cookie with whatever the answer is, refusals included.
4. Nobody is anonymous, whatever `simple.anonymous.allowed` says.

The user is a claim and nothing more. This module refuses to treat it as proof: the policy endpoint never asks it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ringfence_agent.kms import cookie
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.caller import Caller, Identity
from ringfence_agent.kms.cookie import CookieSigner
from ringfence_zones.errors import AuthenticationError

CHALLENGE = "PseudoAuth"
TOKEN_TYPE = "simple-dt"  # noqa: S105 - the handler's name in the cookie

_REQUIRED = "Authentication required"
_INVALID = "org.apache.hadoop.security.authentication.util.SignerException: Invalid signature"
_CACHE_LIMIT = 4096
# A longer Cookie header carries more than a session of ours; it is verified each time instead of kept.
_REMEMBERED_BYTES = 1024
# A fresh cookie is handed out again to the same user for so long, instead of being signed for each request.
_REUSE_MS = 60_000
_Key = TypeVar("_Key", bytes, str)


class SimpleAuthenticator:
    """Authenticates requests; remembers what it verified, by whole Cookie header and by user name.

    Both memories are bounded and hold nothing that was not verified; every hit checks the expiry.
    """

    challenge = CHALLENGE

    def __init__(
        self,
        signer: CookieSigner,
        now_ms: Callable[[], int],
        *,
        path: str | None = None,
        domain: str | None = None,
        secure: bool = False,
    ) -> None:
        self._signer = signer
        self._now_ms = now_ms
        self._path = path
        self._domain = domain
        self._secure = secure
        self._by_cookie: dict[bytes, Caller] = {}
        self._by_user: dict[str, Caller] = {}

    def authenticate(self, call: Call) -> Caller:
        """See `ringfence_agent.kms.call.Authenticator`. Decides from memory alone."""
        cookie_header = call.request.headers.get(b"cookie")
        if cookie_header is not None:
            known = self._by_cookie.get(cookie_header)
            if known is not None and known.expires_ms >= self._now_ms():
                return known
            verified = self._verify(cookie_header)
            if verified is not None:
                return verified
        user_name = call.query.user_name
        if user_name is not None and cookie.is_cookie_safe(user_name):
            return self._claim(user_name)
        offered = cookie_header is not None and bool(cookie.find_cookie_value(cookie_header))
        raise AuthenticationError(_INVALID if offered else _REQUIRED)

    def _verify(self, header: bytes) -> Caller | None:
        value = cookie.find_cookie_value(header)
        session = self._signer.find_session(value) if value else None
        if session is None:
            self._by_cookie.pop(header, None)
            return None
        caller = Caller(session.user, Identity.CLAIMED, session.expires_ms)
        if len(header) <= _REMEMBERED_BYTES:
            _remember(self._by_cookie, header, caller)
        return caller

    def _claim(self, user: str) -> Caller:
        now_ms = self._now_ms()
        known = self._by_user.get(user)
        # Not from the future either: the clock was set back, and the secret that signed it may not verify now.
        if known is not None and known.expires_ms - _REUSE_MS <= now_ms <= known.expires_ms:
            return known
        value, expires_ms = self._signer.sign(user, user)
        header = cookie.set_cookie(value, path=self._path, domain=self._domain, secure=self._secure)
        until_ms = min(expires_ms, now_ms + _REUSE_MS)
        caller = Caller(user, Identity.CLAIMED, until_ms, headers=(("Set-Cookie", header),))
        _remember(self._by_user, user, caller)
        return caller


def _remember(memory: dict[_Key, Caller], key: _Key, caller: Caller) -> None:
    if len(memory) >= _CACHE_LIMIT:
        memory.clear()
    memory[key] = caller
