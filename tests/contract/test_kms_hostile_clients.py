"""Clients that mean harm, or behave as if they did, against the real server, over plain HTTP and TLS.

In every test a well-behaved neighbour goes on asking, on a connection of its own and on new ones, and must get each
answer within `_PATIENCE_S`; afterwards the server must have let go of what the hostile clients held: descriptors go
back to what they were, and memory stays within a bound.
"""

from __future__ import annotations

import base64
import json
import resource
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from certificates import Certificates
from http_serving import Answer, RawClient
from kms_serving import DEADLINE_S, KmsPlace, RunningKms, call, json_of

# Seconds for one answer to the neighbour, on two cores that run other tests as well.
_PATIENCE_S = 3.0
_MIB = 1024 * 1024
_CONNECTIONS = 2000
_HEADER_TIMEOUT_S = 2.0
_NAMES = "/kms/v1/keys/names"
_GET = b"GET /kms/v1/keys/names?user.name=hdfs HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module", params=["plain", "tls"])
def kms(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[RunningKms]:
    """One worker, so that nothing hides behind another; limits that a test can reach in seconds."""
    place = KmsPlace.make(tmp_path_factory.mktemp("kms"))
    config = place.directory / "kms.yaml"
    server = certificates.server
    tls = f"tls: {{cert: {server.certificate}, key: {server.key}}}\n" if request.param == "tls" else ""
    config.write_text(
        f"keystore: sqlite:///{place.store}\nhadoop_conf: {place.conf}\nlisten: localhost:0\nworkers: 1\n{tls}"
        f"limits: {{connections: {_CONNECTIONS}, header_timeout: {_HEADER_TIMEOUT_S:g}s, body_timeout: 20s,"
        " write_timeout: 2s, body_size: 48MiB, bodies_size: 128MiB}\n"
    )
    command = [place.command()[0], "kms", "serve", "--config", str(config)]
    context = certificates.client_context() if tls else None
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    running = RunningKms(place, process, 1, context)
    try:
        running.wait_until_ready()
        with running.connect() as client:
            call(client, "POST", "/kms/v1/keys", {"name": "k", "length": 256})
        yield running
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)


class Neighbour:
    """Asks until it is told to stop, and keeps the time that the slowest answer took."""

    def __init__(self, kms: RunningKms) -> None:
        self._kms = kms
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.slowest_s = 0.0
        self.answered = 0
        self.failure: BaseException | None = None

    def __enter__(self) -> Neighbour:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        asked = self.answered
        if kind is None:
            wait_until(lambda: self.failure is not None or self.answered >= asked + 4)
        self._stop.set()
        self._thread.join(DEADLINE_S)
        if kind is None:
            assert self.failure is None, repr(self.failure)
            assert self.slowest_s < _PATIENCE_S

    def _run(self) -> None:
        try:
            with self._kms.connect() as kept:
                while not self._stop.is_set():
                    self._ask(lambda: call(kept, "GET", _NAMES))
                    self._ask(self._ask_anew)
                    time.sleep(0.02)
        except (OSError, AssertionError) as error:
            self.failure = error

    def _ask_anew(self) -> Answer:
        with self._kms.connect() as client:
            return call(client, "GET", _NAMES)

    def _ask(self, ask: Callable[[], Answer]) -> None:
        began = time.monotonic()
        answer = ask()
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        assert answer.status == 200, answer
        self.answered += 1


class Worker:
    """The one worker process, as the system sees it."""

    def __init__(self, kms: RunningKms) -> None:
        children = Path(f"/proc/{kms.process.pid}/task/{kms.process.pid}/children").read_text().split()
        assert len(children) == 1
        self._proc = Path("/proc") / children[0]

    @property
    def descriptors(self) -> int:
        return len(list((self._proc / "fd").iterdir()))

    @property
    def memory_bytes(self) -> int:
        line = next(line for line in (self._proc / "status").read_text().splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024


@contextmanager
def neighbourhood(kms: RunningKms, *, growth_mib: int) -> Iterator[Neighbour]:
    """What every test asserts; see the module."""
    worker = Worker(kms)
    descriptors, memory_bytes = worker.descriptors, worker.memory_bytes
    with Neighbour(kms) as neighbour:
        wait_until(lambda: neighbour.answered > 2 or neighbour.failure is not None)
        yield neighbour
        assert worker.memory_bytes - memory_bytes < growth_mib * _MIB
    wait_until(lambda: worker.descriptors <= descriptors)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


class Crowd(list[RawClient]):
    """Connections that are all closed when the block ends, however it ends."""

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self:
            client.socket.close()


def hears(client: RawClient) -> bool:
    """Whether the server has said something or hung up; what it said is kept. (Over TLS there may be mere tickets.)"""
    client.socket.settimeout(0)
    try:
        data = client.socket.recv(65536)
        client.buffer += data
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    finally:
        client.socket.settimeout(DEADLINE_S)
    return True


def test_slow_loris_heads_are_cut_off_in_time(kms: RunningKms) -> None:
    with neighbourhood(kms, growth_mib=64), Crowd() as clients:
        clients += [kms.connect() for _ in range(300)]
        began = time.monotonic()
        for client in clients:
            client.send(_GET[:-2])
        waiting = list(clients)
        while waiting:
            assert time.monotonic() - began < _HEADER_TIMEOUT_S + 8
            for client in list(waiting):
                if hears(client):
                    waiting.remove(client)
                    assert client.buffer.startswith(b"HTTP/1.1 408 ")
                else:
                    with suppress(OSError):
                        client.send(b"X: y\r\n")
            time.sleep(0.1)
        assert time.monotonic() - began > _HEADER_TIMEOUT_S / 2


def test_slow_loris_bodies_do_not_hold_up_others(kms: RunningKms) -> None:
    head = b"POST /kms/v1/keys?user.name=hdfs HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n"
    with neighbourhood(kms, growth_mib=64) as neighbour, Crowd() as clients:
        clients += [kms.connect() for _ in range(300)]
        for client in clients:
            client.send(head)
        for _ in range(10):
            for client in clients:
                client.send(b" ")
        asked = neighbour.answered
        wait_until(lambda: neighbour.answered > asked + 10 or neighbour.failure is not None)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 12_000)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_five_thousand_idle_connections_make_room_for_those_who_ask(kms: RunningKms) -> None:
    """More than the limit: the oldest are let go, and the neighbour never is."""
    with neighbourhood(kms, growth_mib=100), Crowd() as clients:
        for number in range(5000):
            # Over TLS most of them do not even shake hands, which costs a client nothing.
            clients.append(kms.connect() if number % 25 == 0 else kms.connect_plain())
        wait_until(lambda: Worker(kms).descriptors <= _CONNECTIONS + 100)
        assert Worker(kms).descriptors > _CONNECTIONS / 2
        with kms.connect() as late:
            assert call(late, "GET", _NAMES).status == 200


def test_a_body_of_one_gibibyte_is_refused_before_it_is_read(kms: RunningKms) -> None:
    head = b"POST /kms/v1/keys?user.name=hdfs HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % 1024**3
    with neighbourhood(kms, growth_mib=32), kms.connect() as client:
        client.send(head)
        _send_until_refused(client, b"x" * 65536, 1024**3)
        assert client.read_answer().status == 413


def test_chunked_bodies_without_end_are_refused_at_the_limit_all_together(kms: RunningKms) -> None:
    """One alone may send 48 MiB; eight at once may not send 8 times that."""
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    head = b"POST /kms/v1/keys?user.name=hdfs HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    statuses: list[int] = []

    def flood() -> None:
        with kms.connect() as client:
            client.send(head)
            _send_until_refused(client, chunk, 1024**3)
            with suppress(OSError):
                statuses.append(client.read_answer().status)

    with neighbourhood(kms, growth_mib=300):
        threads = [threading.Thread(target=flood) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
    assert statuses
    assert set(statuses) <= {413, 503}


def _send_until_refused(client: RawClient, piece: bytes, most_bytes: int) -> None:
    """Sends until the server answers, hangs up or all is sent; that it takes all of it is a failure."""
    sent = 0
    with suppress(OSError):
        while sent < most_bytes:
            if hears(client):
                return
            client.send(piece)
            sent += len(piece)
    assert sent < most_bytes


def test_a_batch_of_a_hundred_thousand_is_done_while_others_are_served(kms: RunningKms) -> None:
    with kms.connect() as client:
        (eek,) = json_of(call(client, "GET", "/kms/v1/key/k/_eek", query={"eek_op": "generate"}))
    entry = json.dumps(
        {"versionName": eek["versionName"], "iv": eek["iv"], "encryptedKeyVersion": eek["encryptedKeyVersion"]}
    )
    body = ("[" + ",".join([entry] * 100_000) + "]").encode()
    assert 16 * _MIB < len(body) < 48 * _MIB  # more than the default limit takes
    with neighbourhood(kms, growth_mib=400), kms.connect() as client:
        answer = call(client, "POST", "/kms/v1/key/k/_reencryptbatch", body)
        assert len(json_of(answer)) == 100_000


def test_a_batch_beyond_the_limit_is_refused(kms: RunningKms) -> None:
    with neighbourhood(kms, growth_mib=200), kms.connect() as client:
        with suppress(OSError):
            client.send(
                b"POST /kms/v1/key/k/_reencryptbatch?user.name=hdfs HTTP/1.1\r\nHost: h\r\n"
                b"Content-Length: %d\r\n\r\n" % (60 * _MIB)
            )
            client.send(b"[" + b"{}," * (20 * _MIB))
        assert client.read_answer().status == 413


def test_nested_json_is_refused_and_costs_nothing(kms: RunningKms) -> None:
    with neighbourhood(kms, growth_mib=200), kms.connect() as client:
        for body in (b"[" * 5_000_000, b'{"a":' * 2_000_000, b'"' + b"\\u0000" * 1_000_000):
            assert call(client, "POST", "/kms/v1/keys", body).status in (400, 500)


def test_thousands_of_pipelined_requests_are_all_answered_in_order(kms: RunningKms) -> None:
    count = 3000
    request = b"GET /kms/v1/key/k%d/_metadata?user.name=hdfs HTTP/1.1\r\nHost: h\r\n\r\n"
    with neighbourhood(kms, growth_mib=64), kms.connect() as client:
        sender = threading.Thread(target=client.send, args=(b"".join(request % n for n in range(count)),))
        if isinstance(client.socket, ssl.SSLSocket):
            client.send(b"".join(request % n for n in range(count)))  # one thread at a time may use OpenSSL
        else:
            sender.start()
        for number in range(count):
            answer = client.read_answer()
            assert answer.status in (200, 404, 500), answer
            assert answer.status == 200 or b"k%d" % number in answer.body
        if sender.ident is not None:
            sender.join(DEADLINE_S)


def test_a_client_that_asks_for_much_and_never_reads_is_cut_off(kms: RunningKms) -> None:
    generate = b"GET /kms/v1/key/k/_eek?eek_op=generate&num_keys=150&user.name=hdfs HTTP/1.1\r\nHost: h\r\n\r\n"
    with neighbourhood(kms, growth_mib=100), Crowd() as clients:
        before = Worker(kms).descriptors
        clients += [kms.connect() for _ in range(20)]
        wait_until(lambda: Worker(kms).descriptors >= before + 19)
        for client in clients:
            client.socket.settimeout(0)
            with suppress(OSError):
                client.socket.sendall(generate * 1000)
        wait_until(lambda: Worker(kms).descriptors <= before + 1)


def test_half_closed_and_abandoned_sockets_leave_nothing_behind(kms: RunningKms) -> None:
    with neighbourhood(kms, growth_mib=64):
        for number in range(200):
            client = kms.connect()
            match number % 5:
                case 0:
                    client.send(_GET)
                    client.end_input()
                    assert client.read_answer().status == 200
                case 1:
                    client.send(_GET[:20])
                    client.end_input()
                case 2:
                    client.end_input()
                case 3:
                    client.send(_GET + _GET[:-2])
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                case 4:
                    client.send(b"POST /kms/v1/keys?user.name=hdfs HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\n{")
            client.socket.close()


def test_connections_that_are_reset_at_once_do_not_stop_the_accepting(kms: RunningKms) -> None:
    with neighbourhood(kms, growth_mib=64):
        for _ in range(1000):
            client = kms.connect_plain()
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.socket.close()


def test_garbage_gets_no_further(kms: RunningKms) -> None:
    junk = [b"\0" * 4096, b"\x16\x03\x01" + b"\xff" * 4096, b"GET " + b"/" * 200_000, base64.b64encode(b"x" * 9000)]
    with neighbourhood(kms, growth_mib=64):
        for number in range(100):
            with kms.connect_plain() as client, suppress(OSError):
                client.send(junk[number % len(junk)])
                client.socket.shutdown(socket.SHUT_WR)
                while client.socket.recv(65536):
                    pass
