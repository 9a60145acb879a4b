"""The signed session cookie `hadoop.auth`, as hadoop-auth writes and reads it.

Source of the format: `org.apache.hadoop.security.authentication.util.{AuthToken,Signer}` and
`AuthenticationFilter.createAuthCookie`. The value is `u=USER&p=PRINCIPAL&t=TYPE&e=EXPIRY_MS&s=SIGNATURE`, the
signature HMAC-SHA256 in standard base64 over everything before `&s=`.

Secrets roll once per token validity; the current and the previous one verify. They are derived from one random root
that the master draws before it forks, and from the clock, so all workers agree without talking to each other.

This module refuses to accept a value it cannot verify, whatever its form: it never raises for what a client sent.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from ringfence_zones.secret import Secret

COOKIE_NAME = "hadoop.auth"
CLEARED = f"{COOKIE_NAME}=; HttpOnly"

# What separates fields in the value, ends it in the header, or cannot stand in a header at all.
_NOT_IN_USER = frozenset('&"\\;,')
_MAX_USER_LENGTH = 256
# Hadoop's own cookies stay far below; anything longer is not ours.
_MAX_VALUE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Session:
    """What a verified cookie says. `expires_ms` is epoch milliseconds."""

    user: str
    principal: str
    expires_ms: int


class RollingSecrets:
    """The signing secrets of one server: same root and clock, same secrets in every worker.

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
        return self._of_period(period), self._of_period(period - 1)

    def _of_period(self, period: int) -> bytes:
        if self._fixed:
            return self._root.reveal()
        return hmac.digest(self._root.reveal(), b"hadoop.auth %d" % period, "sha256")


class CookieSigner:
    """Makes and verifies cookie values of one authentication type (`simple-dt`, `kerberos-dt`)."""

    def __init__(self, secrets: RollingSecrets, token_type: str, validity_s: int, now_ms: Callable[[], int]) -> None:
        self._secrets = secrets
        self._type = token_type
        self._validity_ms = validity_s * 1000
        self._now_ms = now_ms

    def sign(self, user: str, principal: str) -> tuple[str, int]:
        """A cookie value and when it expires (epoch ms). `user` must satisfy `is_cookie_safe`."""
        now_ms = self._now_ms()
        expires_ms = now_ms + self._validity_ms
        raw = f"u={user}&p={principal}&t={self._type}&e={expires_ms}"
        return f"{raw}&s={signature(self._secrets.current(now_ms), raw)}", expires_ms

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
            session = Session(fields["u"], fields["p"], int(fields["e"]))
            idle_until_ms = int(fields.get("i", "-1"))
        except (KeyError, ValueError):
            return None
        expired = now_ms > session.expires_ms or (idle_until_ms != -1 and now_ms > idle_until_ms)
        return None if expired or fields.get("t") != self._type else session


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


def find_cookie_value(header: bytes) -> str | None:
    """The value of `hadoop.auth` in a Cookie header, without its quotes; None when it is not there."""
    for part in header.split(b";"):
        name, mark, value = part.strip().partition(b"=")
        if mark and name == COOKIE_NAME.encode():
            if len(value) >= 2 and value[:1] == value[-1:] == b'"':
                value = value[1:-1]
            return value.decode("utf-8", "surrogateescape")
    return None


def set_cookie(value: str, *, path: str | None, domain: str | None, secure: bool) -> str:
    """The Set-Cookie header for a cookie value; the quotes are needed because the value holds `=`."""
    parts = [f'{COOKIE_NAME}="{value}"']
    if path is not None:
        parts.append(f"Path={path}")
    if domain is not None:
        parts.append(f"Domain={domain}")
    if secure:
        parts.append("Secure")
    return "; ".join([*parts, "HttpOnly"])
