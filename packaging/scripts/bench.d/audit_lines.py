"""Counts what the audit log of our KMS says was served, so that no figure is of work that was not written down."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

from kms_load import BenchError

# Our names for what is measured -> the operation in an audit line.
_MARKS = {
    "decrypt": b'"op":"DECRYPT_EEK"',
    "inline": b'"op":"DECRYPT_EEK"',
    "generate": b'"op":"GENERATE_EEK"',
    "metadata": b'"op":"GET_METADATA"',
}
# One file a worker, and a new one after each rotation.
_FILE = re.compile(r"(worker-\d+)\..*jsonl")
# A line is written before its answer leaves; only requests whose client has just gone may still be under way.
_SETTLE_S = 5.0


class AuditLog:
    """The audit log of one server, read on from where the last look ended. `directory` holds the workers' files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # By inode, because a rotation renames: how far a file was read, and the half line at its end.
        self._read: dict[int, tuple[int, bytes]] = {}
        self._lines: Counter[tuple[str, bytes]] = Counter()
        # All lines read so far, of any operation.
        self.seen = 0

    def count(self, operation: str) -> int:
        """Lines of this operation so far that record a success."""
        self._read_on()
        return sum(count for (_, mark), count in self._lines.items() if mark == _MARKS[operation])

    def shares(self, operation: str) -> tuple[float, ...]:
        """The share of each worker in the lines of this operation, the largest first."""
        self._read_on()
        counts = [count for (_, mark), count in self._lines.items() if mark == _MARKS[operation]]
        return tuple(sorted((count / sum(counts) for count in counts), reverse=True))

    def expect(self, operation: str, lines: int, *, in_flight: int) -> None:
        """Raises BenchError unless the log holds `lines` of this operation, and at most `in_flight` more."""
        deadline = time.monotonic() + _SETTLE_S
        while self.count(operation) < lines and time.monotonic() < deadline:
            time.sleep(0.05)
        count = self._settled_count(operation) if in_flight else self.count(operation)
        if not lines <= count <= lines + in_flight:
            raise BenchError(
                f"the audit log in {self._directory} has {count} lines of {operation}, but {lines} requests were served"
                + (f" and at most {in_flight} more were under way" if in_flight else "")
            )

    def _settled_count(self, operation: str) -> int:
        count = self.count(operation)
        while True:
            time.sleep(0.05)
            again = self.count(operation)
            if again == count:
                return count
            count = again

    def _read_on(self) -> None:
        for path in self._directory.glob("worker-*"):
            match = _FILE.fullmatch(path.name)
            if match:
                self._read_file(match[1], path)

    def _read_file(self, worker: str, path: Path) -> None:
        with path.open("rb") as stream:
            inode = path.stat().st_ino
            offset, rest = self._read.get(inode, (0, b""))
            stream.seek(offset)
            data = stream.read()
        *lines, rest = (rest + data).split(b"\n")
        self._read[inode] = (offset + len(data), rest)
        self.seen += len(lines)
        for mark in set(_MARKS.values()):
            self._lines[worker, mark] += sum(1 for line in lines if mark in line and b'"status":200' in line)
