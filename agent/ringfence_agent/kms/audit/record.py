"""What the audit log says of one decision, and that as one line of JSON.

    {"time": "2026-11-22T06:45:01.123456Z", "sequence": 17, "slot": 0, "op": "DECRYPT_EEK", "key": "pii", "version": 3,
     "user": "etl", "real_user": null, "identity": "claimed", "address": "10.0.0.7", "status": 200, "outcome": "ok",
     "rule": "kms-acls.xml:key.acl.pii.DECRYPT_EEK", "revision": 4}

Rules:

1. `time` is UTC, to the microsecond, and the same for all records of one event-loop turn. What follows from an answer
   has a later time than that answer, so the files of several workers merge in an order that makes sense.
   `sequence` grows by one with each record of one worker's files, over restarts and rotations: a gap is
   a record that somebody removed. `slot` is the worker's.
2. `identity` is how strongly the caller was proven (`Identity`): `claimed` is nobody's proof.
3. `outcome`: `ok`; `denied` (403); `unauthenticated` (401); `failed`; `begun` for a change about to be made, followed
   by a record that says what became of it. A `begun` that nothing follows may or may not have been committed.
4. `rule` names what decided, as `authorization.access` words it; `revision` is the published policy in force. Absent
   facts are null; `principal` and `count` (EDEKs of one call) are left out instead, and so is what only some
   operations add. Where flow rules are in force, `opened` says what opening an EDEK was to its zone (`read`, `write`,
   `read or write`, or `undecided`), and `token` is the number of the delegation token that is the session.
5. No line holds key material, a token, a cookie or a query, and none is longer than about 30 kB.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

import msgspec

_json = msgspec.json.encode

OK = "ok"
DENIED = "denied"
UNAUTHENTICATED = "unauthenticated"
FAILED = "failed"
BEGUN = "begun"
OUTCOMES = (OK, DENIED, UNAUTHENTICATED, FAILED, BEGUN)

# Lines repeat: under load few users use few keys from few addresses. Long ones are not kept.
REMEMBERED = 8192
REMEMBERED_BYTES = 1024
_OPTIONAL = ("principal", "count", "opened", "token")
# A client chooses its user name and key name; a line must stay a line.
_MAX_TEXT_CHARS = 2048


class Decision(NamedTuple):
    """Everything in a record but its time, its sequence and its details. `status` is None before there is one."""

    op: str
    key: str | None
    version: int | None
    user: str | None
    real_user: str | None
    principal: str | None
    identity: str
    address: str | None
    status: int | None
    outcome: str
    rule: str | None
    revision: int
    item_count: int | None = None
    opened: str | None = None
    token: int | None = None


# What only some operations add: the request of a failure, the digest of a publication.
Details = dict[str, object]


class LineFormat(Protocol):
    """Turns decisions into lines. One per file, used on the event loop only."""

    def line(self, now_s: float, sequence: int, decision: Decision, details: Details | None) -> bytes:
        """One line with its line break; b"" when the format has no words for this decision."""


class JsonLines:
    """The log's own format. `slot` is the worker's."""

    def __init__(self, slot: int) -> None:
        self._slot = slot
        self._time = _UtcTime()
        # The middle of a line by its decision, so that a line is put together from bytes.
        self._known: dict[Decision, bytes] = {}

    def line(self, now_s: float, sequence: int, decision: Decision, details: Details | None) -> bytes:
        middle = self._known.get(decision)
        if middle is None:
            middle = self._encode(decision)
        if details:
            middle = middle + b"," + _json(_bounded(details))[1:-1]
        return b'{"time":"%b","sequence":%d,%b}\n' % (self._time.text(now_s), sequence, middle)

    def _encode(self, decision: Decision) -> bytes:
        fields: dict[str, object] = {"slot": self._slot, **_bounded(decision._asdict())}
        fields["count"] = fields.pop("item_count")
        for optional in _OPTIONAL:
            if fields[optional] is None:
                del fields[optional]
        middle = _json(fields)[1:-1]
        if len(middle) <= REMEMBERED_BYTES:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[decision] = middle
        return middle


class _UtcTime:
    """`2026-11-22T06:45:01.123456Z`; the lines of one event-loop turn share one text."""

    def __init__(self) -> None:
        self._second = self._microsecond = -1
        self._second_text = b""
        self._text = b""

    def text(self, now_s: float) -> bytes:
        microsecond = int(now_s * 1_000_000)
        if microsecond != self._microsecond:
            self._microsecond = microsecond
            second, rest = divmod(microsecond, 1_000_000)
            if second != self._second:
                self._second = second
                self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
            self._text = b"%b.%06dZ" % (self._second_text, rest)
        return self._text


def utc_text(time_s: float) -> str:
    """The time of a record, for seconds since the epoch. Such texts sort as their times do."""
    return _UtcTime().text(time_s).decode()


def bounded_text(text: str) -> str:
    """The text, or its beginning and how long it was."""
    if len(text) <= _MAX_TEXT_CHARS:
        return text
    return f"{text[:_MAX_TEXT_CHARS]}... ({len(text)} characters)"


def _bounded(fields: Details) -> Details:
    return {name: bounded_text(value) if isinstance(value, str) else value for name, value in fields.items()}
