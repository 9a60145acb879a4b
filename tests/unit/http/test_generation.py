"""The generation counters, across real processes."""

from __future__ import annotations

import os
import threading

import pytest

from ringfence_agent.http.generation import GenerationTable


def _in_child(work: object) -> int:
    """Forks, runs `work` in the child and exits with 0 when it returns true."""
    assert callable(work)
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return pid


def _wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_nothing_changes_without_a_bump() -> None:
    view = GenerationTable(3).view(0)
    assert view.current() == view.current() == bytes(24)


def test_bump_of_one_process_is_seen_by_parent_and_siblings() -> None:
    table = GenerationTable(3)
    seen = table.view(0).current()
    assert _wait(_in_child(lambda: table.view(1).bump() is None)) == 0
    assert table.view(0).current() != seen
    assert _wait(_in_child(lambda: table.view(2).current() != seen)) == 0


def test_a_processs_own_bump_is_seen_by_itself() -> None:
    view = GenerationTable(1).view(0)
    seen = view.current()
    view.bump()
    assert view.current() != seen


def test_bumps_of_several_processes_at_once_are_never_lost() -> None:
    table = GenerationTable(4)

    def storm(counter: int) -> bool:
        view = table.view(counter)
        for _ in range(5000):
            view.bump()
        return True

    pids = [_in_child(lambda counter=counter: storm(counter)) for counter in range(4)]
    assert [_wait(pid) for pid in pids] == [0, 0, 0, 0]
    current = table.view(0).current()
    assert [int.from_bytes(current[at : at + 8], "little") for at in range(0, 32, 8)] == [5000] * 4


def test_bumps_of_several_threads_at_once_are_never_lost() -> None:
    view = GenerationTable(1).view(0)
    threads = [threading.Thread(target=lambda: [view.bump() for _ in range(5000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int.from_bytes(view.current(), "little") == 20_000


def test_successor_goes_on_from_where_its_counter_stands() -> None:
    table = GenerationTable(2)
    table.view(0).bump()
    seen = table.view(1).current()
    table.view(0).bump()
    assert table.view(1).current() not in (seen, bytes(16))


@pytest.mark.parametrize("counter", [-1, 2])
def test_counter_outside_the_table_is_refused(counter: int) -> None:
    with pytest.raises(IndexError):
        GenerationTable(2).view(counter)
