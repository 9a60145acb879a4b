"""One address of Vault as the client sees it: what counts as an answer, and what never reaches the next request."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path

import pytest
import uvloop
from certificates import Certificates
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_node import Asked, ScriptedNode, always, reply, scripted_node

from ringfence_agent.vault import connection as connection_module
from ringfence_agent.vault.connection import (
    BODY_BYTES,
    HEAD_BYTES,
    Answer,
    ConnectionPool,
    Endpoint,
    NoAnswerError,
    make_tls_context,
)
from ringfence_bootstrap.sandbox.certificates import CertificateAuthority
from ringfence_zones.errors import ConfigError

GET = b"GET /v1/x HTTP/1.1\r\nHost: x\r\n\r\n"
Run = Callable[[Coroutine[None, None, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test on either event loop: workers have uvloop's, commands asyncio's."""

    def run(test: Coroutine[None, None, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(test)

    return run


def soon(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def pool_for(node: ScriptedNode) -> ConnectionPool:
    return ConnectionPool(node.endpoint, connect_s=1.0)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.002)


async def reason_of(pool: ConnectionPool, deadline_s: float = 5.0) -> str:
    with pytest.raises(NoAnswerError) as caught:
        await pool.exchange(GET, soon(deadline_s))
    return caught.value.reason


def test_requests_in_a_row_share_a_connection(run: Run) -> None:
    async def test() -> None:
        async with scripted_node(always(reply(200, b"body"))) as node:
            pool = pool_for(node)
            for _ in range(3):
                answer = await pool.exchange(GET, soon())
                assert (answer.status, answer.body, answer.retry_after_s) == (200, b"body", None)
            assert node.connections == 1
            await pool.close()

    run(test())


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbod\r\n1\r\ny\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
    ],
    ids=["length", "chunked", "interim answers first"],
)
def test_an_answer_is_the_same_however_it_is_framed_and_cut(run: Run, raw: bytes) -> None:
    async def test() -> None:
        async def slowly(asked: Asked) -> bytes:
            for byte in raw[:-1]:
                node.writers[-1].write(bytes([byte]))
                await node.writers[-1].drain()
                await asyncio.sleep(0)
            return raw[-1:]

        async with scripted_node(slowly) as node:
            pool = pool_for(node)
            for _ in range(2):
                assert (await pool.exchange(GET, soon())).body == b"body"
            assert node.connections == 1
            await pool.close()

    run(test())


def test_an_idle_connection_keeps_nothing_of_an_answer(run: Run) -> None:
    async def test() -> None:
        async with scripted_node(always(reply(200, b"canary"))) as node:
            pool = pool_for(node)
            await pool.exchange(GET, soon())
            (idle,) = pool._idle
            assert "canary" not in repr([getattr(idle, name) for name in idle.__slots__])
            await pool.close()

    run(test())


def test_an_answer_without_content_is_one(run: Run) -> None:
    async def test() -> None:
        async with scripted_node(always(b"HTTP/1.1 204 No Content\r\n\r\n")) as node:
            pool = pool_for(node)
            assert (await pool.exchange(GET, soon())).status == 204
            assert (await pool.exchange(GET, soon())).status == 204
            await pool.close()

    run(test())


def test_retry_after_is_whole_seconds_or_nothing(run: Run) -> None:
    async def test() -> None:
        for value, seconds in (("9", 9.0), ("0", 0.0), ("-1", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)):
            async with scripted_node(always(reply(429, b"", {"retry-after": value}))) as node:
                pool = pool_for(node)
                assert (await pool.exchange(GET, soon())).retry_after_s == seconds
                await pool.close()

    run(test())


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody", "broke off"),
        (b"HTTP/1.1 200 OK\r\n\r\nbody", "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nbody", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody", "not HTTP/1.1"),
        (b"\x15\x03\x01\x00\x02\x02\x50", "not HTTP/1.1"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", "another protocol"),
        (reply(200, b"body") + reply(200, b"the answer to the next"), "more than was asked"),
        (reply(200, b"body") + b"garbage\r\n", "not HTTP/1.1"),
        (reply(200, b"x" * (BODY_BYTES + 1)), "more than it may"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2 * HEAD_BYTES, "more than it may"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1;" + b"x" * 3 * BODY_BYTES + b"\r\nx\r\n",
            "more than it may",
        ),
    ],
    ids=[
        "cut off",
        "ended by the connection",
        "two framings",
        "two lengths",
        "a TLS alert",
        "an upgrade",
        "two answers",
        "garbage behind",
        "too large a body",
        "an endless header",
        "nearly all framing",
    ],
)
def test_what_is_not_one_whole_answer_is_none(run: Run, raw: bytes, reason: str) -> None:
    async def test() -> None:
        async def once(asked: Asked) -> bytes | None:
            node.writers[-1].write(raw)
            return None

        async with scripted_node(once) as node:
            pool = pool_for(node)
            assert reason in await reason_of(pool)
            await pool.close()

    run(test())


def test_what_comes_unasked_is_not_taken_for_an_answer(run: Run) -> None:
    async def test() -> None:
        async def script(asked: Asked) -> bytes:
            return reply(200, str(asked.connection).encode())

        async with scripted_node(script) as node:
            pool = pool_for(node)
            assert (await pool.exchange(GET, soon())).body == b"0"
            node.writers[0].write(reply(200, b"planted"))
            await node.writers[0].drain()
            await asyncio.wait_for(node.writers[0].wait_closed(), 5)
            assert (await pool.exchange(GET, soon())).body == b"1"
            await pool.close()

    run(test())


def test_a_late_answer_reaches_nobody(run: Run) -> None:
    async def test() -> None:
        late = asyncio.Event()

        async def script(asked: Asked) -> bytes:
            if asked.connection == 0:
                await late.wait()
            return reply(200, str(asked.connection).encode())

        async with scripted_node(script) as node:
            pool = pool_for(node)
            began = time.monotonic()
            assert "in time" in await reason_of(pool, 0.05)
            assert time.monotonic() - began < 2
            late.set()
            assert (await pool.exchange(GET, soon())).body == b"1"
            await pool.close()

    run(test())


def test_a_caller_who_goes_takes_the_connection_along(run: Run) -> None:
    async def test() -> None:
        asked_first = asyncio.Event()

        async def script(asked: Asked) -> bytes:
            if asked.connection == 0:
                asked_first.set()
                await asyncio.sleep(60)
            return reply(200, b"mine")

        async with scripted_node(script) as node:
            pool = pool_for(node)
            gone = asyncio.ensure_future(pool.exchange(GET, soon()))
            await asked_first.wait()
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            await until(node.readers[0].at_eof)
            assert (await pool.exchange(GET, soon())).body == b"mine"
            assert (node.connections, pool.in_flight) == (2, 0)
            await pool.close()

    run(test())


def test_an_idle_connection_that_turns_out_closed_costs_the_caller_nothing(run: Run) -> None:
    async def test() -> None:
        async def script(asked: Asked) -> bytes | None:
            again = [each.connection for each in node.seen].count(asked.connection) > 1
            return None if again else reply(200, str(asked.connection).encode())

        async with scripted_node(script) as node:
            pool = pool_for(node)
            assert [(await pool.exchange(GET, soon())).body for _ in range(3)] == [b"0", b"1", b"2"]
            await pool.close()

    run(test())


def test_a_new_connection_that_is_closed_without_an_answer_is_a_failure(run: Run) -> None:
    async def test() -> None:
        async with scripted_node(always(None)) as node:
            pool = pool_for(node)
            assert await reason_of(pool) == "closed the connection"
            assert len(node.seen) == 1
            await pool.close()

    run(test())


def test_a_server_that_wants_to_close_is_heeded(run: Run) -> None:
    async def test() -> None:
        async with scripted_node(always(reply(200, b"x", {"Connection": "close"}))) as node:
            pool = pool_for(node)
            for _ in range(2):
                await pool.exchange(GET, soon())
            assert node.connections == 2
            await pool.close()

    run(test())


def test_no_more_than_sixteen_connections_are_opened(run: Run) -> None:
    async def test() -> None:
        over = asyncio.Event()

        async def script(asked: Asked) -> bytes:
            await over.wait()
            return reply(200)

        async with scripted_node(script) as node:
            pool = pool_for(node)
            waiting = [asyncio.ensure_future(pool.exchange(GET, soon())) for _ in range(40)]
            await until(lambda: len(node.seen) == 16)
            assert "in time" in await asyncio.wait_for(reason_of(pool, 0.02), 2)
            assert (len(node.seen), pool.in_flight) == (16, 40)
            over.set()
            await asyncio.gather(*waiting)
            assert (node.connections, pool.in_flight) == (16, 0)
            await pool.close()

    run(test())


def test_who_does_not_listen_cannot_be_reached(run: Run) -> None:
    async def test() -> None:
        async with scripted_node(always(reply(200))) as node:
            pool = pool_for(node)
        assert "Connection refused" in await reason_of(pool)

    run(test())


def test_who_does_not_shake_hands_is_not_waited_for(run: Run, certificates: Certificates) -> None:
    async def test() -> None:
        async with scripted_node(always(reply(200))) as node:  # it speaks no TLS, and waits for the end of a head
            tls = make_tls_context(certificates.trusted)
            pool = ConnectionPool(Endpoint("x", "127.0.0.1", node.endpoint.port, tls), connect_s=0.1)
            assert await reason_of(pool) == "did not accept a connection in time"

    run(test())


def test_a_vault_agent_is_reached_at_its_socket(run: Run, tmp_path: Path) -> None:
    async def test() -> None:
        async with scripted_node(always(reply(200, b"agent")), socket=tmp_path / "agent.sock") as node:
            pool = pool_for(node)
            assert node.endpoint.host_header == b"localhost"
            assert (await pool.exchange(GET, soon())).body == b"agent"
            await pool.close()

    run(test())


def test_an_answer_and_what_it_was_asked_for_do_not_print_a_body() -> None:
    assert "canary" not in repr(Answer(500, b"canary"))


def test_the_host_of_a_request_is_that_of_its_address() -> None:
    assert Endpoint.at_url("https://vault-1.example.com:8200", None).host_header == b"vault-1.example.com:8200"
    assert Endpoint.at_url("http://[::1]:8200", None).host_header == b"[::1]:8200"


# -- whatever the bytes are


class Wire(asyncio.Transport):
    """A transport without a network, as far as a connection uses one."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True


async def outcome_of(pieces: Iterable[bytes]) -> tuple[int, bytes] | str:
    """What a connection makes of these bytes, and their end: status and body, or why it is no answer."""
    connection = connection_module._Connection()
    connection.connection_made(Wire())
    exchange = asyncio.ensure_future(connection.exchange(GET, soon()))
    await asyncio.sleep(0)
    for piece in pieces:
        connection.data_received(piece)
    connection.connection_lost(None)
    try:
        answer = await exchange
    except NoAnswerError as error:
        return error.reason
    return answer.status, answer.body


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"HTTP/1.1 200 OK\r\n",
                b"HTTP/1.1 100 Continue\r\n\r\n",
                b"HTTP/1.0 503 no\r\n",
                b"HTTP/1.1 204 x\r\n\r\n",
                b"Content-Length: 4\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Connection: close\r\n",
                b"Connection: upgrade\r\nUpgrade: h2c\r\n",
                b"Retry-After: 9\r\n",
                b"\r\n",
                b"\r\nbody",
                b"4\r\nbody\r\n",
                b"0\r\n\r\n",
            ]
        ),
        st.binary(max_size=8),
    ),
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(PIECES)
def test_an_answer_depends_on_no_cut_and_nothing_else_comes_out(pieces: list[bytes]) -> None:
    async def both() -> tuple[tuple[int, bytes] | str, tuple[int, bytes] | str]:
        whole = b"".join(pieces)
        return await outcome_of([whole] if whole else []), await outcome_of(
            whole[at : at + 1] for at in range(len(whole))
        )

    at_once, by_bytes = asyncio.run(both())
    if isinstance(at_once, tuple):
        assert by_bytes == at_once
    elif isinstance(by_bytes, tuple):
        # What came behind the answer came too late to be held against it, but the connection is not used again.
        assert at_once in (
            "sends more than was asked for",
            "answers with what is not HTTP/1.1",
            "offers to speak another protocol",
        )


# -- TLS


def _server_context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.certificate, certificates.server.key)
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_private_authority_vouches_for_the_server(
    run: Run, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    async def test() -> None:
        server_tls = _server_context(certificates)
        server_tls.minimum_version = server_tls.maximum_version = version
        tls = make_tls_context(certificates.trusted)
        async with scripted_node(always(reply(200, b"x" * 100_000)), server_tls, tls, "localhost") as node:
            pool = pool_for(node)
            for _ in range(2):
                assert len((await pool.exchange(GET, soon())).body) == 100_000
            assert node.connections == 1
            await pool.close()

    run(test())


def test_another_authority_is_refused_even_when_the_environment_trusts_it(
    run: Run, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.trusted))
    stranger = CertificateAuthority.make(tmp_path / "stranger", "Another authority")

    async def test() -> None:
        for trusted in (stranger.certificate, None):
            tls = make_tls_context(trusted)
            async with scripted_node(always(reply(200)), _server_context(certificates), tls, "localhost") as node:
                assert "not trusted" in await reason_of(pool_for(node))
                assert not node.seen

    run(test())


def test_a_certificate_for_another_host_is_refused(run: Run, certificates: Certificates) -> None:
    elsewhere = certificates.authority.issue_server("elsewhere", names=("vault.example.com",))
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(elsewhere.certificate, elsewhere.key)

    async def test() -> None:
        tls = make_tls_context(certificates.trusted)
        async with scripted_node(always(reply(200)), server_tls, tls, "localhost") as node:
            assert "not valid for 'localhost'" in await reason_of(pool_for(node))
            assert not node.seen

    run(test())


def test_versions_before_1_2_are_not_spoken(certificates: Certificates) -> None:
    context = make_tls_context(certificates.trusted)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_the_keys_of_a_session_are_written_nowhere(
    run: Run, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))

    async def test() -> None:
        tls = make_tls_context(certificates.trusted)
        async with scripted_node(always(reply(200)), _server_context(certificates), tls, "localhost") as node:
            pool = pool_for(node)
            await pool.exchange(GET, soon())
            await pool.close()

    run(test())
    assert not (tmp_path / "keys").exists()
    ssl.create_default_context()  # the control: this one would
    assert (tmp_path / "keys").exists()


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot use .*ca\.pem as vault\.ca_file"):
        make_tls_context(file)
