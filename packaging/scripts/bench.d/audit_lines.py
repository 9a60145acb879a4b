"""Counts what the audit log of our KMS says was served, so that no figure is of work that was not written down."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from kms_load import BenchError

# Our names for the two measured operations -> the operation in an audit line.
_OPERATIONS = {"decrypt": b'"op":"DECRYPT_EEK"', "generate": b'"op":"GENERATE_EEK"'}
# A line is written before its answer leaves; only requests whose client has just gone may still be under way.
_SETTLE_S = 5.0


class AuditLog:
    """The audit log of one server, read on from where the last look ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""
        self._lines: Counter[str] = Counter()
        # All lines read so far, of any operation.
        self.seen = 0

    def count(self, operation: str) -> int:
        """Lines of this operation so far that record a success."""
        self._read_on()
        return self._lines[operation]

    def expect(self, operation: str, lines: int, *, in_flight: int) -> None:
        """Raises BenchError unless the log holds `lines` of this operation, and at most `in_flight` more."""
        deadline = time.monotonic() + _SETTLE_S
        while self.count(operation) < lines and time.monotonic() < deadline:
            time.sleep(0.05)
        count = self._settled_count(operation) if in_flight else self.count(operation)
        if not lines <= count <= lines + in_flight:
            raise BenchError(
                f"the audit log {self._path} has {count} lines of {operation}, but {lines} requests were served"
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
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            data = stream.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.seen += len(lines)
        for operation, mark in _OPERATIONS.items():
            self._lines[operation] += sum(1 for line in lines if mark in line and b'"status":200' in line)
