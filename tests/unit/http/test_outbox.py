"""Answers and their commit: nothing leaves before it, and it is called once per turn of the event loop."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import pytest
from http_serving import DEADLINE_S, RawClient, Running, serving

from ringfence_agent.http.limits import Limits
from ringfence_agent.http.outbox import Recorded
from ringfence_agent.http.request import Request
from ringfence_agent.http.response import Response, ResponseHead

GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
_OK = ResponseHead(200)
_NOT_RECORDED = Response(ResponseHead(503, "the log is full"), b"not recorded")


@dataclass
class Recorder:
    """An application that records each request, and a commit that can be held up, fail or refuse."""

    records: list[bytes] = field(default_factory=list)
    committed: list[list[bytes]] = field(default_factory=list)
    on_commit: Callable[[], Response | None] = lambda: None

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        if request.raw_path.startswith(b"/slow"):
            return self._slow(request)
        return self._answer(request)

    async def _slow(self, request: Request) -> Response:
        await asyncio.sleep(0.05)
        return self._answer(request)

    def _answer(self, request: Request) -> Response:
        self.records.append(request.raw_path)
        if request.raw_path == b"/broken":
            raise RuntimeError("the secret is hunter2")
        if request.raw_path == b"/large":
            return Response(_OK, b"x" * int(request.raw_query))
        return Response(_OK, request.raw_path, close=request.raw_path == b"/close")

    def commit(self) -> Response | None:
        replacement = self.on_commit()
        self.committed.append(self.records[:])
        self.records.clear()
        return replacement

    @property
    def all_committed(self) -> list[bytes]:
        return [path for turn in self.committed for path in turn]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def running(recorder: Recorder) -> Iterator[Running]:
    with serving(Recorded(recorder, recorder.commit)) as server:
        yield server


@pytest.fixture
def client(running: Running) -> Iterator[RawClient]:
    with running.connect() as connected:
        yield connected


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("path", [b"/x", b"/slow", b"/close", b"/broken"])
def test_no_byte_of_an_answer_leaves_before_commit_returned(
    recorder: Recorder, running: Running, client: RawClient, path: bytes
) -> None:
    seen_before_commit: list[bytes] = []

    def look() -> None:
        # On the server's own thread, so nothing can be sent meanwhile: what left before is here by now.
        client.socket.settimeout(0.1)
        try:
            seen_before_commit.append(client.socket.recv(1))
        except TimeoutError:
            seen_before_commit.append(b"")

    recorder.on_commit = look  # type: ignore[assignment]
    client.send(GET % path)
    _wait_until(lambda: len(recorder.committed) == 1)
    client.socket.settimeout(DEADLINE_S)
    assert client.read_answer().status == (500 if path == b"/broken" else 200)
    assert seen_before_commit == [b""]
    assert recorder.all_committed == [path]


def test_one_commit_serves_all_requests_of_a_turn_on_all_connections(recorder: Recorder, running: Running) -> None:
    clients = [running.connect() for _ in range(5)]
    # The loop accepts one connection a turn, so each has to be known to be there before it counts.
    for client in clients:
        client.send(GET % b"/first")
        assert client.read_answer().status == 200
    recorder.committed.clear()
    # While the loop stands still, every client's requests arrive: they are all there in its next turn.
    standing, go_on = threading.Event(), threading.Event()
    running.loop.call_soon_threadsafe(lambda: (standing.set(), go_on.wait(DEADLINE_S)))
    assert standing.wait(DEADLINE_S)
    for number, client in enumerate(clients):
        client.send(GET % b"/%d/a" % number + GET % b"/%d/b" % number)
    go_on.set()
    for number, client in enumerate(clients):
        assert [client.read_answer().body for _ in range(2)] == [b"/%d/a" % number, b"/%d/b" % number]
        client.socket.close()
    assert len(recorder.committed) == 1
    assert sorted(recorder.all_committed) == [b"/%d/%b" % (number, x) for number in range(5) for x in (b"a", b"b")]


def test_pipelined_answers_keep_their_order_around_slow_ones_and_refusals(client: RawClient) -> None:
    client.send(b"".join(GET % path for path in (b"/1", b"/slow/2", b"/3", b"/broken", b"/5")) + b"garbage\r\n\r\n")
    answers = [client.read_answer() for _ in range(6)]
    assert [answer.status for answer in answers] == [200, 200, 200, 500, 200, 400]
    assert [answers[number].body for number in (0, 1, 2, 4)] == [b"/1", b"/slow/2", b"/3", b"/5"]
    assert client.is_closed()


def test_what_commit_returns_replaces_the_applications_answers_but_not_the_servers_own(
    recorder: Recorder, client: RawClient
) -> None:
    recorder.on_commit = lambda: _NOT_RECORDED
    client.send(GET % b"/1" + GET % b"/slow" + GET % b"/broken" + GET % b"/2" + b"garbage\r\n\r\n")
    answers = [client.read_answer() for _ in range(5)]
    assert [answer.status for answer in answers] == [503, 503, 500, 503, 400]
    assert [answers[number].reason for number in (0, 1, 3)] == ["the log is full"] * 3


def test_a_replaced_answer_keeps_the_connection_as_the_first_would_have(recorder: Recorder, client: RawClient) -> None:
    recorder.on_commit = lambda: _NOT_RECORDED
    client.send(GET % b"/1")
    assert client.read_answer().header("Connection") == "keep-alive"
    client.send(b"HEAD /1 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert client.read_answer(to_head=True).header("Content-Length") == str(len(b"not recorded"))
    client.send(GET % b"/close")
    assert client.read_answer().header("Connection") == "close"
    assert client.is_closed()


def test_a_commit_that_fails_lets_no_answer_out(
    recorder: Recorder, client: RawClient, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("the secret is hunter2")

    recorder.on_commit = fail
    client.send(GET % b"/1" + GET % b"/2")
    answers = [client.read_answer() for _ in range(2)]
    assert [answer.status for answer in answers] == [500, 500]
    assert b"hunter2" not in answers[0].body
    assert "unhandled RuntimeError" in caplog.text
    assert "hunter2" not in caplog.text


def test_what_was_done_for_a_client_that_left_is_committed(recorder: Recorder, running: Running) -> None:
    with running.connect() as client:
        client.send(GET % b"/slow")
        _wait_until(lambda: len(running.service.awaited) == 1)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    _wait_until(lambda: recorder.all_committed == [b"/slow"])


def test_half_closed_client_gets_what_was_held(recorder: Recorder, client: RawClient) -> None:
    client.send(GET % b"/1" + GET % b"/slow" + GET % b"/2")
    client.socket.shutdown(socket.SHUT_WR)
    assert [client.read_answer().body for _ in range(3)] == [b"/1", b"/slow", b"/2"]
    assert client.is_closed()


def test_answers_waiting_for_commit_are_bounded_for_each_connection(recorder: Recorder, client: RawClient) -> None:
    size, count = 100_000, 40
    client.send(GET % b"/large?%d" % size * count)
    for _ in range(count):
        assert len(client.read_answer().body) == size
    assert recorder.all_committed == [b"/large"] * count
    # A few answers fill what one connection may have waiting; the rest comes in later turns.
    assert max(len(turn) for turn in recorder.committed) <= 4


def test_continue_does_not_overtake_a_held_answer(client: RawClient) -> None:
    client.send(GET % b"/1" + b"POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert client.read_answer().body == b"/1"
    assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hi")
    assert client.read_answer().body == b"/2"


def test_drain_writes_what_is_held_and_commits_what_nobody_waits_for(recorder: Recorder) -> None:
    with serving(Recorded(recorder, recorder.commit), limits=Limits()) as running:
        clients = [running.connect() for _ in range(20)]
        for number, client in enumerate(clients):
            client.send(GET % (b"/slow/%d" % number))
        _wait_until(lambda: len(running.service.awaited) == 20)
        assert running.drain()
        for number, client in enumerate(clients):
            answer = client.read_answer()
            assert (answer.body, answer.header("Connection")) == (b"/slow/%d" % number, "close")
            client.socket.close()
    assert len(recorder.all_committed) == 20


def test_a_slow_reader_gets_all_its_answers(recorder: Recorder, client: RawClient) -> None:
    size, count = 200_000, 60
    client.send(GET % b"/large?%d" % size * count)
    _wait_until(lambda: len(recorder.committed) > 2)
    for _ in range(count):
        assert len(client.read_answer().body) == size
    client.send(GET % b"/after")
    assert client.read_answer().body == b"/after"


def test_plain_applications_are_answered_at_once(recorder: Recorder) -> None:
    with serving(recorder) as running, running.connect() as client:
        client.send(GET % b"/1")
        assert client.read_answer().body == b"/1"
        assert running.service.outbox is None
    assert recorder.records == [b"/1"]
