"""Ringfence's own audit log: JSON lines, one decision each, as `ringfence_agent.kms.audit.record` writes them.

It tells the user, who acted for them, the address, and the outcome of every single access, and whether the name was
proven. Where flow rules were in force it also tells what an opening was (`opened`) and which delegation token was the
session (`token`).
"""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

from ringfence_zones.flow_labels import KINDS
from ringfence_zones.replay.access import KmsAccess, Outcome
from ringfence_zones.replay.log_time import LogClock

_OUTCOMES = {
    "ok": Outcome.DONE,
    "denied": Outcome.FAILED,
    "unauthenticated": Outcome.FAILED,
    "failed": Outcome.FAILED,
    "begun": Outcome.OTHER,
}
_OPENED = {kind.word: kind for kind in KINDS}


class _Record(msgspec.Struct):
    """The fields that matter here; others are passed over."""

    time: str
    op: str
    outcome: str
    key: str | None = None
    user: str | None = None
    real_user: str | None = None
    address: str | None = None
    identity: str | None = None
    opened: str | None = None
    token: int | None = None


class RingfenceLog:
    """See the module."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(_Record).decode
        self._clock = LogClock()

    def parse(self, line: bytes) -> KmsAccess | None:
        """The access that a line tells of; None when it is none."""
        try:
            record = self._decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the last: brackets within brackets
            return None
        time, outcome = self._clock.find(record.time), _OUTCOMES.get(record.outcome)
        if time is None or outcome is None:
            return None
        session: Hashable = (record.user, record.real_user, record.address)
        if record.token is not None:
            session = record.token
        return KmsAccess(
            time_s=time[0],
            time=record.time,
            op=record.op,
            key=record.key,
            user=record.user,
            outcome=outcome,
            session=session,
            opened=_OPENED.get(record.opened or ""),
            claimed=record.identity == "claimed",
        )
