"""What one connection does, seen through raw sockets: the list of http-stack's conformance points, and the bounds."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Iterator

import pytest
from certificates import Certificates
from http_serving import DEADLINE_S, RawClient, Running, serving

from ringfence_agent.http.limits import Limits
from ringfence_agent.http.outbox import Recorded
from ringfence_agent.http.request import Request
from ringfence_agent.http.response import Response, ResponseHead, plain_error
from ringfence_agent.promise import Promise

GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
_OK = ResponseHead(200, headers=[("Content-Type", "application/json")])
_FORBIDDEN = ResponseHead(
    403,
    "Anonymous requests are disallowed",
    [("Set-Cookie", "hadoop.auth="), ("X-oDd-CaSe", "1"), ("Set-Cookie", "b=2")],
)


def _echo(request: Request) -> Response:
    """Everything the application can see, as JSON."""
    seen = {
        "method": request.method.decode(),
        "path": request.raw_path.decode("latin-1"),
        "query": request.raw_query.decode("latin-1"),
        "headers": {name.decode(): value.decode("latin-1") for name, value in request.headers.items()},
        "body": request.body.decode("latin-1"),
        "address": request.peer.address,
        "is_unix": request.peer.is_unix,
    }
    return Response(_OK, json.dumps(seen).encode())


async def _slow(request: Request) -> Response:
    await asyncio.sleep(0.05)
    return _echo(request)


def application(request: Request) -> Response | Awaitable[Response]:
    match request.raw_path:
        case b"/slow":
            return _slow(request)
        case b"/forbidden":
            return Response(_FORBIDDEN, b"no")
        case b"/empty":
            return Response(ResponseHead(204))
        case b"/close":
            return Response(_OK, b"{}", close=True)
        case b"/broken":
            raise RuntimeError("the secret is hunter2")
        case b"/slow-broken":
            return _raise()
        case b"/large":
            return Response(_OK, b"x" * int(request.raw_query))
        case _:
            return _echo(request)


async def _raise() -> Response:
    await asyncio.sleep(0)
    raise RuntimeError("the secret is hunter2")


def promising(request: Request) -> Response | Awaitable[Response]:
    """The same application, whose later answers come by a promise."""
    if request.raw_path not in (b"/slow", b"/slow-broken"):
        return application(request)
    promise: Promise[Request] = Promise()
    asyncio.get_running_loop().call_later(0.05, promise.keep, request)
    return promise.then(_answer_promised)


def _answer_promised(request: Request) -> Response:
    if request.raw_path == b"/slow-broken":
        raise RuntimeError("the secret is hunter2")
    return _echo(request)


@pytest.fixture(params=["at-once", "recorded", "promising", "tls"])
def running(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[Running]:
    """A connection does the same for its client with TLS and without, when its answers wait for a commit, and when they
    come by a promise.
    """
    if request.param == "tls":
        tls, context = certificates.server_tls(), certificates.client_context()
        with serving(application, tls=tls, client_context=context) as server:
            yield server
    else:
        served = {
            "at-once": application,
            "recorded": Recorded(application, lambda: None),
            "promising": Recorded(promising, lambda: None),
        }
        with serving(served[request.param]) as server:
            yield server


@pytest.fixture
def client(running: Running) -> Iterator[RawClient]:
    with running.connect() as connected:
        yield connected


def test_response_has_date_and_offers_keep_alive(client: RawClient) -> None:
    client.send(GET % b"/x")
    answer = client.read_answer()
    assert (answer.status, answer.reason) == (200, "OK")
    assert answer.header("Connection") == "keep-alive"
    assert answer.header("Keep-Alive") == "timeout=60"
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", answer.header("Date") or "")
    assert answer.header("Content-Length") == str(len(answer.body))


def test_reason_phrase_header_case_and_repeated_set_cookie_arrive_as_given(client: RawClient) -> None:
    client.send(GET % b"/forbidden")
    answer = client.read_answer()
    assert (answer.status, answer.reason) == (403, "Anonymous requests are disallowed")
    assert answer.headers[:3] == [("Set-Cookie", "hadoop.auth="), ("X-oDd-CaSe", "1"), ("Set-Cookie", "b=2")]


def test_path_and_query_stay_undecoded(client: RawClient) -> None:
    client.send(GET % b"/kms/v1/key/k%2F1%40x?eek_op=decrypt&a=%20?b")
    seen = json.loads(client.read_answer().body)
    assert seen["path"] == "/kms/v1/key/k%2F1%40x"
    assert seen["query"] == "eek_op=decrypt&a=%20?b"


def test_absolute_form_target_is_reduced_to_its_path(client: RawClient) -> None:
    client.send(GET % b"http://elsewhere:1/a/b?c=d" + GET % b"http://elsewhere")
    seen = json.loads(client.read_answer().body)
    assert (seen["path"], seen["query"]) == ("/a/b", "c=d")
    assert json.loads(client.read_answer().body)["path"] == "/"


def test_header_names_are_lower_case_and_values_trimmed(client: RawClient) -> None:
    client.send(b"GET / HTTP/1.1\r\nHOST: h\r\nX-MiXeD:  padded \t \r\nX-Empty:\r\n\r\n")
    headers = json.loads(client.read_answer().body)["headers"]
    assert headers == {"host": "h", "x-mixed": "padded", "x-empty": ""}


def test_repeated_headers_are_joined_and_cookies_by_semicolon(client: RawClient) -> None:
    client.send(b"GET / HTTP/1.1\r\nHost: h\r\nCookie: a=1\r\nAccept: x\r\nCookie: b=2\r\nAccept: y\r\n\r\n")
    headers = json.loads(client.read_answer().body)["headers"]
    assert headers["cookie"] == "a=1; b=2"
    assert headers["accept"] == "x, y"


def test_request_sent_byte_by_byte_is_read_whole(client: RawClient) -> None:
    for byte in b"POST /p?q=1 HTTP/1.1\r\nHost: h\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello":
        client.send(bytes([byte]))
    seen = json.loads(client.read_answer().body)
    assert (seen["method"], seen["path"], seen["query"], seen["body"]) == ("POST", "/p", "q=1", "hello")
    assert seen["headers"]["x-a"] == "b"


def test_chunked_body_is_joined_and_trailers_add_no_header(client: RawClient) -> None:
    client.send(
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nX-Late: 1\r\nHost: other\r\n\r\n"
    )
    seen = json.loads(client.read_answer().body)
    assert seen["body"] == "hello world"
    assert "x-late" not in seen["headers"]
    assert seen["headers"]["host"] == "h"


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS"])
def test_methods_without_a_body_are_accepted(client: RawClient, method: bytes) -> None:
    client.send(method + b" /kms/v1/keys HTTP/1.1\r\nHost: h\r\n\r\n")
    seen = json.loads(client.read_answer().body)
    assert (seen["method"], seen["body"]) == (method.decode(), "")


def test_pipelined_requests_are_answered_in_order_around_a_slow_one(client: RawClient) -> None:
    client.send(b"".join(GET % path for path in (b"/1", b"/slow", b"/2", b"/slow", b"/3")))
    paths = [json.loads(client.read_answer().body)["path"] for _ in range(5)]
    assert paths == ["/1", "/slow", "/2", "/slow", "/3"]


def test_thousands_of_pipelined_requests_behind_a_slow_one_keep_order() -> None:
    count = 3000
    # Without TLS: two threads must not use one of Python's TLS sockets at once.
    with serving(application) as running, running.connect() as client:
        sender = threading.Thread(
            target=client.send, args=(GET % b"/slow" + b"".join(GET % b"/%d" % n for n in range(count)),)
        )
        sender.start()
        assert json.loads(client.read_answer().body)["path"] == "/slow"
        assert [json.loads(client.read_answer().body)["path"] for _ in range(count)] == [f"/{n}" for n in range(count)]
        sender.join(DEADLINE_S)


def test_client_that_reads_nothing_is_not_answered_further_and_loses_nothing() -> None:
    size, count = 200_000, 300
    handled: list[bytes] = []

    def large(request: Request) -> Response:
        handled.append(request.raw_path)
        return Response(_OK, b"x" * size)

    with serving(large) as running, running.connect() as client:
        client.send(GET % b"/" * count)
        _wait_until(lambda: len(handled) > 0)
        # Answered in one go as far as the buffers go; the rest waits for the client, however long that takes.
        barrier = threading.Event()
        running.loop.call_soon_threadsafe(running.loop.call_later, 0.3, barrier.set)
        assert barrier.wait(DEADLINE_S)
        assert len(handled) < count / 2
        for _ in range(count):
            assert len(client.read_answer().body) == size
        assert len(handled) == count


def test_head_gets_the_length_and_no_body(client: RawClient) -> None:
    client.send(b"HEAD /large?1234 HTTP/1.1\r\nHost: h\r\n\r\n" + GET % b"/after")
    answer = client.read_answer(to_head=True)
    assert answer.header("Content-Length") == "1234"
    assert json.loads(client.read_answer().body)["path"] == "/after"


def test_no_content_has_no_length_and_keeps_the_connection(client: RawClient) -> None:
    client.send(GET % b"/empty" + GET % b"/after")
    answer = client.read_answer()
    assert (answer.status, answer.header("Content-Length")) == (204, None)
    assert json.loads(client.read_answer().body)["path"] == "/after"


def test_empty_ok_says_its_length_is_zero(client: RawClient) -> None:
    client.send(GET % b"/large?0")
    assert client.read_answer().header("Content-Length") == "0"


def test_continue_is_sent_before_the_body_is_expected(client: RawClient) -> None:
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hi")
    assert json.loads(client.read_answer().body)["body"] == "hi"


def test_continue_waits_for_the_answers_before_it(client: RawClient) -> None:
    client.send(GET % b"/slow" + b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert json.loads(client.read_answer().body)["path"] == "/slow"
    assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hi")
    assert json.loads(client.read_answer().body)["body"] == "hi"


def test_too_large_upload_is_refused_instead_of_invited() -> None:
    with serving(application, limits=Limits(body_bytes=20_000)) as running, running.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 20001\r\nExpect: 100-continue\r\n\r\n")
        assert client.read_answer().status == 413


def test_unknown_expectation_is_refused(client: RawClient) -> None:
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: miracles\r\n\r\n")
    assert client.read_answer().status == 417


def test_http_1_0_is_closed_unless_it_asks_to_stay(running: Running) -> None:
    with running.connect() as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.read_answer().header("Connection") == "close"
        assert client.is_closed()
    with running.connect() as client:
        client.send(b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n")
        assert client.read_answer().header("Connection") == "keep-alive"
        assert json.loads(client.read_answer().body)["path"] == "/2"


def test_connection_close_is_honoured_and_what_follows_ignored(client: RawClient) -> None:
    client.send(b"GET /1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + GET % b"/2")
    answer = client.read_answer()
    assert json.loads(answer.body)["path"] == "/1"
    assert answer.header("Connection") == "close"
    assert client.is_closed()


def test_application_can_close_the_connection(client: RawClient) -> None:
    client.send(GET % b"/close" + GET % b"/never")
    assert client.read_answer().header("Connection") == "close"
    assert client.is_closed()


def test_half_closed_client_still_gets_its_slow_answers(client: RawClient) -> None:
    client.send(GET % b"/slow" + GET % b"/2")
    client.end_input()
    assert json.loads(client.read_answer().body)["path"] == "/slow"
    assert json.loads(client.read_answer().body)["path"] == "/2"
    assert client.is_closed()


_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_MALFORMED = {
    "garbage": b"this is not http\r\n\r\n",
    "unknown method": b"STEAL / HTTP/1.1\r\nHost: h\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: h\n\n",
    "space before colon": b"GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: h\r\nA: b\0c\r\n\r\n",
    "raw non-ASCII in the path": b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two authorizations": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "negative length": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
    "signed length": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\n",
    "huge length": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "same length twice": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
    "two lengths": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
    "length list": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2, 2\r\n\r\nhi",
    "length and chunked": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n" + _CHUNKED + b"\r\n0\r\n\r\n",
    "chunked and length": b"POST / HTTP/1.1\r\nHost: h\r\n" + _CHUNKED + b"Content-Length: 2\r\n\r\n0\r\n\r\n",
    "chunked twice": b"POST / HTTP/1.1\r\nHost: h\r\n" + _CHUNKED + _CHUNKED + b"\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: h\r\n" + _CHUNKED + b"\r\n0\r\n\r\n",
    "bad chunk size": b"POST / HTTP/1.1\r\nHost: h\r\n" + _CHUNKED + b"\r\nzz\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("data", _MALFORMED.values(), ids=_MALFORMED.keys())
def test_ambiguous_or_malformed_request_gets_400_and_the_connection_ends(client: RawClient, data: bytes) -> None:
    client.send(data + GET % b"/smuggled")
    answer = client.read_answer()
    assert answer.status == 400
    assert answer.header("Connection") == "close"
    assert client.is_closed()


def test_refusal_comes_after_the_answers_before_it(client: RawClient) -> None:
    client.send(GET % b"/slow" + GET % b"/2" + b"garbage\r\n\r\n")
    assert json.loads(client.read_answer().body)["path"] == "/slow"
    assert json.loads(client.read_answer().body)["path"] == "/2"
    assert client.read_answer().status == 400
    assert client.is_closed()


def test_half_closed_client_gets_its_slow_answer_and_the_refusal_behind_it(client: RawClient) -> None:
    client.send(GET % b"/slow" + b"garbage\r\n\r\n")
    client.end_input()
    assert json.loads(client.read_answer().body)["path"] == "/slow"
    assert client.read_answer().status == 400
    assert client.is_closed()


def test_transfer_coding_other_than_chunked_is_not_implemented(client: RawClient) -> None:
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
    assert client.read_answer().status == 501


def test_other_version_is_refused(client: RawClient) -> None:
    client.send(b"GET / HTTP/2.0\r\nHost: h\r\n\r\n")
    assert client.read_answer().status == 505


def test_upgrade_offer_without_a_body_is_declined_by_ignoring_it(client: RawClient) -> None:
    offer = b"GET /%d HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    client.send(offer % 1 + offer % 2 + GET % b"/3")
    assert [json.loads(client.read_answer().body)["path"] for _ in range(3)] == ["/1", "/2", "/3"]


def test_upgrade_offer_with_a_body_is_refused_because_its_body_would_become_a_request(client: RawClient) -> None:
    smuggled = GET % b"/smuggled"
    head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n"
    client.send(head % len(smuggled) + smuggled)
    assert client.read_answer().status == 501
    assert client.is_closed()


def test_connect_is_refused(client: RawClient) -> None:
    client.send(b"CONNECT db:5432 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert client.read_answer().status == 501


@pytest.mark.parametrize("size", [16_000, 60_000, 120_000])
def test_large_header_is_accepted(client: RawClient, size: int) -> None:
    client.send(b"GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Negotiate " + b"Y" * size + b"\r\n\r\n")
    assert len(json.loads(client.read_answer().body)["headers"]["authorization"]) == size + len("Negotiate ")


def test_header_beyond_the_limit_gets_431_although_the_client_is_still_sending(client: RawClient) -> None:
    client.send(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"Y" * 300_000)
    answer = client.read_answer()
    assert (answer.status, answer.reason) == (431, "Request Header Fields Too Large")
    assert client.is_closed()


@pytest.mark.parametrize("line", [b"X-%d: 1\r\n", b"X: %d\r\n"], ids=["distinct", "repeated"])
def test_too_many_headers_get_431(client: RawClient, line: bytes) -> None:
    client.send(b"GET / HTTP/1.1\r\nHost: h\r\n" + b"".join(line % n for n in range(500)) + b"\r\n")
    assert client.read_answer().status == 431


def test_body_beyond_the_limit_is_refused_however_it_is_framed() -> None:
    with serving(application, limits=Limits(body_bytes=1000)) as running:
        for framing in (b"Content-Length: 1001\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n"):
            with running.connect() as client:
                client.send(b"POST / HTTP/1.1\r\nHost: h\r\n" + framing + b"x" * 1001)
                assert client.read_answer().status == 413
                assert client.is_closed()
        with running.connect() as client:
            client.send(b"POST /large?1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
            assert client.read_answer().status == 200


def test_body_of_a_large_batch_arrives_whole(client: RawClient) -> None:
    body = bytes(range(97, 123)) * 120_000
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert json.loads(client.read_answer().body)["body"].encode() == body


def test_unfinished_bodies_of_all_connections_are_bounded_together() -> None:
    with serving(application, limits=Limits(held_body_bytes=200_000)) as running:
        with running.connect() as first, running.connect() as second:
            for client in (first, second):
                client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 500000\r\n\r\n" + b"x" * 150_000)
            refused = second if _becomes_readable(second) else first
            assert refused.read_answer().status == 503
        _wait_until(lambda: running.service.held_body_bytes == 0 and not running.service.connections)


def test_endless_trailers_and_chunk_extensions_are_cut_off(running: Running) -> None:
    start = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    for endless in (b"0\r\nX-Trailer: ", b"1;extension="):
        with running.connect() as client:
            client.send(start + endless + b"y" * 400_000)
            assert client.read_answer().status == 400


def test_slow_head_and_slow_body_get_408() -> None:
    limits = Limits(head_timeout_s=0.1, body_timeout_s=0.3)
    with serving(application, limits=limits) as running:
        for dribble in (b"GET / HTTP/1.1\r\nHo", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe", b"G"):
            with running.connect() as client:
                client.send(dribble)
                assert client.read_answer().status == 408
                assert client.is_closed()


def test_idle_connection_is_closed_after_its_time_and_not_before() -> None:
    with serving(application, limits=Limits(idle_timeout_s=1)) as running, running.connect() as client:
        client.send(GET % b"/1")
        assert client.read_answer().header("Keep-Alive") == "timeout=1"
        began = time.monotonic()
        assert client.is_closed()
        assert 1.0 <= time.monotonic() - began < 5.0


def test_blank_lines_do_not_keep_a_connection_alive() -> None:
    with serving(application, limits=Limits(idle_timeout_s=0.1)) as running, running.connect() as client:
        client.send(b"\r\n\r\n")
        assert client.is_closed()


def test_client_that_never_reads_is_cut_off() -> None:
    with serving(application, limits=Limits(write_timeout_s=0.1)) as running, running.connect() as client:
        client.send(GET % b"/large?20000000")
        _wait_until(lambda: len(running.service.connections) == 1)
        _wait_until(lambda: not running.service.connections)


def test_connections_beyond_the_limit_get_503_and_leave_the_others_alone() -> None:
    with serving(application, limits=Limits(connections=2)) as running:
        with running.connect() as first, running.connect() as second:
            for client in (first, second):
                client.send(GET % b"/")
                assert client.read_answer().status == 200
            with running.connect() as third:
                assert third.read_answer().status == 503
                assert third.is_closed()
            first.send(GET % b"/")
            assert first.read_answer().status == 200
        _wait_until(lambda: not running.service.connections)
        with running.connect() as later:
            later.send(GET % b"/")
            assert later.read_answer().status == 200


def test_a_connection_that_never_asked_makes_room_for_a_new_one() -> None:
    with (
        serving(application, limits=Limits(connections=2)) as running,
        running.connect() as silent,
        running.connect() as used,
    ):
        used.send(GET % b"/")
        assert used.read_answer().status == 200
        with running.connect() as newcomer:
            newcomer.send(GET % b"/")
            assert newcomer.read_answer().status == 200
            assert silent.is_closed()
            used.send(GET % b"/")
            assert used.read_answer().status == 200


def test_the_longest_idle_connection_makes_room_and_none_that_is_owed_an_answer() -> None:
    async def never(_request: Request) -> Response:
        await asyncio.sleep(3600)
        raise AssertionError

    def answer(request: Request) -> Response | Awaitable[Response]:
        return never(request) if request.raw_path == b"/never" else application(request)

    with (
        serving(answer, limits=Limits(connections=3)) as running,
        running.connect() as waiting,
        running.connect() as first,
        running.connect() as second,
    ):
        waiting.send(GET % b"/never")
        for client in (first, second):
            client.send(GET % b"/")
            assert client.read_answer().status == 200
        answered = running.service.now
        _wait_until(lambda: running.service.now > answered + 1.2)
        second.send(GET % b"/")
        assert second.read_answer().status == 200
        with running.connect() as newcomer:
            newcomer.send(GET % b"/")
            assert newcomer.read_answer().status == 200
            assert first.is_closed()
            second.send(GET % b"/")
            assert second.read_answer().status == 200


@pytest.mark.parametrize("path", [b"/broken", b"/slow-broken"])
def test_exception_of_the_application_becomes_a_bland_500(
    client: RawClient, path: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        client.send(GET % path + GET % b"/after")
        answer = client.read_answer()
    assert answer.status == 500
    assert b"hunter2" not in answer.body
    assert b"Traceback" not in answer.body
    assert json.loads(client.read_answer().body)["path"] == "/after"
    assert "RuntimeError" in caplog.text
    assert "hunter2" not in caplog.text


def test_errors_are_rendered_by_the_callback() -> None:
    def render(status: int, sentence: str) -> Response:
        return Response(ResponseHead(status, "Custom"), json.dumps({"sentence": sentence}).encode())

    with serving(application, render_error=render) as running, running.connect() as client:
        client.send(GET % b"/broken" + b"garbage\r\n\r\n")
        assert client.read_answer().reason == "Custom"
        answer = client.read_answer()
        assert (answer.status, answer.reason) == (400, "Custom")
        assert json.loads(answer.body) == {"sentence": "this is not a well-formed HTTP/1.1 request"}


def test_failing_error_renderer_still_gives_an_answer() -> None:
    def render(status: int, sentence: str) -> Response:
        raise RuntimeError(sentence)

    with serving(application, render_error=render) as running, running.connect() as client:
        client.send(GET % b"/broken")
        assert client.read_answer().status == 500


def test_awaitable_runs_to_its_end_after_the_client_has_gone() -> None:
    started, finished = threading.Event(), threading.Event()

    async def work() -> Response:
        started.set()
        await asyncio.sleep(0.1)
        finished.set()
        return plain_error(500, "nobody reads this")

    with serving(lambda _request: work()) as running:
        with running.connect() as client:
            client.send(GET % b"/")
            assert started.wait(DEADLINE_S)
        assert finished.wait(DEADLINE_S)
        _wait_until(lambda: not running.service.connections and not running.service.awaited)


class Waiting:
    """An application whose answers wait until the test says so, and that notes whose client is gone."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.gone: list[bytes] = []
        self._may_answer = threading.Event()

    async def __call__(self, request: Request) -> Response:
        request.on_gone = lambda: self.gone.append(request.raw_path)
        self.requests.append(request)
        await asyncio.to_thread(self._may_answer.wait, DEADLINE_S)
        return _echo(request)

    def is_asked(self, times: int) -> bool:
        return len(self.requests) == times

    def answer(self) -> None:
        self._may_answer.set()


class Promised:
    """An application whose answers are promises, which the test keeps."""

    def __init__(self) -> None:
        self.made: dict[bytes, Promise[Response]] = {}

    def __call__(self, request: Request) -> Promise[Response]:
        promise = self.made[request.raw_path] = Promise()
        request.on_gone = lambda: promise.keep(plain_error(503, "nobody reads this"))
        return promise

    def keep(self, running: Running, path: bytes, outcome: object) -> None:
        _wait_until(lambda: path in self.made)
        running.loop.call_soon_threadsafe(self.made[path].keep, outcome)


def test_a_promise_is_answered_when_it_is_kept_and_in_the_order_of_requests() -> None:
    promised = Promised()
    with serving(promised) as running, running.connect() as client:
        client.send(GET % b"/1" + GET % b"/2")
        promised.keep(running, b"/1", Response(_OK, b"1"))
        assert client.read_answer().body == b"1"
        promised.keep(running, b"/2", ZeroDivisionError("the secret is hunter2"))
        answer = client.read_answer()
        assert answer.status == 500 and b"hunter2" not in answer.body
        assert not running.service.awaited


def test_a_promise_of_a_client_that_is_gone_is_given_up_at_once() -> None:
    promised = Promised()
    with serving(promised) as running:
        leaves = running.connect()
        leaves.send(GET % b"/")
        _wait_until(lambda: b"/" in promised.made)
        leaves.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        leaves.socket.close()
        _wait_until(lambda: promised.made[b"/"].is_kept)
        _wait_until(lambda: not running.service.awaited)


def test_an_answer_that_cannot_be_written_costs_its_connection_alone(caplog: pytest.LogCaptureFixture) -> None:
    promised = Promised()
    with serving(promised) as running, running.connect() as unlucky, running.connect() as other:
        unlucky.send(GET % b"/unlucky")
        other.send(GET % b"/other")
        promised.keep(running, b"/unlucky", "no response at all")
        promised.keep(running, b"/other", Response(_OK, b"{}"))
        assert other.read_answer().status == 200
        assert unlucky.is_closed()
    assert "unhandled AttributeError" in caplog.text


def test_a_server_drains_when_its_promises_are_kept() -> None:
    promised = Promised()
    with serving(promised) as running, running.connect() as client:
        client.send(GET % b"/")
        _wait_until(lambda: b"/" in promised.made)
        drained = threading.Thread(target=running.drain)
        drained.start()
        time.sleep(0.1)
        assert drained.is_alive()
        promised.keep(running, b"/", Response(_OK, b"{}"))
        assert client.read_answer().status == 200
        drained.join(DEADLINE_S)
        assert not drained.is_alive() and not running.service.awaited


def test_who_answers_later_is_told_at_once_when_the_connection_is_lost() -> None:
    waiting = Waiting()
    with serving(waiting) as running, running.connect() as stays:
        leaves = running.connect()
        leaves.send(GET % b"/leaves")
        stays.send(GET % b"/stays")
        _wait_until(lambda: waiting.is_asked(2))
        leaves.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        leaves.socket.close()  # with a reset
        _wait_until(lambda: bool(waiting.gone))
        waiting.answer()
        assert stays.read_answer().status == 200
        assert waiting.gone == [b"/leaves"]
        assert {request.raw_path: request.is_gone for request in waiting.requests} == {
            b"/leaves": True,
            b"/stays": False,
        }


@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "tls"])
def test_who_only_closed_its_side_is_taken_for_gone_after_a_second_and_reads_its_answer_still(
    certificates: Certificates, with_tls: bool
) -> None:
    waiting = Waiting()
    tls, context = (certificates.server_tls(), certificates.client_context()) if with_tls else (None, None)
    with serving(waiting, tls=tls, client_context=context) as running, running.connect() as client:
        client.send(GET % b"/half")
        _wait_until(lambda: waiting.is_asked(1))
        client.end_input()
        began = time.monotonic()
        _wait_until(lambda: bool(waiting.gone))
        assert 0.9 < time.monotonic() - began < 5.0
        waiting.answer()
        assert json.loads(client.read_answer().body)["path"] == "/half"
        assert client.is_closed()
        assert waiting.gone == [b"/half"]


def test_nobody_is_told_of_a_client_that_leaves_with_its_answer() -> None:
    waiting = Waiting()
    waiting.answer()
    with serving(waiting) as running:
        with running.connect() as client:
            client.send(GET % b"/")
            assert client.read_answer().status == 200
        _wait_until(lambda: not running.service.connections)
    assert waiting.gone == []


def test_peer_of_a_tcp_connection_is_its_address(client: RawClient) -> None:
    client.send(GET % b"/")
    seen = json.loads(client.read_answer().body)
    assert (seen["address"], seen["is_unix"]) == ("127.0.0.1", False)


def test_drain_answers_what_is_under_way_and_closes_the_rest() -> None:
    with serving(application) as running, running.connect() as busy, running.connect() as idle:
        busy.send(GET % b"/1")
        busy.read_answer()
        busy.send(GET % b"/slow")
        drained = threading.Thread(target=running.drain)
        drained.start()
        answer = busy.read_answer()
        assert (answer.status, answer.header("Connection")) == (200, "close")
        assert busy.is_closed()
        busy.socket.close()
        assert idle.is_closed()
        drained.join(DEADLINE_S)
        assert not drained.is_alive()


def test_drain_serves_the_next_request_of_a_kept_connection() -> None:
    with serving(application) as running, running.connect() as client:
        client.send(GET % b"/1")
        client.read_answer()
        drained = threading.Thread(target=running.drain)
        drained.start()
        _wait_until(lambda: running.service.draining)
        client.send(GET % b"/2")
        answer = client.read_answer()
        assert json.loads(answer.body)["path"] == "/2"
        assert answer.header("Connection") == "close"
        client.socket.close()
        drained.join(DEADLINE_S)


def test_drain_cuts_off_what_does_not_end() -> None:
    async def forever(_request: Request) -> Response:
        await asyncio.sleep(3600)
        raise AssertionError

    with serving(forever) as running, running.connect() as client:
        client.send(GET % b"/")
        _wait_until(lambda: len(running.service.awaited) == 1)
        assert running.drain(0.2) is False
        assert client.is_closed()


def _becomes_readable(client: RawClient) -> bool:
    client.socket.settimeout(1.0)
    try:
        return bool(client.socket.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
    finally:
        client.socket.settimeout(DEADLINE_S)


def _wait_until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)
