"""Log files as one stream for each kind of log, however many and however large.

Rules:

1. A file is what its lines are, not what its name says: the first line that any of the logs would write decides. One
   in which there is no such line is an error, for a file that says nothing would pass for one in which nothing is
   wrong. Plain or gzip, by its first bytes.
2. The files of one kind are merged by time, each read from its beginning to its end, and opened when its turn comes:
   rotated files follow one another, those of several servers or workers run side by side. Times of different kinds of
   logs are never compared: some are local, some are UTC.
3. Memory does not grow with the files. A line longer than any that is written is passed over piece by piece.
4. A line that cannot be read is counted, and the first ones are named. A file that breaks off (a torn gzip, an error of
   the disk) is named, and what came before it counts.
"""

from __future__ import annotations

import gzip
import heapq
import io
import math
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from ringfence_zones.errors import InputError
from ringfence_zones.replay.access import Access, LineParser, LogKind
from ringfence_zones.replay.kms_log import KmsLog
from ringfence_zones.replay.namenode_log import NameNodeLog
from ringfence_zones.replay.ringfence_log import RingfenceLog

# Longer than any line that is written: a path has 8000 bytes at most, an escaped one six times as many.
MAX_LINE_BYTES = 256 * 1024
_BUFFER_BYTES = 1024 * 1024
_SHOWN_PLACES = 5
_GZIP = b"\x1f\x8b"
_BROKEN = (OSError, EOFError, zlib.error)
_PARSERS: Mapping[LogKind, Callable[[], LineParser]] = MappingProxyType(
    {LogKind.AUDIT: RingfenceLog, LogKind.NAMENODE: NameNodeLog, LogKind.KMS: KmsLog}
)


@dataclass(slots=True)
class LogReading:
    """How reading the files of one kind went, so far. `unreadable_at` are the first places, as `FILE:LINE`."""

    kind: LogKind
    files: list[Path] = field(default_factory=list)
    lines: int = 0
    unreadable: int = 0
    unreadable_at: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Placed:
    """An access and where it stands."""

    access: Access
    path: Path
    line: int

    @property
    def where(self) -> str:
        """`FILE:LINE`."""
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class _LogFile:
    path: Path
    kind: LogKind
    first_s: float


class LogFiles:
    """The files, sorted out. Raises InputError for one that cannot be read or is no log, naming it."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.readings = {kind: LogReading(kind) for kind in LogKind}
        self._files: list[_LogFile] = []
        for path in _distinct(paths):
            found = _sniff(path)
            if found is None:
                continue
            self._files.append(found)
            self.readings[found.kind].files.append(path)

    def read(self, kind: LogKind) -> Iterator[Placed]:
        """Every access in the logs of one kind, in the order of their times."""
        waiting = sorted((file for file in self._files if file.kind is kind), key=lambda file: file.first_s)
        waiting.reverse()
        # What is next in each open file; the number keeps files apart whose next lines have the same time.
        heads: list[tuple[float, int, Placed, Iterator[Placed]]] = []
        opened = 0
        while waiting or heads:
            while waiting and (not heads or waiting[-1].first_s <= heads[0][0]):
                opened += 1
                _push(heads, opened, self._read_file(waiting.pop()))
            if not heads:
                continue
            _, number, placed, rest = heapq.heappop(heads)
            yield placed
            # On with the same file for as long as none of the others has its turn.
            until_s = min(heads[0][0] if heads else math.inf, waiting[-1].first_s if waiting else math.inf)
            for following in rest:
                if following.access.time_s >= until_s:
                    heapq.heappush(heads, (following.access.time_s, number, following, rest))
                    break
                yield following

    def _read_file(self, file: _LogFile) -> Iterator[Placed]:
        reading, parser = self.readings[file.kind], _PARSERS[file.kind]()
        number = 0
        try:
            with _open(file.path) as stream:
                for number, line in enumerate(_lines(stream), start=1):
                    reading.lines += 1
                    access = parser.parse(line) if line is not None else None
                    if access is not None:
                        yield Placed(access, file.path, number)
                    elif line is None or line.strip():
                        _count_unreadable(reading, f"{file.path}:{number}")
        except _BROKEN as error:
            reading.broken.append(f"{file.path}:{number + 1}: {_why(error)}")


def _push(heads: list[tuple[float, int, Placed, Iterator[Placed]]], number: int, rest: Iterator[Placed]) -> None:
    placed = next(rest, None)
    if placed is not None:
        heapq.heappush(heads, (placed.access.time_s, number, placed, rest))


def _count_unreadable(reading: LogReading, where: str) -> None:
    reading.unreadable += 1
    if len(reading.unreadable_at) < _SHOWN_PLACES:
        reading.unreadable_at.append(where)


def _distinct(paths: Sequence[Path]) -> Iterator[Path]:
    """Each file once, by whatever names it was given. Raises InputError for what is no readable file."""
    seen: set[tuple[int, int]] = set()
    for path in paths:
        try:
            found = path.stat()
        except OSError as error:
            raise InputError(f"cannot read the log {path}: {error.strerror}") from error
        if not stat.S_ISREG(found.st_mode):
            hint = f"name the files in it: {path}/*" if stat.S_ISDIR(found.st_mode) else "save the log in a file"
            raise InputError(f"{path} is not a file", hint=hint)
        if (found.st_dev, found.st_ino) not in seen:
            seen.add((found.st_dev, found.st_ino))
            yield path


def _sniff(path: Path) -> _LogFile | None:
    """What log a file is and when it begins; None for an empty one. Raises InputError when it is none."""
    is_empty = True
    parsers = [(kind, parser()) for kind, parser in _PARSERS.items()]
    try:
        with _open(path) as stream:
            for line in _lines(stream):
                if line is None or not line.strip():
                    continue
                is_empty = False
                for kind, parser in parsers:
                    access = parser.parse(line)
                    if access is not None:
                        return _LogFile(path, kind, access.time_s)
    except _BROKEN as error:
        raise InputError(f"cannot read the log {path}: {_why(error)}") from error
    if is_empty:
        return None
    raise InputError(
        f"{path} has no line of an audit log",
        hint="name audit files of Ringfence's KMS (worker-0.jsonl), of Hadoop's (kms-audit.log) or hdfs-audit.log",
    )


@contextmanager
def _open(path: Path) -> Iterator[io.BufferedIOBase]:
    with io.BufferedReader(io.FileIO(path), _BUFFER_BYTES) as stream:
        if stream.peek(len(_GZIP))[: len(_GZIP)] != _GZIP:
            yield stream
            return
        # No further buffer above it: that would lose what comes just before the place where a file breaks off.
        with gzip.GzipFile(fileobj=stream) as unpacked:
            yield unpacked


def _lines(stream: io.BufferedIOBase) -> Iterator[bytes | None]:
    """Line by line; None for one that is too long."""
    while line := stream.readline(MAX_LINE_BYTES):
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE_BYTES)
        yield None


def _why(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
