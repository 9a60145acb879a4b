"""What arrived: enough for a test to count calls and items, never a body or a token."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

_MOST = 100_000


@dataclass(slots=True)
class Seen:
    """One request. `items` is a batch's length, 1 without a batch; `in_flight` counts this one too."""

    node: int
    method: str
    path: str
    namespace: str
    has_token: bool
    items: int
    in_flight: int
    began_s: float
    status: int = 0
    took_s: float = 0.0


class Recording:
    """The requests since the last reset."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self._in_flight = 0

    def begin(self, node: int, method: str, path: str, namespace: str, *, has_token: bool) -> Seen:
        with self._lock:
            self._in_flight += 1
            seen = Seen(node, method, path, namespace, has_token, 1, self._in_flight, time.monotonic())
            if len(self._seen) < _MOST:
                self._seen.append(seen)
            return seen

    def end(self, seen: Seen, status: int, items: int) -> None:
        """Comes before the answer leaves, so that its reader finds it recorded; the first call counts. 0: no answer."""
        with self._lock:
            if seen.took_s:
                return
            self._in_flight -= 1
            seen.status, seen.items, seen.took_s = status, items, time.monotonic() - seen.began_s

    def reset(self) -> None:
        with self._lock:
            self._seen = []

    def as_data(self) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(seen) for seen in self._seen]
