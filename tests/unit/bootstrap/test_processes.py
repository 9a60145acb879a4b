"""Only the process that was started is ever signalled, and all of it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ringfence_bootstrap.sandbox import processes
from ringfence_bootstrap.sandbox.processes import Process

Start = Callable[..., Process]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "not so within 10 s"
        time.sleep(0.01)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Process] = []

    def run(*command: str) -> Process:
        started.append(processes.start(command, os.environ, tmp_path, tmp_path / "log"))
        return started[-1]

    yield run
    processes.stop(started, timeout_s=0)


def test_a_started_process_runs_in_its_own_session_and_directory(start: Start, tmp_path: Path) -> None:
    process = start("sh", "-c", "pwd; exec sleep 60")
    assert processes.is_alive(process)
    assert os.getsid(process.pid) == process.pid
    wait_for(lambda: (tmp_path / "log").read_text() == f"{tmp_path}\n")


def test_both_outputs_go_to_the_log_and_the_log_before_is_kept(start: Start, tmp_path: Path) -> None:
    first = start("sh", "-c", "echo one; echo two >&2")
    wait_for(lambda: not processes.is_alive(first))
    second = start("echo", "three")
    wait_for(lambda: not processes.is_alive(second))
    assert (tmp_path / "log.previous").read_text() == "one\ntwo\n"
    assert (tmp_path / "log").read_text() == "three\n"


def test_stop_ends_a_process_and_reports_nothing_killed(start: Start) -> None:
    process = start("sleep", "60")
    assert processes.stop([process], timeout_s=10) == []
    assert not processes.is_alive(process)


def test_a_process_that_ignores_the_signal_is_killed_with_its_children(start: Start, tmp_path: Path) -> None:
    process = start("sh", "-c", "trap '' TERM; sleep 60 & echo $!; wait; sleep 60")
    wait_for(lambda: (tmp_path / "log").read_text().endswith("\n"))
    child = Process(*_identity(int((tmp_path / "log").read_text())))
    assert processes.is_alive(child)
    assert processes.stop([process], timeout_s=0.2) == [process]
    assert not processes.is_alive(process)
    wait_for(lambda: not processes.is_alive(child))


@pytest.mark.parametrize("changed", ["start_ticks", "boot_id"])
def test_a_recycled_pid_is_neither_alive_nor_signalled(changed: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            identity = Process(*_identity(stranger.pid))
            earlier = replace(identity, start_ticks=1)
            remembered = earlier if changed == "start_ticks" else replace(identity, boot_id="another boot")
            assert not processes.is_alive(remembered)
            assert processes.stop([remembered], timeout_s=0.1) == []
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen(["true"]) as child:
        identity = Process(*_identity(child.pid))
        wait_for(lambda: processes._stat(child.pid)[0] == "Z")
        assert not processes.is_alive(identity)
        child.returncode = 0  # is_alive has buried it.


def test_a_signal_that_python_ignores_works_in_what_it_starts(start: Start, tmp_path: Path) -> None:
    process = start("sh", "-c", "grep SigIgn /proc/self/status")
    wait_for(lambda: not processes.is_alive(process))
    assert int((tmp_path / "log").read_text().split()[1], 16) & (1 << 12) == 0, "SIGPIPE is still ignored"


def _identity(pid: int) -> tuple[int, int, str]:
    return pid, processes._stat(pid)[1], processes._boot_id()


def test_kill_ends_the_whole_session_at_once(start: Start, tmp_path: Path) -> None:
    process = start("sh", "-c", "trap '' TERM; sleep 61 & echo $!; wait; wait")
    wait_for(lambda: (tmp_path / "log").read_text().strip().isdigit())
    child = int((tmp_path / "log").read_text())
    processes.kill(process)
    assert not processes.is_alive(process)
    wait_for(lambda: not Path(f"/proc/{child}").exists() or "State:\tZ" in Path(f"/proc/{child}/status").read_text())
    processes.kill(process)  # Once more is fine.


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("2026 INFO a\n2026 ERROR b\n  at c.d\n2026 INFO e\n", "2026 ERROR b"),
        ("one\ntwo\nthree\nfour\n", "two | three | four"),
        ("", "it wrote no log"),
    ],
)
def test_the_last_words_of_a_daemon_are_its_errors(tmp_path: Path, log: str, words: str) -> None:
    (tmp_path / "daemon.log").write_text(log)
    assert processes.last_words(tmp_path / "daemon.log") == words
    assert processes.last_words(tmp_path / "none.log") == "it wrote no log"
