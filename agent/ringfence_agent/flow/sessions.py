"""Who is one session to the flow rules, and the digest by which the memory knows it.

A delegation token, by its number, wherever it is used; without one, the user (and who acts for them) at one address.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

Session = tuple[object, ...]


def token_session(number: int) -> Session:
    """The job that this token was issued for."""
    return (number,)


def client_session(user: str, real_user: str | None, address: str | None) -> Session:
    """A user at an address."""
    return (user, real_user, address)


def session_digest(session: Sequence[object]) -> bytes:
    """32 bytes, the same on every worker and instance."""
    return hashlib.sha256(msgspec.json.encode(session)).digest()
