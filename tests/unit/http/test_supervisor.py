"""The supervisor as its users meet it: a real program, real signals, real crashes, seen through sockets."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import supervised_http_app
from http_serving import RawClient

DEADLINE_S = 30.0
_GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass
class Program:
    """The program under test. `log` grows as it writes to standard error."""

    process: subprocess.Popen[bytes]
    port: int
    refusal: Path
    log: list[str] = field(default_factory=list)

    def connect(self) -> RawClient:
        return RawClient(socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S))

    def ask(self, path: bytes) -> dict[str, object]:
        """One request on a connection of its own."""
        with self.connect() as client:
            client.send(_GET % path)
            answer: dict[str, object] = json.loads(client.read_answer().body)
            return answer

    def pids(self) -> dict[int, int]:
        """Slot to pid of the workers that answer now; asks until every slot has answered."""
        seen: dict[int, int] = {}
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            answer = self.ask(b"/")
            seen[int(str(answer["slot"]))] = int(str(answer["pid"]))
            if len(seen) == 2:
                return seen
        raise AssertionError(f"only slots {sorted(seen)} answered: {self.log}")

    def wait_for_log(self, text: str) -> None:
        _wait_until(lambda: any(text in line for line in self.log), f"{text!r} in {self.log}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(DEADLINE_S)


def _command(
    tmp_path: Path,
    port: int = 0,
    *,
    drain_timeout_s: float = 10.0,
    hang_timeout_s: float = 60.0,
    unix: Path | None = None,
) -> list[str]:
    options = {
        "workers": 2,
        "port": port,
        "drain_timeout_s": drain_timeout_s,
        "hang_timeout_s": hang_timeout_s,
        "unix": str(unix) if unix else None,
        "refusal": str(tmp_path / "refuse"),
    }
    return [sys.executable, supervised_http_app.__file__, json.dumps(options)]


@contextmanager
def running(
    tmp_path: Path, *, drain_timeout_s: float = 10.0, hang_timeout_s: float = 60.0, unix: Path | None = None
) -> Iterator[Program]:
    command = _command(tmp_path, drain_timeout_s=drain_timeout_s, hang_timeout_s=hang_timeout_s, unix=unix)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    stderr = process.stderr
    log: list[str] = []
    reader = threading.Thread(target=lambda: log.extend(line.decode() for line in stderr))
    try:
        ready = process.stdout.readline()
        assert ready, stderr.read().decode()
        reader.start()
        yield Program(process, json.loads(ready)["port"], tmp_path / "refuse", log)
    finally:
        process.kill()
        process.wait(DEADLINE_S)
        reader.join(DEADLINE_S)
        process.stdout.close()
        stderr.close()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    with running(tmp_path) as started:
        yield started


def test_every_slot_answers_once_ready_is_announced(program: Program) -> None:
    pids = program.pids()
    assert set(pids) == {0, 1}
    assert len({program.process.pid, *pids.values()}) == 3


def test_taken_port_ends_the_second_program_with_the_fix(program: Program, tmp_path: Path) -> None:
    second = subprocess.run(
        _command(tmp_path, program.port), capture_output=True, check=False, text=True, timeout=DEADLINE_S
    )
    assert second.returncode == 2
    assert f"port {program.port} on localhost is taken by another process" in second.stderr
    assert program.ask(b"/")


def test_bump_in_one_worker_is_seen_by_the_other_with_the_next_request(program: Program) -> None:
    program.pids()
    for _ in range(20):
        before = program.ask(b"/generation")["generation"]
        bumped_by = program.ask(b"/bump")["slot"]
        answers = [program.ask(b"/generation") for _ in range(8)]
        assert all(answer["generation"] != before for answer in answers)
        if any(answer["slot"] != bumped_by for answer in answers):
            return
    raise AssertionError("the other worker never answered")


def test_sigusr1_reaches_every_worker_and_ends_none(program: Program) -> None:
    before = program.pids()
    for _ in range(3):
        program.signal(signal.SIGUSR1)
        program.ask(b"/")
    _wait_until(
        lambda: all(program.ask(b"/reopened")["reopened"] for _ in range(20)), "every worker to have had the signal"
    )
    assert program.pids() == before


def test_dead_worker_is_replaced_and_its_death_bumps_the_generation(program: Program) -> None:
    before = program.ask(b"/generation")["generation"]
    pids = program.pids()
    os.kill(pids[0], signal.SIGKILL)
    program.wait_for_log("was killed by SIGKILL")
    after = program.pids()
    assert after[0] != pids[0]
    assert after[1] == pids[1]
    assert program.ask(b"/generation")["generation"] != before


def test_connections_queued_on_a_dead_workers_socket_are_answered_by_its_successor(program: Program) -> None:
    pids = program.pids()
    os.kill(pids[0], signal.SIGSTOP)
    clients = [program.connect() for _ in range(16)]
    try:
        for client in clients:
            client.send(_GET % b"/")
        # Those of the other slot are answered at once; the rest lie in the stopped worker's queue.
        readable, _, _ = select.select([client.socket for client in clients], [], [], 5)
        assert readable
        os.kill(pids[0], signal.SIGKILL)
        slots = [json.loads(client.read_answer().body)["slot"] for client in clients]
        assert set(slots) == {0, 1}, "chance (1 in 32768) put every connection into one queue"
    finally:
        for client in clients:
            client.socket.close()


def test_worker_whose_event_loop_stands_still_is_replaced_and_no_other(tmp_path: Path) -> None:
    with running(tmp_path, hang_timeout_s=5.0) as program:
        before = program.pids()
        with program.connect() as client:
            client.send(_GET % b"/hang")
            program.wait_for_log("hangs and is killed")
            program.wait_for_log("was killed by SIGKILL")
        after = program.pids()
        assert sum(before[slot] != after[slot] for slot in before) == 1
        # The other one, which only had nothing to do, has been looked at as often.
        assert sum("hangs and is killed" in line for line in program.log) == 1


def test_worker_that_keeps_dying_is_restarted_ever_more_slowly(program: Program) -> None:
    for _ in range(4):
        os.kill(program.pids()[0], signal.SIGKILL)
    program.wait_for_log("worker 0 is started again in 0.4 s")
    delays = [line.split("again in ")[1].split(" s")[0] for line in program.log if "started again in" in line]
    assert delays == ["0", "0.1", "0.2", "0.4"]
    assert set(program.pids()) == {0, 1}


def test_reload_replaces_every_worker(program: Program) -> None:
    before = program.pids()
    program.signal(signal.SIGHUP)
    _wait_until(lambda: not set(before.values()) & set(program.pids().values()), "both workers are new")
    # And again: generation counters of the first workers are free for their grandchildren.
    second = program.pids()
    program.signal(signal.SIGHUP)
    _wait_until(lambda: not set(second.values()) & set(program.pids().values()), "both workers are new again")


@pytest.mark.parametrize("keep_alive", [True, False], ids=["keep-alive", "a connection per request"])
def test_reloads_under_load_fail_no_request(program: Program, keep_alive: bool) -> None:
    load = _Load(program.port, keep_alive=keep_alive)
    with load.running(clients=8):
        pids = program.pids()
        for _ in range(3):
            answered = load.answered
            program.signal(signal.SIGHUP)
            _wait_until(lambda old=pids: not set(old.values()) & set(program.pids().values()), "both are new")
            pids = program.pids()
            _wait_until(lambda count=answered: load.answered > count + 100, "the load goes on")
    assert load.failures == []
    assert len(load.pids) >= 6


def test_failed_reload_keeps_the_old_workers_and_says_why(program: Program) -> None:
    before = program.pids()
    program.refusal.touch()
    program.signal(signal.SIGHUP)
    program.wait_for_log("reload given up, the other workers stay: worker 0")
    assert any("the field 'answer' must be 42" in line for line in program.log)
    assert program.pids() == before
    program.refusal.unlink()
    program.signal(signal.SIGHUP)
    _wait_until(lambda: not set(before.values()) & set(program.pids().values()), "the next reload works")


def test_failed_start_raises_what_the_worker_met_and_leaves_nobody(tmp_path: Path) -> None:
    (tmp_path / "refuse").touch()
    done = subprocess.run(_command(tmp_path), capture_output=True, check=False, text=True, timeout=DEADLINE_S)
    assert done.returncode == 2
    assert "ConfigError: the field 'answer' must be 42 | set it | true" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_answers_what_is_under_way_and_refuses_newcomers(program: Program, number: signal.Signals) -> None:
    with program.connect() as busy, program.connect() as kept:
        busy.send(_GET % b"/slow?1.0")
        kept.send(_GET % b"/")
        kept.read_answer()
        program.signal(number)
        _wait_until(lambda: not _accepts(program.port), "newcomers are refused")
        kept.send(_GET % b"/")
        answer = kept.read_answer()
        assert (answer.status, answer.header("Connection")) == (200, "close")
        answer = busy.read_answer()
        assert (answer.status, answer.header("Connection")) == (200, "close")
    assert program.wait() == 0


def test_stop_under_load_fails_only_to_connect(program: Program) -> None:
    load = _Load(program.port, keep_alive=True)
    with load.running(clients=8):
        _wait_until(lambda: load.answered > 200, "the load has begun")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert [failure for failure in load.failures if "refused" not in failure] == []


def test_stop_does_not_wait_longer_than_the_drain_timeout(tmp_path: Path) -> None:
    with running(tmp_path, drain_timeout_s=0.5) as program, program.connect() as endless:
        endless.send(_GET % b"/slow?3600")
        _wait_until(lambda: bool(program.pids()), "both workers answer")
        began = time.monotonic()
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert time.monotonic() - began < 10
        program.wait_for_log("were cut off after 0.5 s of draining")


def test_second_stop_signal_kills_at_once(tmp_path: Path) -> None:
    with running(tmp_path, drain_timeout_s=60) as program, program.connect() as endless:
        endless.send(_GET % b"/slow?3600")
        program.pids()
        program.signal(signal.SIGTERM)
        _wait_until(lambda: not _accepts(program.port), "the drain has begun")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0


def test_workers_die_with_a_killed_master(program: Program) -> None:
    watched = [os.pidfd_open(pid) for pid in program.pids().values()]
    try:
        program.process.kill()
        for worker in watched:
            assert select.select([worker], [], [], DEADLINE_S)[0], "a worker outlived its master"
    finally:
        for worker in watched:
            os.close(worker)


def test_unix_socket_is_served_by_the_same_workers_and_removed_at_the_end(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "admin.sock"
    with running(tmp_path, unix=path) as program:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE_S)
            connection.connect(str(path))
            client = RawClient(connection)
            client.send(_GET % b"/")
            assert json.loads(client.read_answer().body)["uid"] == os.getuid()
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert not path.exists()


@pytest.mark.parametrize("between_s", [0.0, 0.05, 0.2])
def test_stop_in_the_middle_of_a_reload_ends_everybody(program: Program, between_s: float) -> None:
    old = [os.pidfd_open(pid) for pid in program.pids().values()]
    program.signal(signal.SIGHUP)
    select.select([], [], [], between_s)
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    for worker in old:
        assert select.select([worker], [], [], 0)[0], "a worker outlived the stop"
        os.close(worker)
    _wait_until(lambda: not _accepts(program.port), "nobody listens")
    assert not any("Traceback" in line or "is killed" in line for line in program.log)


def test_limit_of_open_files_bounds_the_connections(tmp_path: Path) -> None:
    limited = ["sh", "-c", 'ulimit -n 128; exec "$@"', "sh", *_command(tmp_path)]
    process = subprocess.Popen(limited, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.terminate()
    _, log = process.communicate(timeout=DEADLINE_S)
    assert "the limit of open files (128) allows 64 connections per worker" in log


class _Load:
    """Clients that ask without a pause, and note every request that did not get a whole 200."""

    def __init__(self, port: int, *, keep_alive: bool) -> None:
        self._port = port
        self._keep_alive = keep_alive
        self._stop = threading.Event()
        self.answered = 0
        self.pids: set[int] = set()
        self.failures: list[str] = []

    @contextmanager
    def running(self, clients: int) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask_on) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(DEADLINE_S)

    def _ask_on(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE_S)
        headers = {} if self._keep_alive else {"Connection": "close"}
        while not self._stop.is_set():
            try:
                connection.request("POST", "/", body=b"x" * 100, headers=headers)
                response = connection.getresponse()
                self.pids.add(json.loads(response.read())["pid"])
                self.answered += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a failed request
                self.failures.append(repr(error))
                connection.close()
                if isinstance(error, ConnectionRefusedError):
                    break
        connection.close()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S).close()
    except OSError:
        return False
    return True


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not so in {DEADLINE_S} s: {what}"
        time.sleep(0.01)
