"""What is particular to a connection with TLS. That HTTP behaves on it as on a plain one, test_protocol shows."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable

import pytest
from certificates import Certificates
from http_serving import DEADLINE_S, RawClient, Running, serving

from ringfence_agent.http.limits import Limits
from ringfence_agent.http.listening import listen_unix
from ringfence_agent.http.request import Request, TlsPeer
from ringfence_agent.http.response import Response, ResponseHead
from ringfence_bootstrap.sandbox.certificates import CertificateAuthority

GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
_OK = ResponseHead(200)
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def application(request: Request) -> Response | Awaitable[Response]:
    if request.raw_path == b"/slow":
        return _slow()
    if request.raw_path == b"/large":
        return Response(_OK, b"x" * int(request.raw_query))
    return Response(_OK, repr(request.peer.tls).encode())


async def _slow() -> Response:
    await asyncio.sleep(0.05)
    return Response(_OK, b"slow")


def _only(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = version
    return context


def _ask(running: Running, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> RawClient:
    client = running.connect(context, session)
    client.send(GET % b"/")
    assert client.read_answer().status == 200
    return client


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["server", "rsa_server"])
def test_both_versions_and_both_kinds_of_key_are_served(
    certificates: Certificates, kind: str, version: ssl.TLSVersion
) -> None:
    with (
        serving(application, tls=certificates.server_tls(getattr(certificates, kind))) as running,
        _ask(running, _only(certificates.client_context(), version)) as client,
    ):
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.version() == version.name.replace("_", ".")


def test_with_two_certificates_an_old_rsa_client_and_a_new_one_each_get_theirs(certificates: Certificates) -> None:
    tls = certificates.server_tls(certificates.server, certificates.rsa_server)
    with serving(application, tls=tls) as running:
        for ciphers, authenticated in (
            ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDSA"),
            ("ECDHE-RSA-AES128-GCM-SHA256", "RSA"),
        ):
            context = _only(certificates.client_context(), ssl.TLSVersion.TLSv1_2)
            context.set_ciphers(ciphers)
            with _ask(running, context) as client:
                assert isinstance(client.socket, ssl.SSLSocket)
                assert authenticated in (client.socket.cipher() or ("",))[0]


def test_a_version_before_1_2_is_refused_with_an_alert(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    old = certificates.client_context()
    with pytest.warns(DeprecationWarning):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with caplog.at_level(logging.INFO), serving(application, tls=certificates.server_tls()) as running:
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            running.connect(old)
        _wait_until(lambda: "UNSUPPORTED_PROTOCOL" in caplog.text)
        _wait_until(lambda: not running.service.connections)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_is_resumed(certificates: Certificates, version: ssl.TLSVersion) -> None:
    context = _only(certificates.client_context(), version)
    with serving(application, tls=certificates.server_tls()) as running:
        with _ask(running, context) as client:
            assert isinstance(client.socket, ssl.SSLSocket)
            session = client.socket.session
        with _ask(running, context, session) as client:
            assert isinstance(client.socket, ssl.SSLSocket)
            assert client.socket.session_reused


def test_renegotiation_and_compression_are_off(certificates: Certificates) -> None:
    options = certificates.server_tls().context.options
    assert options & ssl.OP_NO_RENEGOTIATION
    assert options & ssl.OP_NO_COMPRESSION


# -- who the client is


@pytest.mark.parametrize("version", VERSIONS)
def test_a_verified_client_certificate_names_the_peer_also_when_resumed(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    seen: list[TlsPeer | None] = []

    def look(request: Request) -> Response:
        seen.append(request.peer.tls)
        return Response(_OK)

    context = _only(certificates.client_context(certificates.client), version)
    tls = certificates.server_tls(client_auth="required")
    with serving(look, tls=tls) as running:
        with _ask(running, context) as client:
            assert isinstance(client.socket, ssl.SSLSocket)
            session = client.socket.session
        with _ask(running, context, session) as client:
            assert isinstance(client.socket, ssl.SSLSocket)
            assert client.socket.session_reused
    assert [(peer.client_subject, peer.client_name) for peer in seen if peer] == [("CN=client", "client")] * 2
    assert {peer.channel_binding for peer in seen if peer} == {tls.channel_binding}
    assert tls.channel_binding is not None
    assert tls.channel_binding.startswith(b"tls-server-end-point:")
    assert len(tls.channel_binding) == len("tls-server-end-point:") + 32


def test_optional_client_certificates_are_asked_for_and_not_needed(certificates: Certificates) -> None:
    with serving(application, tls=certificates.server_tls(client_auth="optional")) as running:
        with running.connect(certificates.client_context()) as client:
            client.send(GET % b"/")
            assert b"client_name=None" in client.read_answer().body
        with running.connect(certificates.client_context(certificates.client)) as client:
            client.send(GET % b"/")
            assert b"client_name='client'" in client.read_answer().body


@pytest.mark.parametrize("client_auth", ["optional", "required"])
def test_a_client_certificate_of_another_authority_is_refused(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory, client_auth: str
) -> None:
    stranger = CertificateAuthority.make(tmp_path_factory.mktemp("stranger")).issue_client("client")
    tls = certificates.server_tls(client_auth=client_auth)  # type: ignore[arg-type]
    context = _only(certificates.client_context(stranger), ssl.TLSVersion.TLSv1_2)
    with serving(application, tls=tls) as running, pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
        running.connect(context)


def test_without_a_required_client_certificate_nothing_is_served(certificates: Certificates) -> None:
    context = _only(certificates.client_context(), ssl.TLSVersion.TLSv1_2)
    with serving(application, tls=certificates.server_tls(client_auth="required")) as running:
        with pytest.raises(ssl.SSLError):
            running.connect(context)
        _wait_until(lambda: not running.service.connections)


def test_a_server_certificate_is_no_client_certificate_by_itself(certificates: Certificates) -> None:
    """A certificate that is sent without being asked for is not believed."""
    with (
        serving(application, tls=certificates.server_tls()) as running,
        running.connect(certificates.client_context(certificates.client)) as client,
    ):
        client.send(GET % b"/")
        assert b"client_name=None" in client.read_answer().body


# -- clients that speak something else, too slowly, or not at all


def test_a_client_that_speaks_plain_http_is_told_so(certificates: Certificates) -> None:
    with serving(application, tls=certificates.server_tls()) as running:
        with running.connect_plain() as client:
            client.send(GET % b"/")
            answer = client.read_answer()
            assert (answer.status, answer.body) == (400, b"this port speaks HTTPS: use an https address\r\n")
            assert client.is_closed()
        _wait_until(lambda: not running.service.connections)


@pytest.mark.parametrize("garbage", [b"\0" * 100, b"\x16" + b"\xff" * 200, b"\x16\x03\x01\x00\x05hello"])
def test_garbage_ends_the_connection_and_nothing_else(certificates: Certificates, garbage: bytes) -> None:
    with serving(application, tls=certificates.server_tls()) as running:
        with running.connect_plain() as client:
            client.send(garbage)
            client.end_input()
            while client.socket.recv(4096):
                pass
        _wait_until(lambda: not running.service.connections)
        _ask(running, certificates.client_context()).socket.close()


def test_a_hello_sent_byte_by_byte_is_understood(certificates: Certificates) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = certificates.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with serving(application, tls=certificates.server_tls()) as running, running.connect_plain() as client:
        while True:
            try:
                end.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    client.send(bytes([byte]))
                incoming.write(client.socket.recv(65536))
        end.write(GET % b"/")
        client.send(outgoing.read())
        answer = b""
        while b"TlsPeer" not in answer:
            try:
                answer += end.read(4096)
            except ssl.SSLWantReadError:
                incoming.write(client.socket.recv(65536))


def test_a_handshake_has_a_deadline(certificates: Certificates) -> None:
    with serving(application, tls=certificates.server_tls(), limits=Limits(head_timeout_s=0.1)) as running:
        with running.connect_plain() as silent, running.connect_plain() as halfway:
            halfway.send(b"\x16\x03\x01\x02\x00\x01")
            assert silent.is_closed()
            assert halfway.is_closed()
        _wait_until(lambda: not running.service.connections)


def test_connections_that_did_not_shake_hands_count_and_make_room(certificates: Certificates) -> None:
    with serving(application, tls=certificates.server_tls(), limits=Limits(connections=3)) as running:
        silent = [running.connect_plain() for _ in range(3)]
        _wait_until(lambda: len(running.service.connections) == 3)
        with _ask(running, certificates.client_context()):
            gone = select.select([client.socket for client in silent], [], [], 0)[0]
            assert gone == [silent[0].socket]  # the oldest, and no more than needed
        for client in silent:
            client.socket.close()


def test_a_connection_too_many_is_closed_unanswered_while_all_others_are_in_use(certificates: Certificates) -> None:
    """Saying 503 would cost a handshake each, which is what a flood is after."""
    context = certificates.client_context()
    with (
        serving(application, tls=certificates.server_tls(), limits=Limits(connections=2)) as running,
        _ask(running, context),
        _ask(running, context),
    ):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            running.connect(context)
        assert len(running.service.connections) == 2


def test_a_broken_record_ends_the_connection(certificates: Certificates, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), serving(application, tls=certificates.server_tls()) as running:
        client = _ask(running, certificates.client_context())
        with socket.socket(fileno=client.socket.detach()) as plain:
            plain.sendall(b"\x17\x03\x03\x00\x20" + b"\0" * 32)
            plain.settimeout(DEADLINE_S)
            while plain.recv(4096):
                pass
        _wait_until(lambda: not running.service.connections)
        assert "TLS connection with 127.0.0.1 failed" in caplog.text


def test_a_client_cut_off_in_the_middle_of_a_request_is_not_answered(certificates: Certificates) -> None:
    """Without close_notify anybody on the way could have cut it off."""
    handled: list[bytes] = []

    def remember(request: Request) -> Response:
        handled.append(request.raw_path)
        return Response(_OK)

    with serving(remember, tls=certificates.server_tls()) as running:
        client = running.connect(certificates.client_context())
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel")
        with socket.socket(fileno=client.socket.detach()) as plain:
            plain.shutdown(socket.SHUT_WR)
            _wait_until(lambda: not running.service.connections)
    assert handled == []


def test_large_bodies_go_both_ways(certificates: Certificates) -> None:
    size = 3_000_000
    with (
        serving(application, tls=certificates.server_tls()) as running,
        running.connect(certificates.client_context()) as client,
    ):
        head = b"POST /large?%d HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (size, size)
        client.send(head + b"y" * size)
        assert client.read_answer().body == b"x" * size


def test_a_client_that_does_not_read_is_not_answered_further_and_loses_nothing(certificates: Certificates) -> None:
    size, count = 200_000, 100
    handled: list[bytes] = []

    def large(request: Request) -> Response:
        handled.append(request.raw_path)
        return Response(_OK, b"x" * size)

    with (
        serving(large, tls=certificates.server_tls()) as running,
        running.connect(certificates.client_context()) as client,
    ):
        client.send(GET % b"/" * count)
        _wait_until(lambda: len(handled) > 0)
        barrier = threading.Event()
        running.loop.call_soon_threadsafe(running.loop.call_later, 0.3, barrier.set)
        assert barrier.wait(DEADLINE_S)
        assert len(handled) < count
        for _ in range(count):
            assert len(client.read_answer().body) == size


def test_drain_over_tls_answers_what_is_under_way_and_lets_the_silent_go(certificates: Certificates) -> None:
    context = certificates.client_context()
    with (
        serving(application, tls=certificates.server_tls()) as running,
        running.connect(context) as busy,
        running.connect(context) as idle,
        running.connect_plain() as silent,
    ):
        busy.send(GET % b"/slow")
        _wait_until(lambda: len(running.service.awaited) == 1)
        drained = threading.Thread(target=running.drain)
        drained.start()
        answer = busy.read_answer()
        assert (answer.body, answer.header("Connection")) == (b"slow", "close")
        busy.socket.close()
        assert idle.is_closed()
        assert silent.is_closed()
        drained.join(DEADLINE_S)
        assert not drained.is_alive()


def test_what_waits_in_the_accept_queue_when_draining_begins_is_served_over_tls(certificates: Certificates) -> None:
    with serving(application, tls=certificates.server_tls()) as running:
        standing, go_on = threading.Event(), threading.Event()
        running.loop.call_soon_threadsafe(lambda: (standing.set(), go_on.wait(DEADLINE_S)))
        assert standing.wait(DEADLINE_S)
        plain = running.connect_plain()  # the kernel has accepted it; the server has not seen it
        drained = threading.Thread(target=running.drain)
        drained.start()
        go_on.set()
        plain.socket = certificates.client_context().wrap_socket(plain.socket, server_hostname="localhost")
        plain.send(GET % b"/")
        assert plain.read_answer().header("Connection") == "close"
        plain.socket.close()
        drained.join(DEADLINE_S)
        assert not drained.is_alive()


def test_a_unix_socket_stays_without_tls(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("unix") / "s"
    with serving(application, tls=certificates.server_tls(), listener=listen_unix(path)):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(DEADLINE_S)
        connection.connect(str(path))
        with RawClient(connection) as client:
            client.send(GET % b"/")
            assert client.read_answer().body == b"None"
