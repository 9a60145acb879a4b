"""kill -9 from outside, at every statement and file operation of an action on a store in a file.

Crash points are counted, not listed: a rehearsal runs the same action to its end and numbers every SQL statement
(sqlite3's trace) and every file operation (Python's audit events) it makes; then one child per number stops there and
is killed.
"""

from __future__ import annotations

import os
import select
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from local_stores import in_child, kill, read_all


class InDirectory(Protocol):
    """What is acted on: it keeps to one directory."""

    @property
    def directory(self) -> Path: ...


T = TypeVar("T", bound=InDirectory)

FILE_EVENTS = {"open", "os.rename", "os.link", "os.remove", "os.chmod", "os.truncate", "sqlite3.connect"}
ANSWER_WAIT_S = 30.0


def stop_at(number: int, report: int, directory: Path) -> list[int]:
    """Counts this process's operations in `directory` and waits to be killed before number `number`."""
    count = [0]

    def reached(*_: object) -> None:
        if count[0] == number:
            os.write(report, b"reached\n")
            signal.pause()
        count[0] += 1

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILE_EVENTS and str(directory) in str(arguments[0]):
            reached()

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = real_connect(*arguments, **options)
        if str(directory) in str(arguments[0]):
            connection.set_trace_callback(reached)
        return connection

    real_connect = sqlite3.connect
    sqlite3.connect = connect  # in this child alone, which dies
    sys.addaudithook(audit)
    return count


def count_points(action: Callable[[T], None], place: T) -> int:
    """How many crash points `action` has; it is carried out."""

    def rehearse(report: int) -> None:
        count = stop_at(-1, report, place.directory)
        action(place)
        os.write(report, f"{count[0]}\n".encode())

    pid, read_end = in_child(rehearse)
    (answer,) = read_all(read_end)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return int(answer)


def kill_at(number: int, action: Callable[[T], None], place: T) -> None:
    """Carries `action` out in a child up to the crash point with this number, and kills it there."""

    def act(report: int) -> None:
        stop_at(number, report, place.directory)
        action(place)

    pid, read_end = in_child(act)
    try:
        ready, _, _ = select.select([read_end], [], [], ANSWER_WAIT_S)
        assert ready
        assert os.read(read_end, 100) == b"reached\n", f"crash point {number} was not reached"
    finally:
        kill(pid)
        os.close(read_end)
