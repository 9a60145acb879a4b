"""A change that is asked for twice is made once: the answers to requests with an `Idempotency-Key`.

After the draft "The Idempotency-Key HTTP Header Field" of the IETF's HTTPAPI group. Rules:

1. A key is one caller's own, for one method and path. The same key with another body is refused (422), and while the
   first request is under way the second one is (409).
2. What is kept is the answer as it went out, for `KEPT_S`: successes, and refusals that would come again. What failed
   for the moment (401, 403, 429, 5xx) is forgotten, so that the same key may try again.
3. Answers live in memory, at most `MAX_KEPT` and those of `MAX_BYTES` together: a restarted agent remembers none. What
   must be made once across a restart keeps the key in its own ledger, which is why it is handed on.

Refused: keys of more than 128 characters or of others than letters, digits and `._-`.
"""

from __future__ import annotations

import enum
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ringfence_zones.errors import InputError

KEPT_S = 24 * 3600.0
MAX_KEPT = 4096
MAX_BYTES = 16 * 1024 * 1024
_KEY = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_PASSING = frozenset({401, 403, 408, 409, 429})

Name = tuple[str, str, str, str]
"""Caller, method, path with query, key."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it went out."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


@dataclass(slots=True)
class _Kept:
    digest: bytes
    at_s: float
    answer: Answer | None = None


class Conflict(enum.Enum):
    """Why a key cannot be used. The values are what the caller is told."""

    IN_USE = "the first request with this Idempotency-Key is still under way"
    REUSED = "this Idempotency-Key was used for another request"


def parse_key(header: bytes) -> str:
    """The key of a header. Raises InputError."""
    # A quoted string, as the draft has it, or bare, as everybody sends it.
    bare = header[1:-1] if len(header) > 1 and header[:1] == header[-1:] == b'"' else header
    if not _KEY.fullmatch(bare):
        raise InputError("an Idempotency-Key has 1 to 128 letters, digits, dots, dashes and underscores")
    return bare.decode("ascii")


class Repeats:
    """The answers that are kept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[Name, _Kept] = OrderedDict()
        self._bytes = 0

    def begin(self, name: Name, body: bytes) -> Answer | Conflict | None:
        """The answer given before; None when this is the first request, which `end` must then be called for."""
        self._forget_old()
        digest = hashlib.sha256(body).digest()
        kept = self._kept.get(name)
        if kept is None:
            self._kept[name] = _Kept(digest, self._clock())
            return None
        if kept.digest != digest:
            return Conflict.REUSED
        return kept.answer or Conflict.IN_USE

    def end(self, name: Name, answer: Answer | None) -> None:
        """The first request was answered so; None when it was not."""
        kept = self._kept.get(name)
        if kept is None:
            return
        if answer is None or answer.status >= 500 or answer.status in _PASSING:
            del self._kept[name]
            return
        kept.answer = answer
        self._bytes += len(answer.body)
        self._forget_old()

    def _forget_old(self) -> None:
        while self._kept:
            name, oldest = next(iter(self._kept.items()))
            too_old = self._clock() - oldest.at_s > KEPT_S
            too_many = len(self._kept) > MAX_KEPT or self._bytes > MAX_BYTES
            if not (too_old or too_many) or oldest.answer is None:
                return
            del self._kept[name]
            self._bytes -= len(oldest.answer.body)
