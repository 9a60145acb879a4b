"""The token of an `Authorization: Negotiate` header, and whom it proves (RFC 4559).

Every failure is an AuthenticationError whose message is for the log alone: whoever failed is told nothing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from concurrent.futures import Executor
from typing import Protocol

from ringfence_agent.spnego.auth_to_local import AuthToLocal
from ringfence_zones.errors import AuthenticationError
from ringfence_zones.gssapi import MAX_TOKEN_BYTES, Accepted

CHALLENGE = "Negotiate"


class TokenAcceptor(Protocol):
    """What is needed of `ringfence_zones.gssapi.Acceptor`."""

    def accept(self, token: bytes, binding: bytes | None = None) -> Accepted:
        """The client that sent this token. Blocks. Raises AuthenticationError."""


def find_token(header: bytes) -> bytes | None:
    """The token of a Negotiate header; None for another scheme, several of them, nothing, or no strict base64."""
    scheme, _, encoded = header.partition(b" ")
    if scheme.lower() != b"negotiate" or len(encoded) > MAX_TOKEN_BYTES * 4 // 3 + 4:
        return None
    try:
        return base64.b64decode(encoded.strip(b" "), validate=True) or None
    except binascii.Error:
        return None


def answer_value(accepted: Accepted) -> str:
    """The value of the WWW-Authenticate header that proves the server to the client; it goes out with any answer."""
    return f"{CHALLENGE} {base64.b64encode(accepted.token).decode('ascii')}"


class Negotiator:
    """Proves tokens off the event loop: `executor` is where the library may block."""

    def __init__(self, acceptor: TokenAcceptor, names: AuthToLocal, executor: Executor) -> None:
        self._acceptor = acceptor
        self._names = names
        self._executor = executor

    async def accept(self, token: bytes, binding: bytes | None) -> tuple[Accepted, str]:
        """The accepted client, and its short name. Raises AuthenticationError."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._accept, token, binding)

    async def prove(self, header: bytes, binding: bytes | None) -> tuple[str, str, str]:
        """Short name, principal, and the value of the answering header. Raises AuthenticationError."""
        token = find_token(header)
        if token is None:
            raise AuthenticationError("the Authorization header is no Negotiate token")
        accepted, user = await self.accept(token, binding)
        return user, accepted.principal, answer_value(accepted)

    def _accept(self, token: bytes, binding: bytes | None) -> tuple[Accepted, str]:
        accepted = self._acceptor.accept(token, binding)
        return accepted, self._names.short_name(accepted.principal)
