"""kill -9 from outside, before every step of an action that leaves something behind.

Crash points are traced, not listed: a rehearsal carries the action out and notes every durable write and every remote
call that it makes; then one child per point stops there and is killed by the test. A point is

- an SQL statement that writes, and each commit: SQLite's trace of every connection, SQLAlchemy's events of a server's;
- a change of the file system: made, opened for writing (before and after), linked, renamed, removed, its mode changed;
- a request over TCP: before it is sent, and when it was answered;
- the end of the action, when all of it is done and nobody was told.

What only reads is no point: a process that dies there leaves what it leaves at the next. A point that is not reached
fails the test, and so does one that the rehearsal did not meet.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from local_stores import in_child, kill, read_all
from sqlalchemy import Engine, event


class InDirectory(Protocol):
    """What is acted on: it keeps to one directory, but for private ones that the product makes itself."""

    @property
    def directory(self) -> Path: ...


T = TypeVar("T", bound=InDirectory)

END = "end"
_ALONE = ", alone"  # a statement that is its own transaction
ANSWER_WAIT_S = 30.0
_CHANGES = {"os.rename", "os.link", "os.remove", "os.chmod", "os.truncate", "os.mkdir", "os.rmdir"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|COMMIT|PRAGMA (?:user_version|application_id) = )")
_STATEMENT = re.compile(r"INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|PRAGMA (?:user_version|application_id)")
_SUBJECT = re.compile(r"\s*((?:INSERT INTO|UPDATE|DELETE FROM|CREATE TABLE|PRAGMA|COMMIT)(?: \w+)?)")
_REQUEST = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.1\r\n")
_TARGET = re.compile(rb"X-Amz-Target: (\S+)", re.IGNORECASE)
# Asked for again when a second has passed since the last time, so more often on a busy machine; and it only reads.
_HEALTH = "/v1/sys/health"
# Random parts of names: of a temporary directory, of a backup, of a cluster in Vault.
_RANDOM = re.compile(r"(?<=ringfence-backup-)\w+|\d{8}T\d{9}Z|(?<=test-)[0-9a-f]{8}|[0-9a-f]{16,}")
_PRIVATE = "/ringfence-backup-"


class _Trace:
    """Notes the points of this process from now on; stops at the last of `until`.

    Points here and remote ones are counted apart: a busy machine may ask once more for what a call did not answer in
    time, and that moves no other point.
    """

    def __init__(self, until: Sequence[str], report: int, directory: Path) -> None:
        self.labels: list[str] = []
        self._stop_at = _place_of(until)
        self._report = report
        self._directory = str(directory)

    def start(self) -> None:
        """For the rest of the life of this process, which is a child."""
        _trace_sqlite(self.reached)
        _trace_servers(self.reached)
        _trace_remote(self.reached)
        self._trace_files()

    def reached(self, label: str) -> None:
        """Waits to be killed at its own point."""
        label = _RANDOM.sub("*", label.replace(self._directory, ""))
        if _place_of([*self.labels, label]) == self._stop_at:
            os.write(self._report, f"{label}\n".encode())
            while True:
                signal.pause()
        self.labels.append(label)

    def _trace_files(self) -> None:
        real_open = os.open

        def is_ours(path: object) -> bool:
            # A descriptor, and a name below one: nobody but the product has one here.
            return isinstance(path, int) or any(
                each in os.fsdecode(path)  # type: ignore[arg-type]
                for each in (self._directory, _PRIVATE)
            )

        def audit(name: str, arguments: tuple[Any, ...]) -> None:
            if name == "open":
                path, _, flags = arguments
                if flags & _WRITING and not isinstance(path, int) and is_ours(path):
                    self.reached(f"open {path}")
            elif name in _CHANGES and (is_ours(arguments[0]) or arguments[-1] not in (-1, None)):
                self.reached(f"{name} {'' if isinstance(arguments[0], int) else arguments[0]}")

        def opened(path: Any, flags: int, *more: Any, **named: Any) -> int:
            descriptor = real_open(path, flags, *more, **named)
            if flags & _WRITING and is_ours(path):
                self.reached(f"opened {path}")
            return descriptor

        os.open = opened
        sys.addaudithook(audit)


def _trace_sqlite(reached: Callable[[str], None]) -> None:
    real_connect = sqlite3.connect

    class Connection(sqlite3.Connection):
        """Whose end is a step too: the last one folds the log in."""

        has_written = False
        is_writing = False

        def note(self, statement: str) -> None:
            alone = ""
            if statement.startswith("COMMIT"):
                is_step, self.is_writing = self.is_writing, False
            elif _WRITES.match(statement):
                is_step = self.has_written = True
                self.is_writing = self.in_transaction
                alone = "" if self.in_transaction else _ALONE
            else:
                # What turns a file that was just made into one with a log.
                is_step = self.has_written and statement.startswith("PRAGMA journal_mode = WAL")
            if is_step:
                reached(_subject(statement) + alone)

        def close(self) -> None:
            if self.has_written:
                reached("close")
            super().close()

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = real_connect(*arguments, **options, factory=Connection)
        connection.set_trace_callback(connection.note)
        return connection

    sqlite3.connect = connect


def _trace_servers(reached: Callable[[str], None]) -> None:
    writing: set[int] = set()

    def execute(connection: Any, _cursor: object, statement: str, *_: object) -> None:
        if connection.dialect.name != "sqlite" and _WRITES.match(statement):
            writing.add(id(connection))
            reached(_subject(statement))

    def commit(connection: Any) -> None:
        if id(connection) in writing:
            writing.discard(id(connection))
            reached("COMMIT")

    event.listen(Engine, "before_cursor_execute", execute)
    event.listen(Engine, "commit", commit)


def _trace_remote(reached: Callable[[str], None]) -> None:
    """Requests that go through Python's sockets; libpq's do not, and are statements."""
    real_sendall, real_recv_into = socket.socket.sendall, socket.socket.recv_into
    waiting: dict[int, str] = {}

    def sendall(self: socket.socket, data: Any, *more: Any) -> None:
        request = _REQUEST.match(data) if self.family == socket.AF_INET else None
        if request is not None:
            target = _TARGET.search(data)
            called = (target or request)[1 if target else 2].decode()
            if not called.startswith(_HEALTH):
                reached(f"ask {called}")
                waiting[self.fileno()] = called
        real_sendall(self, data, *more)

    def recv_into(self: socket.socket, *arguments: Any) -> int:
        size = real_recv_into(self, *arguments)
        called = waiting.pop(self.fileno(), None)
        if called is not None:
            reached(f"answer {called}")
        return size

    socket.socket.sendall = sendall  # type: ignore[method-assign]
    socket.socket.recv_into = recv_into  # type: ignore[assignment, method-assign]


def _subject(statement: str) -> str:
    found = _SUBJECT.match(statement)
    return found[1] if found is not None else statement[:40]


def trace_points(action: Callable[[T], object], place: T) -> list[str]:
    """What the crash points of `action` are, each a line; it is carried out, in a child."""

    def rehearse(report: int) -> None:
        trace = _Trace([], report, place.directory)
        trace.start()
        action(place)
        os.write(report, "\n".join([*trace.labels, END, ""]).encode())

    pid, read_end = in_child(rehearse)
    labels = read_all(read_end)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return labels


def kill_at(points: Sequence[str], number: int, action: Callable[[T], object], place: T) -> None:
    """Carries `action` out in a child up to the crash point with this number, and kills it there."""

    def act(report: int) -> None:
        trace = _Trace(points[: number + 1], report, place.directory)
        trace.start()
        action(place)
        trace.reached(END)

    pid, read_end = in_child(act)
    try:
        ready, _, _ = select.select([read_end], [], [], ANSWER_WAIT_S)
        assert ready, f"crash point {number} ({points[number]}) was not reached in time"
        said = os.read(read_end, 4096).decode().partition("\n")[0]  # threads side by side stop each at theirs
        # Calls that go out side by side are answered in any order.
        expected = {label for label in points if _is_remote(label)} if _is_remote(said) else {points[number]}
        assert said in expected, f"crash point {number} was {points[number]!r} at first, and {said!r} now"
    finally:
        kill(pid)
        os.close(read_end)


def carry_out(action: Callable[[T], object], place: T) -> None:
    """All of `action`, in a child."""
    pid, read_end = in_child(lambda _report: action(place) and None)
    assert read_all(read_end) == []
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def distinct(points: Sequence[str]) -> list[int]:
    """The numbers of the points that differ in what they leave: of a transaction its first statement and its commit,
    for the others leave what the first does; of a remote call its answer, for before it is asked for nothing is done.
    """
    inside, numbers = False, []
    for number, label in enumerate(points):
        is_statement = _STATEMENT.match(label) is not None and not label.endswith(_ALONE)
        if not (inside and is_statement) and not label.startswith("ask "):
            numbers.append(number)
        inside = is_statement
    return numbers


def _place_of(labels: Sequence[str]) -> tuple[bool, int] | None:
    """Whether the last is a remote point, and how many of its kind there are up to it."""
    if not labels:
        return None
    is_remote = _is_remote(labels[-1])
    return is_remote, sum(_is_remote(label) is is_remote for label in labels)


def _is_remote(label: str) -> bool:
    return label.startswith(("ask ", "answer "))
