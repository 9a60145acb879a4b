"""The audit log of Hadoop's own KMS, `kms-audit.log`, and ours where it is written in that form.

    2026-11-22 08:57:48,566 OK[op=GENERATE_EEK, key=k1, user=hdfs, accessCount=1, interval=0ms]
    2026-11-22 08:57:59,422 OK[op=GENERATE_EEK, key=k1, user=hdfs, accessCount=37, interval=10857ms]
    2026-11-22 08:58:01,000 UNAUTHORIZED[op=DECRYPT_EEK, key=k1, user=bob]

Source: `KMSAudit` and `SimpleKMSAuditLogger` of Hadoop 3.4. It tells user, key and operation; no address, no session,
no file, and not whether an opening read or wrote. Openings of one user with one key are counted: the first is written
at once with `accessCount=1`, and at the end of each window (10 s) a line has the accesses of that window. The first
such line counts the first access once more, which is taken off here; `interval` says since when, so that the two are
known to belong together. Ours in that form counts nothing: each access has a line of its own, as if written at once.
Values are not quoted: a key or user with a comma in it is read as well as it can be.
"""

from __future__ import annotations

import re
from collections import OrderedDict

from ringfence_zones.replay.access import KmsAccess, Outcome, short_name
from ringfence_zones.replay.log_time import LogClock

# What log4j may put between the time and the event holds no bracket.
_EVENT = re.compile(
    r"[^\[]*?\b(?:(?P<status>OK|UNAUTHORIZED|ERROR|BEGUN)\[(?P<fields>(?:op|key|user)=.*?)\]"
    r"|(?P<bare>UNAUTHENTICATED RemoteHost:|ERROR Method:'))"
)
_OUTCOMES = {
    "OK": Outcome.DONE,
    "UNAUTHORIZED": Outcome.FAILED,
    "UNAUTHENTICATED": Outcome.FAILED,
    "ERROR": Outcome.FAILED,
    "BEGUN": Outcome.OTHER,
}
_NUMBER = re.compile("[0-9]{1,12}")
# The clock is read once for `interval` and once for the line.
_SAME_START_S = 0.5
# Hadoop takes no shorter window, and writes the first access within less.
_SHORTEST_WINDOW_MS = 10
_REMEMBERED = 100_000


class KmsLog:
    """See the module."""

    def __init__(self) -> None:
        self._clock = LogClock()
        # When an access that was written at once began its window, until the line that counts it again.
        self._written_s: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    def parse(self, line: bytes) -> KmsAccess | None:
        """The access or accesses that a line tells of; None when it is not a line of this log."""
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        time = self._clock.find(text)
        match = _EVENT.match(text, len(time[1])) if time is not None else None
        if time is None or match is None:
            return None
        parts = (part.partition("=") for part in (match["fields"] or "").split(", "))
        fields: dict[str, str] = {name: value for name, _, value in parts}
        status = match["status"] or match["bare"].partition(" ")[0]
        full, op, key = fields.get("user"), fields.get("op", status), fields.get("key")
        user, realm = short_name(full) if full else (None, False)
        return KmsAccess(
            time_s=time[0],
            time=time[1],
            op=op,
            key=key,
            user=user,
            outcome=_OUTCOMES[status],
            session=full,
            count=self._count((full or "", key or "", op), time[0], fields),
            realm=realm,
        )

    def _count(self, what: tuple[str, str, str], now_s: float, fields: dict[str, str]) -> int:
        count, interval = fields.get("accessCount", ""), fields.get("interval", "").removesuffix("ms")
        if not _NUMBER.fullmatch(count) or not _NUMBER.fullmatch(interval):
            return 1
        began_s = now_s - int(interval) / 1000
        if int(interval) < _SHORTEST_WINDOW_MS:
            self._written_s[what] = began_s
            if len(self._written_s) > _REMEMBERED:
                self._written_s.popitem(last=False)
            return int(count)
        written_s = self._written_s.pop(what, None)
        is_counted_again = written_s is not None and abs(written_s - began_s) < _SAME_START_S
        return int(count) - is_counted_again
