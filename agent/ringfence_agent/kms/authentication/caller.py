"""Who calls, and how strongly that was proven: the one thing that authorization and audit know about a caller.

`Identity` is the authentication strength of the audit log. A user name under simple authentication is `claimed`, and
so is all that follows from it, a delegation token included: nothing later in a request makes a claim more than that.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Identity(enum.Enum):
    """How a caller was identified. The values are the words of the audit log; `word` is the quicker way to them."""

    def __init__(self, word: str) -> None:
        self.word = word

    # Members are singletons; Enum's own hash is Python code, and this is looked up for audit lines.
    __hash__ = object.__hash__

    NONE = "none"
    CLAIMED = "claimed"
    KERBEROS = "kerberos"
    TOKEN = "token"  # noqa: S105 - a word, not a secret
    CERTIFICATE = "certificate"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    user        the short name that ACLs know; how the audit log names an administrator of the Unix socket
    identity    how it was proven
    expires_ms  epoch milliseconds after which this must not be believed from memory; 0: not to be kept at all
    real_user   who acts for `user` (doAs, or the real user of a delegation token); None when nobody does
    principal   the full Kerberos principal, of the real user when there is one; None without Kerberos
    headers     what goes out with the answer, whatever it is: a new session, the server's half of SPNEGO; not in `repr`
    is_token    came with a delegation token, whatever its owner had proven
    token       the number of that token, None without one
    """

    user: str
    identity: Identity
    expires_ms: int = 0
    real_user: str | None = None
    principal: str | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    is_token: bool = False
    token: int | None = None
