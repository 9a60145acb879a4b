"""Failures on a test's order. A rule says which requests it meets, how many of them, and what happens instead.

Actions: `status` (answer this, do nothing), `delay` (serve after `seconds`), `hang` (no answer until released or the
client leaves), `drop` (close the connection unserved), `execute_then_status` (serve, then answer this instead),
`execute_then_drop`, `truncate` (serve, send half of the body, close). A `body` is an object, sent as JSON, or text.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ACTIONS = frozenset({"status", "delay", "hang", "drop", "execute_then_status", "execute_then_drop", "truncate"})


@dataclass(slots=True)
class Rule:
    """One order. `times` None: until cleared; `skip` requests pass first."""

    id: int
    action: str
    path: re.Pattern[str]
    method: str | None
    node: int | None
    times: int | None
    skip: int
    seconds: float
    status: int
    body: Mapping[str, Any] | str | None
    headers: Mapping[str, str]
    met: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    def meets(self, node: int, method: str, path: str) -> bool:
        """Whether the request is one of those; counts it when it is."""
        if self.method not in (None, method) or self.node not in (None, node):
            return False
        if self.path.search(path) is None:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None and self.met >= self.times:
            return False
        self.met += 1
        return True


class Faults:
    """The rules in force, oldest first; the first that meets a request applies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: dict[int, Rule] = {}
        self._next_id = 1

    def add(self, order: Mapping[str, Any]) -> int:
        """Puts a rule in force and returns its number. Raises ValueError for an order it does not know."""
        unknown = set(order) - {
            "action",
            "path",
            "method",
            "node",
            "times",
            "skip",
            "seconds",
            "status",
            "body",
            "headers",
        }
        if unknown or order.get("action") not in ACTIONS:
            raise ValueError(f"no such fault: {sorted(unknown) or order.get('action')}")
        with self._lock:
            rule = Rule(
                self._next_id,
                order["action"],
                re.compile(order.get("path", "")),
                order.get("method"),
                order.get("node"),
                order.get("times"),
                order.get("skip", 0),
                order.get("seconds", 0.0),
                order.get("status", 500),
                order.get("body", {"errors": ["internal error"]}),
                order.get("headers", {}),
            )
            self._rules[rule.id] = rule
            self._next_id += 1
            return rule.id

    def clear(self, rule: int | None = None) -> None:
        """Takes one rule or all out of force, and lets go of what hangs on them."""
        with self._lock:
            gone = [self._rules.pop(number) for number in list(self._rules) if rule in (None, number)]
        for one in gone:
            one.released.set()

    def met(self, rule: int) -> int:
        """How many requests a rule met; 0 for one that is cleared."""
        with self._lock:
            found = self._rules.get(rule)
            return found.met if found else 0

    def find(self, node: int, method: str, path: str) -> Rule | None:
        if not self._rules:
            return None
        with self._lock:
            return next((rule for rule in self._rules.values() if rule.meets(node, method, path)), None)
