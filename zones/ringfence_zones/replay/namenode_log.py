"""The NameNode's audit log, `hdfs-audit.log`.

    2026-11-22 08:57:45,879 allowed=true    ugi=etl (auth:SIMPLE)   ip=/10.0.0.7    cmd=open        src=/data/pii/f ...

Source: `FSNamesystem.FSNamesystemAuditLogger` of Hadoop 3.4: fields separated by tabs; source and target escaped as
Java does it; `trackingId` (of a delegation token) and `callerContext` only where they are switched on. What stands
before `allowed=` is log4j's and begins with the time.

It tells user, address, path and command. It does not tell whether the KMS was asked: `open` is written as well for a
client that only asks where blocks are. A rename that crosses the border of a zone is not in it, for the NameNode
refuses it without a line here. Only what a permission forbade is there as `allowed=false`.
"""

from __future__ import annotations

import functools
import re

from ringfence_zones.replay.access import NameNodeAccess, Outcome, short_name
from ringfence_zones.replay.log_time import LogClock

_LINE = re.compile(
    r"allowed=(?P<allowed>true|false)\tugi=(?P<ugi>[^\t]*)\tip=(?P<ip>[^\t]*)\tcmd=(?P<cmd>[^\t]*)"
    r"\tsrc=(?P<src>[^\t]*)\tdst=(?P<dst>[^\t]*)(?:\t(?P<rest>.*))?"
)
_TRACKING = "trackingId="
_CALLERS_KEPT = 4096
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_PLAIN = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class NameNodeLog:
    """See the module."""

    def __init__(self) -> None:
        self._clock = LogClock()

    def parse(self, line: bytes) -> NameNodeAccess | None:
        """The access that a line tells of; None when it is not a line of this log."""
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        time, match = self._clock.find(text), _LINE.search(text)
        if time is None or match is None:
            return None
        allowed, ugi, address, command, src, dst, rest = match.groups()
        names, user, realm = _caller(ugi)
        return NameNodeAccess(
            time_s=time[0],
            time=time[1],
            op=command.partition(" ")[0],
            src=_path(src),
            dst=_path(dst),
            user=user,
            outcome=Outcome.DONE if allowed == "true" else Outcome.FAILED,
            session=_token(rest or "") or (names, address),
            realm=realm,
            to_trash="TO_TRASH" in command,
        )


@functools.lru_cache(_CALLERS_KEPT)
def _caller(ugi: str) -> tuple[tuple[str, ...], str, bool]:
    """`joe (auth:PROXY) via oozie/host@R (auth:KERBEROS)`: the names, the short one of who it is, if it had a realm."""
    names = tuple(name.partition(" (auth:")[0] for name in ugi.split(" via "))
    return names, *short_name(names[0])


def _token(rest: str) -> str | None:
    if _TRACKING not in rest:
        return None
    tracking = next((part for part in rest.split("\t") if part.startswith(_TRACKING)), None)
    return tracking if tracking != f"{_TRACKING}null" else None


def _path(text: str) -> str | None:
    """What `StringEscapeUtils.escapeJava` made this of."""
    if text == "null":
        return None
    if "\\" not in text:
        return text
    plain = _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else _PLAIN.get(match[2], match[2]), text)
    # Characters beyond 16 bits are written as two surrogates.
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
