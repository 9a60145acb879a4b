"""Heads of requests that came before, so that the same bytes are not parsed again.

Clients repeat themselves: a NameNode asks for EDEKs of the same few hundred keys, a job opens one zone's files, each
time with the same head, byte for byte, and only bodies differ. To look such a head up costs a tenth of parsing it.

Kept are heads that came in one piece with the whole body that they announce and nothing behind it, so that what they
say is all there is to say. The memory is one worker's, bounded, and keeps no proof that is good for once: a head with
an Authorization header is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ringfence_agent.http.request import Request

HEAD_END = b"\r\n\r\n"
_LIMIT = 2048
# A longer head is not kept: they may be as many as the limit says.
_LONGEST_BYTES = 4 * 1024


class KnownHead(NamedTuple):
    """What a head says (see `Request`), and how long the body behind it is."""

    method: bytes
    raw_path: bytes
    raw_query: bytes
    headers: Mapping[bytes, bytes]
    body_bytes: int


class KnownHeads(dict[bytes, KnownHead]):
    """By their bytes, the blank line included."""

    def keep(self, data: bytes, request: Request) -> None:
        """Keeps the head of `data`, of which `request` was parsed, if that is all that `data` holds."""
        head_bytes = data.find(HEAD_END) + len(HEAD_END)
        body_bytes = len(request.body)
        is_whole = head_bytes + body_bytes == len(data)
        if not is_whole or head_bytes > _LONGEST_BYTES or b"authorization" in request.headers:
            return
        if len(self) >= _LIMIT:
            self.clear()
        self[data[:head_bytes]] = KnownHead(
            request.method, request.raw_path, request.raw_query, request.headers, body_bytes
        )
