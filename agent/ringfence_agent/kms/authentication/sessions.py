"""Sessions of one authentication type: begun with a signed cookie, found again by it.

A verified cookie is remembered by its whole Cookie header, so that a caller of many requests costs one look-up. The
memory is bounded, holds nothing that was not verified, and every hit checks the expiry. After the clock was set back
it is verified again: the secret that signed it may be none of now, and its expiry may be further off than any.

With an idle limit (`token.max-inactive-interval`) a cookie in use is renewed long before that limit.
"""

from __future__ import annotations

from collections.abc import Callable

from ringfence_agent.kms.authentication import cookie
from ringfence_agent.kms.authentication.caller import Caller, Identity
from ringfence_agent.kms.authentication.cookie import CookieAttributes, CookieSigner, Session
from ringfence_zones.errors import AuthenticationError

_REQUIRED = "Authentication required"
_INVALID = "org.apache.hadoop.security.authentication.util.SignerException: Invalid signature"
_CACHE_LIMIT = 4096
# A longer Cookie header carries more than a session of ours; it is verified each time instead of kept.
_REMEMBERED_BYTES = 1024
# A cookie with an idle limit is renewed once a tenth of the limit has passed since it was made.
_RENEWALS_PER_LIMIT = 10


class Sessions:
    """The sessions of one server. `identity` is how their callers were proven when they began."""

    def __init__(
        self,
        signer: CookieSigner,
        identity: Identity,
        now_ms: Callable[[], int],
        attributes: CookieAttributes,
        max_inactive_s: int | None = None,
    ) -> None:
        self.now_ms = now_ms
        self.cleared = attributes.cleared
        self._signer = signer
        self._identity = identity
        self._attributes = attributes
        self._renewal_ms = None if max_inactive_s is None else max_inactive_s * 1000 // _RENEWALS_PER_LIMIT
        # By header: when it was verified (epoch ms), and whose session it is.
        self._known: dict[bytes, tuple[int, Caller]] = {}

    def find(self, header: bytes | None) -> Caller | None:
        """Whose session a Cookie header carries; None without a valid one."""
        if header is None:
            return None
        known = self._known.get(header)
        if known is not None and known[0] <= self.now_ms() <= known[1].expires_ms:
            return known[1]
        return self._verify(header)

    def begin(self, user: str, principal: str | None, *headers: tuple[str, str]) -> Caller:
        """A new session, with `headers` to go out beside its cookie. Raises AuthenticationError for a name that
        cannot stand in a cookie.
        """
        if not (cookie.is_cookie_safe(user) and (principal is None or cookie.is_cookie_safe(principal))):
            raise AuthenticationError("the name of this caller cannot stand in a cookie")
        value, session = self._signer.sign(user, principal or user)
        set_cookie = ("Set-Cookie", self._attributes.set_cookie(value, session.expires_ms))
        return Caller(user, self._identity, session.until_ms, None, principal, (*headers, set_cookie))

    @staticmethod
    def refusal(header: bytes | None) -> AuthenticationError:
        """Why a request without a session is a 401, as Hadoop words it in the reason phrase."""
        offered = header is not None and bool(cookie.find_cookie_value(header))
        return AuthenticationError(_INVALID if offered else _REQUIRED)

    def _verify(self, header: bytes) -> Caller | None:
        value = cookie.find_cookie_value(header)
        session = self._signer.find_session(value) if value else None
        if session is None:
            self._known.pop(header, None)
            return None
        caller = self._caller(session)
        if len(header) <= _REMEMBERED_BYTES:
            if len(self._known) >= _CACHE_LIMIT:
                self._known.clear()
            self._known[header] = self.now_ms(), caller
        return caller

    def _caller(self, session: Session) -> Caller:
        principal = None if self._identity is Identity.CLAIMED else session.principal
        if self._renewal_ms is None:
            return Caller(session.user, self._identity, session.until_ms, None, principal)
        value, renewed = self._signer.sign(session.user, session.principal, session.expires_ms)
        set_cookie = ("Set-Cookie", self._attributes.set_cookie(value, session.expires_ms))
        until_ms = min(renewed.until_ms, self.now_ms() + self._renewal_ms)
        return Caller(session.user, self._identity, until_ms, None, principal, (set_cookie,))
