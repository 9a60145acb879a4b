"""Reads audit files back: every worker's, merged in time order, however many and however large.

Rules:

1. It needs no KMS, and writes nothing. Files may grow, rotate or go while they are read: a file is known by its inode,
   and one that is called otherwise by now is looked for under its new name.
2. Memory does not grow with the files: each worker's are read one after another, line by line, and merged.
3. A line that cannot be read was torn by a machine that stopped, and its answer never left: it is counted and passed
   over. A compressed file is not read; `skipped` names it.
4. Records of one worker come in the order they were written; between workers, by their time.

A directory holds `worker-N.jsonl` (or `worker-N.kms-audit.log`), and beside it what rotation by the KMS or by logrotate
has put aside under names that begin so.
"""

from __future__ import annotations

import errno
import heapq
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ringfence_agent.kms.audit.hadoop_format import parse_line

JSON_SUFFIX = ".jsonl"
HADOOP_SUFFIX = ".kms-audit.log"

_NAME = re.compile(r"worker-(?P<number>\d+)(?P<rest>\..*)")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
# Longer than any line that is written.
_MAX_LINE_BYTES = 256 * 1024
_BLOCK_BYTES = 64 * 1024
# Rotations that come between two looks at a directory, one after another.
_MAX_LOOKS = 10

_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Record:
    """One record. `fields` are those of `audit_record`, or what Hadoop's format tells of them; `line` as it stands."""

    time: str
    sequence: int
    fields: dict[str, Any]
    line: bytes


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that was listed, under the name it had then."""

    path: Path
    inode: int

    def open(self) -> BinaryIO:
        """The same file, wherever in its directory rotation has put it. Raises FileNotFoundError when it is gone."""
        path: Path | None = self.path
        for _ in range(_MAX_LOOKS):
            if path is None:
                break
            with suppress(FileNotFoundError):
                stream = path.open("rb")
                if os.fstat(stream.fileno()).st_ino == self.inode:
                    return stream
                stream.close()
            path = next((file.path for file in _listed(self.path.parent) if file.inode == self.inode), None)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))


@dataclass(slots=True)
class AuditFiles:
    """The audit files in some directories, those of each worker apart. `torn` counts lines that could not be read."""

    by_worker: list[list[FoundFile]]
    skipped: list[Path] = field(default_factory=list)
    torn: int = 0

    def read(self, since: str | None = None) -> Iterator[Record]:
        """Every record from `since` (the text of a UTC time) on, merged."""
        return heapq.merge(*(self._read_worker(files, since) for files in self.by_worker), key=_order)

    def last(self, count: int) -> list[Record]:
        """The newest `count` records, oldest first."""
        newest = heapq.merge(*(self._last_of_worker(files, count) for files in self.by_worker), key=_order)
        return list(deque(newest, maxlen=count))

    def _read_worker(self, files: Sequence[FoundFile], since: str | None) -> Iterator[Record]:
        for file in _by_first_record(files):
            with suppress(FileNotFoundError), file.open() as stream:
                if since is None or not _ended_before(stream, since):
                    for record in self._parse(_lines(stream)):
                        if since is None or record.time >= since:
                            yield record

    def _last_of_worker(self, files: Sequence[FoundFile], count: int) -> list[Record]:
        found: list[Record] = []
        for file in reversed(_by_first_record(files)):
            with suppress(FileNotFoundError), file.open() as stream:
                found = self._last_of_file(stream, count - len(found)) + found
            if len(found) >= count:
                break
        return found

    def _last_of_file(self, stream: BinaryIO, count: int) -> list[Record]:
        asked = count
        while True:
            lines = _last_lines(stream, asked)
            found = list(filter(None, map(parse_record, lines)))
            if len(found) >= count or len(lines) < asked:
                return found[-count:]
            # Torn lines were among them.
            asked *= 2

    def _parse(self, lines: Iterable[bytes]) -> Iterator[Record]:
        for line in lines:
            record = parse_record(line)
            if record is not None:
                yield record
            elif line.endswith(b"\n") and line.strip():
                self.torn += 1


def _order(record: Record) -> tuple[str, int]:
    return record.time, record.sequence


def find_files(directories: Iterable[Path]) -> AuditFiles:
    """The files in `directories`; those in JSON where there are any, else those in Hadoop's format.

    Raises OSError for a directory that cannot be listed.
    """
    groups: dict[tuple[str, Path, int], list[FoundFile]] = {}
    skipped = []
    for directory in directories:
        for file in _listed(directory):
            match = _NAME.fullmatch(file.path.name)
            suffix = next((each for each in (JSON_SUFFIX, HADOOP_SUFFIX) if match and each in match["rest"]), None)
            if match is None or suffix is None:
                continue
            if file.path.suffix in _COMPRESSED:
                skipped.append(file.path)
            else:
                groups.setdefault((suffix, directory, int(match["number"])), []).append(file)
    wanted = JSON_SUFFIX if any(suffix == JSON_SUFFIX for suffix, _, _ in groups) else HADOOP_SUFFIX
    return AuditFiles([files for (suffix, _, _), files in groups.items() if suffix == wanted], skipped)


def _listed(directory: Path) -> list[FoundFile]:
    """What is in a directory, by name. A file that is renamed while names are read may be in none of them: they are
    read until they stay as they are, which they do but for the moment of a rotation.
    """
    found = _list_once(directory)
    for _ in range(_MAX_LOOKS):
        before, found = found, _list_once(directory)
        if found == before:
            break
    return found


def _list_once(directory: Path) -> list[FoundFile]:
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                found.append(FoundFile(Path(entry.path), entry.stat().st_ino))
    return sorted(found, key=lambda file: file.path)


def find_rotated(directory: Path) -> list[Path]:
    """The files in `directory` that nobody writes any more, whatever their format."""
    return [
        path
        for path in directory.iterdir()
        if (match := _NAME.fullmatch(path.name)) is not None
        and any(suffix in match["rest"] and suffix != match["rest"] for suffix in (JSON_SUFFIX, HADOOP_SUFFIX))
    ]


def last_sequence(directory: Path, number: int) -> int:
    """The sequence of the newest record under a worker's number, 0 when there is none in JSON."""
    names = [file for file in _listed(directory) if file.path.name.startswith(f"worker-{number}.")]
    files = [file for file in names if JSON_SUFFIX in file.path.name and file.path.suffix not in _COMPRESSED]
    newest = AuditFiles([files]).last(1)
    return newest[0].sequence if newest else 0


def parse_record(line: bytes) -> Record | None:
    """One line of either format, None for a line that is neither."""
    if line.startswith(b"{"):
        try:
            fields = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the last: brackets within brackets
            return None
        sequence = fields.get("sequence", 0)
    else:
        fields, sequence = parse_line(line), 0
    if fields is None or not isinstance(fields.get("time"), str) or not isinstance(sequence, int):
        return None
    return Record(fields["time"], sequence, fields, line)


def follow(directories: Sequence[Path], offsets: dict[int, int], pause: Callable[[], None]) -> Iterator[Record]:
    """What is written from now on, without end; `pause` waits between two looks.

    `offsets` holds how much of each file, by inode, is known already; a file that is not in it is read whole.
    """
    streams: dict[int, BinaryIO] = {}
    try:
        while True:
            seen = set()
            for file in (file for group in find_files(directories).by_worker for file in group):
                seen.add(file.inode)
                if file.inode not in streams:
                    with suppress(FileNotFoundError):
                        streams[file.inode] = file.open()
                        streams[file.inode].seek(offsets.get(file.inode, 0))
            fresh: list[Record] = []
            for inode in tuple(streams):
                fresh += filter(None, map(parse_record, _whole_lines(streams[inode])))
                if inode not in seen:
                    streams.pop(inode).close()
            yield from sorted(fresh, key=_order)
            pause()
    finally:
        for stream in streams.values():
            stream.close()


def known_sizes(files: AuditFiles) -> dict[int, int]:
    """The size of each file by inode, for `follow`: up to the end of its last whole line."""
    sizes = {}
    for file in (file for group in files.by_worker for file in group):
        with suppress(FileNotFoundError), file.open() as stream:
            size = os.fstat(stream.fileno()).st_size
            last = next(iter(_last_lines(stream, 1, size)), b"\n")
            sizes[file.inode] = size if last.endswith(b"\n") else size - len(last)
    return sizes


def _by_first_record(files: Iterable[FoundFile]) -> list[FoundFile]:
    """In the order in which they were written, whatever they are called."""
    dated = []
    for file in files:
        with suppress(FileNotFoundError), file.open() as stream:
            first = next(filter(None, map(parse_record, _lines(stream))), None)
            if first is not None:
                dated.append((first.time, first.sequence, file.path, file))
    return [file for *_, file in sorted(dated)]


def _ended_before(stream: BinaryIO, since: str) -> bool:
    last = [parse_record(line) for line in _last_lines(stream, 1)]
    stream.seek(0)
    return bool(last) and last[0] is not None and last[0].time < since


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    while line := stream.readline(_MAX_LINE_BYTES):
        yield line


def _whole_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines that are there in whole; the stream stays at the beginning of one that is not."""
    while True:
        start = stream.tell()
        line = stream.readline(_MAX_LINE_BYTES)
        if not line.endswith(b"\n") and len(line) < _MAX_LINE_BYTES:
            stream.seek(start)
            return
        yield line


def _last_lines(stream: BinaryIO, count: int, size: int | None = None) -> list[bytes]:
    """The last `count` lines of the first `size` bytes, read from their end."""
    position = os.fstat(stream.fileno()).st_size if size is None else size
    blocks: list[bytes] = []
    breaks = 0
    while position and breaks <= count:
        wanted = min(_BLOCK_BYTES, position)
        position -= wanted
        stream.seek(position)
        blocks.append(stream.read(wanted))
        breaks += blocks[-1].count(b"\n")
    # Not splitlines(): names may hold other characters that it takes for line breaks.
    lines = [line + b"\n" for line in b"".join(reversed(blocks)).split(b"\n")]
    lines[-1] = lines[-1][:-1]
    if not lines[-1]:
        lines.pop()
    return lines[-count:] if count > 0 else []
