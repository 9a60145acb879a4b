"""What the NameNode's own logs tell: who renamed something (audit log), and which renames it refused (daemon log).

An event carries no user, and a rename between zones that HDFS refuses appears in the daemon log alone
(`hadoop-kms-and-zones.md` D.11). Both are files of the NameNode's machine; without them a user is unknown and refusals
are not seen.

Rules: reads are bounded, whatever a file holds; a line that is cut (by the bound, or not written to its end yet) is
left out or waited for; a file that was rotated or truncated is read from its start; a file that cannot be read is said
once and tried again. Nothing is parsed that has not the exact shape.

Sources: `FSNamesystem.logAuditEvent` (fields separated by tabs), `org.apache.hadoop.ipc.Server.logException`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ringfence_agent.reverts import UNKNOWN_USER

_log = logging.getLogger(__name__)

MAX_TAIL_BYTES = 8 * 1024 * 1024
MAX_READ_BYTES = 1024 * 1024
_MAX_LINE_BYTES = 64 * 1024
# Of the audit line around a rename: the event's time is the edit's, the line is written when it is answered.
_NEAR_S = 10.0
_TIME = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) ")
# From the line's own beginning: the last field, the caller's context, is text of the caller's choice.
_AUDIT = re.compile(
    r"^[^\t]*allowed=true\tugi=(?P<ugi>[^\t]+)\tip=[^\t]*\tcmd=rename(?: \(options=\[[A-Z_, ]*\]\))?"
    r"\tsrc=(?P<src>[^\t]+)\tdst=(?P<dst>[^\t]+)\t"
)
_ASKED = re.compile(r"ClientProtocol\.rename2? from (?P<host>[^\s:]+)")
# On the line of the call, or, as the first line of a stack trace, on the next.
_EXCEPTION = "java.io.IOException: /"
_REFUSED = re.compile(r"java\.io\.IOException: (?P<message>(?P<src>/.*?) can't be moved (?:from|into|because) .*)$")


@dataclass(frozen=True, slots=True)
class RefusedRename:
    """A rename that HDFS refused at a zone's border. `when` is as the log has it, in the NameNode's time zone."""

    when: str
    source: str
    message: str
    host: str


class AuditLog:
    """Finds who renamed something, in the ends of audit logs and of what each was rotated to last (`.1`)."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = [file for path in paths for file in (path, path.with_name(f"{path.name}.1"))]

    def find_user(self, source: str, target: str, when_s: float) -> str | None:
        """Who renamed `source` to `target` about then (seconds since 1970): the short name, with the real user behind a
        proxied one. None when no line says so, or lines of two users do."""
        found: set[str] = set()
        for path in self._paths:
            found |= set(_users(_tail(path), source, target, when_s))
        return found.pop() if len(found) == 1 else None


class LogFollower:
    """Gives the lines that were added to a file since the last time. A first look begins at the file's end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at: tuple[int, int] | None = None  # inode and offset
        self._rest = b""
        self._is_broken = False

    def read_lines(self) -> list[str]:
        """New whole lines, from at most the last `MAX_READ_BYTES` bytes."""
        try:
            with self._path.open("rb") as stream:
                status = os.fstat(stream.fileno())
                start = self._start(status)
                stream.seek(start)
                content = stream.read(MAX_READ_BYTES)
        except OSError as error:
            if not self._is_broken:
                _log.warning("cannot read %s: %s", self._path, error.strerror)
            self._is_broken, self._at, self._rest = True, self._at or (0, 0), b""
            return []
        self._is_broken = False
        self._at = (status.st_ino, start + len(content))
        lines = (self._rest + content).split(b"\n")
        self._rest = lines.pop()[-_MAX_LINE_BYTES:]
        return [line.decode(errors="replace") for line in lines if len(line) <= _MAX_LINE_BYTES]

    def _start(self, status: os.stat_result) -> int:
        if self._at is None:
            return status.st_size
        inode, offset = self._at
        if inode != status.st_ino or status.st_size < offset:
            offset, self._rest = 0, b""  # rotated or truncated
        if status.st_size - offset > MAX_READ_BYTES:
            offset, self._rest = status.st_size - MAX_READ_BYTES, b""
        return offset


class Refusals:
    """Finds the renames that zones' borders refused, in the lines of the NameNode's daemon log as they come."""

    def __init__(self) -> None:
        self._asked: tuple[str, str] | None = None  # when, from which host

    def read(self, lines: list[str]) -> Iterator[RefusedRename]:
        """Those that these lines complete."""
        for line in lines:
            asked = _ASKED.search(line)
            if asked is not None:
                when = _TIME.match(line)
                self._asked = (when[1] if when else "an unknown time", asked["host"])
            # Once: a name may hold what a message begins with, many times.
            begins = line.find(_EXCEPTION)
            refused = _REFUSED.match(line, begins) if begins >= 0 else None
            if refused is not None and self._asked is not None:
                when_text, host = self._asked
                yield RefusedRename(when_text, refused["src"], refused["message"], host)
            if asked is None or refused is not None:
                self._asked = None


class RefusalLog:
    """Refused renames in one NameNode's daemon log, as it grows."""

    def __init__(self, path: Path) -> None:
        self._follower = LogFollower(path)
        self._refusals = Refusals()

    def read_refused(self) -> list[RefusedRename]:
        """Those since the last time."""
        return list(self._refusals.read(self._follower.read_lines()))


def _users(lines: list[str], source: str, target: str, when_s: float) -> Iterator[str]:
    for line in lines:
        match = _AUDIT.search(line)
        # A cheap look first: an audit log is long.
        if match is None or (_unescape(match["src"]), _unescape(match["dst"])) != (source, target):
            continue
        written_s = _written_s(line)
        if written_s is None or abs(written_s - when_s) <= _NEAR_S:
            yield _short_user(match["ugi"])


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            start = max(size - MAX_TAIL_BYTES, 0)
            stream.seek(start)
            content = stream.read(MAX_TAIL_BYTES)
    except OSError:
        return []
    lines = content.split(b"\n")
    # The first is cut when reading began in the middle, the last when it is still being written.
    return [line.decode(errors="replace") for line in lines[1 if start else 0 : -1] if b"cmd=rename" in line]


def _written_s(line: str) -> float | None:
    match = _TIME.match(line)
    if match is None:
        return None
    # log4j writes local time; the log is a file of this machine.
    return datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").timestamp() + int(match[2]) / 1000  # noqa: DTZ007


def _short_user(ugi: str) -> str:
    """`etl (auth:SIMPLE)`; `etl (auth:PROXY) via oozie/h@R (auth:KERBEROS)` is etl, by way of oozie."""
    names = [part.partition(" (auth:")[0] for part in ugi.split(" via ")]
    short = [re.split("[/@]", name)[0] for name in names]
    return " via ".join(short) if all(short) else UNKNOWN_USER


def _unescape(value: str) -> str:
    r"""Paths are Java-escaped: `\\`, `\t`, `é`."""
    if "\\" not in value:
        return value
    return re.sub(r"\\(u[0-9A-Fa-f]{4}|.)", lambda match: _unescaped(match[1]), value)


def _unescaped(code: str) -> str:
    if code.startswith("u") and len(code) == 5:
        return chr(int(code[1:], 16))
    return {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}.get(code, code)
