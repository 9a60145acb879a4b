"""The signed session cookie `hadoop.auth`, as hadoop-auth writes and reads it.

Source of the format: `org.apache.hadoop.security.authentication.util.{AuthToken,Signer}` and
`AuthenticationFilter.createAuthCookie`. The value is `u=USER&p=PRINCIPAL&t=TYPE[&i=IDLE_UNTIL_MS]&e=EXPIRY_MS&s=SIG`,
the signature HMAC-SHA256 in standard base64 over everything before the last `&s=`.

Secrets roll once per token validity. They are derived from a root secret of the key store and from the clock (HKDF),
so all workers of all instances that share a store agree without talking to each other: the secrets of this period,
the one before it, and, for an instance whose clock runs ahead, the next one verify.

This module refuses to accept a value it cannot verify, whatever its form: it never raises for what a client sent.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate

from ringfence_zones.secret import Secret

COOKIE_NAME = "hadoop.auth"
_NAME = COOKIE_NAME.encode()

# What separates fields in the value, ends it in the header, or cannot stand in a header at all.
_NOT_IN_USER = frozenset('&"\\;,')
_MAX_USER_LENGTH = 256
# Hadoop's own cookies stay far below; anything longer is not ours.
_MAX_VALUE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Session:
    """What a verified cookie says. Times are epoch milliseconds; `idle_until_ms` is None without an idle limit."""

    user: str
    principal: str
    expires_ms: int
    idle_until_ms: int | None = None

    @property
    def until_ms(self) -> int:
        """When it ends unless it is renewed."""
        return self.expires_ms if self.idle_until_ms is None else min(self.expires_ms, self.idle_until_ms)


class RollingSecrets:
    """The signing secrets of one service: same root and clock, same secrets everywhere.

    `validity_s` is how long a cookie lives and how long a secret signs. With `fixed` (Hadoop's
    `signature.secret.file`) the root itself signs and never rolls.
    """

    def __init__(self, root: Secret, validity_s: int, *, fixed: bool = False) -> None:
        self._root = root
        self._validity_ms = validity_s * 1000
        self._fixed = fixed

    def current(self, now_ms: int) -> bytes:
        """The secret that signs now."""
        return self._of_period(now_ms // self._validity_ms)

    def accepted(self, now_ms: int) -> tuple[bytes, ...]:
        """The secrets that verify now, the current one first."""
        if self._fixed:
            return (self._root.reveal(),)
        period = now_ms // self._validity_ms
        return self._of_period(period), self._of_period(period - 1), self._of_period(period + 1)

    def _of_period(self, period: int) -> bytes:
        if self._fixed:
            return self._root.reveal()
        # HKDF-Expand (RFC 5869 2.3) to one block; the root is a uniform key already.
        return hmac.digest(self._root.reveal(), b"hadoop.auth %d\x01" % period, "sha256")


class CookieSigner:
    """Makes and verifies cookie values of one authentication type (`simple-dt`, `kerberos-dt`).

    `max_inactive_s` is Hadoop's `token.max-inactive-interval`, None for no limit.
    """

    def __init__(
        self,
        secrets: RollingSecrets,
        token_type: str,
        validity_s: int,
        now_ms: Callable[[], int],
        max_inactive_s: int | None = None,
    ) -> None:
        self._secrets = secrets
        self._type = token_type
        self._validity_ms = validity_s * 1000
        self._max_inactive_s = max_inactive_s
        self._now_ms = now_ms

    def sign(self, user: str, principal: str, expires_ms: int | None = None) -> tuple[str, Session]:
        """A cookie value and what it says; `expires_ms` keeps the expiry of a session that goes on.

        `user` and `principal` must satisfy `is_cookie_safe`.
        """
        now_ms = self._now_ms()
        idle_until_ms = None if self._max_inactive_s is None else now_ms + self._max_inactive_s * 1000
        session = Session(user, principal, expires_ms or now_ms + self._validity_ms, idle_until_ms)
        idle = "" if idle_until_ms is None else f"&i={idle_until_ms}"
        raw = f"u={user}&p={principal}&t={self._type}{idle}&e={session.expires_ms}"
        return f"{raw}&s={signature(self._secrets.current(now_ms), raw)}", session

    def find_session(self, value: str) -> Session | None:
        """The session of a cookie value that is genuine, of this type and not expired; None otherwise."""
        raw, mark, given = value.rpartition("&s=")
        if not mark or len(value) > _MAX_VALUE_BYTES:
            return None
        now_ms = self._now_ms()
        genuine = False
        for secret in self._secrets.accepted(now_ms):
            genuine |= hmac.compare_digest(signature(secret, raw).encode(), given.encode("utf-8", "surrogateescape"))
        return self._read(raw, now_ms) if genuine else None

    def _read(self, raw: str, now_ms: int) -> Session | None:
        fields = dict(field.partition("=")[::2] for field in raw.split("&"))
        try:
            idle_until_ms = int(fields.get("i", "-1"))
            session = Session(
                fields["u"], fields["p"], int(fields["e"]), None if idle_until_ms == -1 else idle_until_ms
            )
        except (KeyError, ValueError):
            return None
        return None if now_ms > session.until_ms or fields.get("t") != self._type else session


@dataclass(frozen=True, slots=True)
class CookieAttributes:
    """What stands beside the value in Set-Cookie. `persistent` cookies outlive the client: Expires is set."""

    path: str | None = None
    domain: str | None = None
    secure: bool = False
    persistent: bool = False

    def set_cookie(self, value: str, expires_ms: int) -> str:
        """The Set-Cookie header for a value; the quotes are needed because it holds `=`."""
        return self._header(f'{COOKIE_NAME}="{value}"', expires_ms)

    @property
    def cleared(self) -> str:
        """The Set-Cookie header that ends a session."""
        return self._header(f"{COOKIE_NAME}=", 0)

    def _header(self, pair: str, expires_ms: int) -> str:
        parts = [pair]
        if self.path is not None:
            parts.append(f"Path={self.path}")
        if self.domain is not None:
            parts.append(f"Domain={self.domain}")
        if self.persistent:
            parts.append(f"Expires={_netscape_date(expires_ms)}")
        if self.secure:
            parts.append("Secure")
        return "; ".join([*parts, "HttpOnly"])


def signature(secret: bytes, raw: str) -> str:
    """`Signer.computeSignature`: standard base64 of HMAC-SHA256."""
    digest = hmac.digest(secret, raw.encode("utf-8", "surrogateescape"), hashlib.sha256)
    return base64.b64encode(digest).decode("ascii")


def is_cookie_safe(user: str) -> bool:
    """Whether a user name can stand in a cookie: printable ASCII without separators, and not empty.

    ASCII because headers have no agreed encoding: another one would sign one name and send back another.
    """
    in_bounds = 0 < len(user) <= _MAX_USER_LENGTH
    return in_bounds and user.isascii() and user.isprintable() and _NOT_IN_USER.isdisjoint(user)


def _netscape_date(epoch_ms: int) -> str:
    """`Tue, 14-Nov-2023 22:13:20 GMT`."""
    weekday, rest = formatdate(epoch_ms // 1000, usegmt=True).split(" ", 1)
    return f"{weekday} {rest.replace(' ', '-', 2)}"


def find_cookie_value(header: bytes) -> str | None:
    """The value of `hadoop.auth` in a Cookie header, without its quotes; None when it is not there.

    "" when it is there twice with different values: which one counts is then anybody's guess.
    """
    found: bytes | None = None
    for part in header.split(b";"):
        name, mark, value = part.strip().partition(b"=")
        if mark and name == _NAME:
            if len(value) >= 2 and value[:1] == value[-1:] == b'"':
                value = value[1:-1]
            if found is not None and value != found:
                return ""
            found = value
    return None if found is None else found.decode("utf-8", "surrogateescape")
