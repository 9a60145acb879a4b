"""kill -9 from outside, before each write to Vault that an action on a key store there makes.

Crash points are counted, not listed: a rehearsal makes the same action to its end and numbers its writes; then one
child per number stops before that write, and is killed. What a kill after the last write leaves is what the action
leaves.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from local_stores import in_child, kill, read_all

from ringfence_agent.vault.kv import KvSecrets

T = TypeVar("T")

ANSWER_WAIT_S = 60.0


def _stop_at(number: int, report: int) -> list[int]:
    """Counts this process's writes, and waits to be killed before number `number`."""
    count = [0]
    write = KvSecrets.write

    def counted(self: KvSecrets, path: str, data: Mapping[str, Any], replaces: int) -> int | None:
        if count[0] == number:
            os.write(report, b"reached\n")
            signal.pause()
        count[0] += 1
        return write(self, path, data, replaces)

    KvSecrets.write = counted  # type: ignore[method-assign] # in this child alone, which ends
    return count


def count_writes(action: Callable[[T], None], place: T) -> int:
    """How many writes `action` makes; it is carried out."""

    def rehearse(report: int) -> None:
        count = _stop_at(-1, report)
        action(place)
        os.write(report, f"{count[0]}\n".encode())

    pid, read_end = in_child(rehearse)
    answer = read_all(read_end)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return int(answer[0])


def kill_before_write(number: int, action: Callable[[T], None], place: T) -> None:
    """Carries `action` out in a child up to the write with this number, and kills it there."""

    def act(report: int) -> None:
        _stop_at(number, report)
        action(place)

    pid, read_end = in_child(act)
    try:
        ready, _, _ = select.select([read_end], [], [], ANSWER_WAIT_S)
        assert ready
        assert os.read(read_end, 100) == b"reached\n", f"write {number} was not reached"
    finally:
        kill(pid)
        os.close(read_end)
