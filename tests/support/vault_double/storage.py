"""What the server remembers: immutable values with their history, so that a standby can see the recent past.

Replication is not played: a standby reads the same storage as it was some milliseconds ago, which is what a lagging
replica shows. A write through a standby's view raises `NotActiveError`; the server then passes the request on to the
active node, as the real ones do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_LAG_S = 30.0


class NotActiveError(Exception):
    """A standby was asked to write."""


class Storage:
    """Keys to values. The lock makes one request's reads and writes one step.

    A key is `KIND/...`; each kind lies apart, so that a short list is not searched for among a thousand tokens.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._kinds: dict[str, dict[str, list[tuple[float, Any]]]] = {}

    def get(self, key: str, lag_s: float = 0.0) -> Any:
        """The value, or None where there was none `lag_s` ago."""
        history = self._kind_of(key).get(key, ())
        if not lag_s:
            return history[-1][1] if history else None
        seen_until = time.monotonic() - lag_s
        return next((value for written, value in reversed(history) if written <= seen_until), None)

    def put(self, key: str, value: Any) -> None:
        """None deletes."""
        now = time.monotonic()
        history = self._kind_of(key).setdefault(key, [])
        history.append((now, value))
        # What no lag reaches any more may go, except the youngest of it: that is what the laggard still sees.
        while len(history) > 1 and history[1][0] < now - MAX_LAG_S:
            del history[0]

    def names(self, prefix: str, lag_s: float = 0.0) -> list[str]:
        """Keys with a value, without the prefix, sorted."""
        found = [key for key in self._kind_of(prefix) if key.startswith(prefix)]
        return sorted(key[len(prefix) :] for key in found if self.get(key, lag_s) is not None)

    def _kind_of(self, key: str) -> dict[str, list[tuple[float, Any]]]:
        return self._kinds.setdefault(key.split("/", 1)[0], {})


@dataclass(frozen=True, slots=True)
class View:
    """One node's sight of the keys below a prefix."""

    storage: Storage
    lag_s: float = 0.0
    is_active: bool = True
    prefix: str = ""

    def below(self, prefix: str) -> View:
        return View(self.storage, self.lag_s, self.is_active, self.prefix + prefix)

    def get(self, key: str) -> Any:
        return self.storage.get(self.prefix + key, self.lag_s)

    def names(self, prefix: str = "") -> list[str]:
        return self.storage.names(self.prefix + prefix, self.lag_s)

    def put(self, key: str, value: Any) -> None:
        if not self.is_active:
            raise NotActiveError
        self.storage.put(self.prefix + key, value)

    def delete(self, key: str) -> None:
        self.put(key, None)

    def clear(self) -> None:
        """Deletes everything below the prefix."""
        for key in self.names():
            self.delete(key)

    def change(self, key: str, edit: Callable[[Any], Any]) -> Any:
        """Replaces a value by what `edit` makes of it, and returns that."""
        value = edit(self.get(key))
        self.put(key, value)
        return value
