"""The reader as a function from bytes to requests: however the bytes are cut, and remembered heads included."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence_agent.http.limits import Limits
from ringfence_agent.http.reader import RefusedRequestError, RequestReader
from ringfence_agent.http.request import Peer, Request
from ringfence_agent.http.response import Response, ResponseHead
from ringfence_agent.http.service import HttpService

_PEER = Peer("127.0.0.1")


def read(pieces: Iterable[bytes]) -> list[object]:
    """What comes out of a fresh reader: every request as plain values, and last the status of a refusal."""
    outcome: list[object] = []

    def take(request: Request) -> None:
        fields = (request.method, request.raw_path, request.raw_query, dict(request.headers), request.body)
        outcome.append((*fields, request.keep_alive))

    service = HttpService(lambda _request: Response(ResponseHead(200)), Limits(body_bytes=1000, header_count=20))
    reader = RequestReader(service, _PEER, take)
    try:
        for piece in pieces:
            reader.feed(piece)
    except RefusedRequestError as refused:
        # Behind a request that ends the connection the protocol feeds and refuses nothing more.
        if not outcome or outcome[-1][-1]:  # type: ignore[index]
            outcome.append(refused.status)
    assert service.held_body_bytes >= 0
    return outcome


_PATHS = st.sampled_from([b"/kms/v1/keyversion/k%400/_eek?eek_op=decrypt", b"/kms/v1/keys", b"/", b"*", b"http://h/x"])
_HEADERS = st.lists(
    st.sampled_from(
        [
            b"Cookie: hadoop.auth=x",
            b"cookie: b=2",
            b"X-Empty:",
            b"Expect: 100-continue",
            b"Connection: close",
            b"Connection: Upgrade\r\nUpgrade: h2c",
            b"Transfer-Encoding: chunked",
            b"Content-Length: 4",
            b"Content-Length: 0",
        ]
    ),
    max_size=3,
)
# Bodies that look like ends of heads, requests and chunks: what a desynchronised reader would stumble over.
_BODIES = st.sampled_from(
    [
        b"",
        b"abcd",
        b"\r\n\r\n",
        b"\r\n",
        b"GET ",
        b"0\r\n\r\n",
        b"4\r\nabcd\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    ]
)
_STRAY = st.sampled_from([b"", b"", b"", b"\r\n", b"\r\n\r\n", b"\n", b"x"])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Something like a request, sometimes well-formed."""
    method = draw(st.sampled_from([b"GET", b"POST", b"HEAD"]))
    headers = draw(_HEADERS)
    body = draw(_BODIES)
    if draw(st.booleans()):
        headers.append(b"Content-Length: %d" % len(body))
    head = b"%b %b HTTP/1.1\r\nHost: h\r\n" % (method, draw(_PATHS))
    return draw(_STRAY) + head + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body + draw(_STRAY)


@st.composite
def pieces_of_a_connection(draw: st.DrawFn) -> list[bytes]:
    """Messages from a small set, so that they repeat, cut mostly between them and sometimes anywhere."""
    chosen = draw(st.lists(messages(), min_size=1, max_size=3))
    pieces = draw(st.lists(st.sampled_from(chosen), min_size=1, max_size=8))
    if draw(st.booleans()):
        whole = b"".join(pieces)
        cuts = sorted(draw(st.sets(st.integers(0, len(whole)), max_size=4)))
        pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    return [piece for piece in pieces if piece]


@settings(max_examples=500, deadline=None)
@given(pieces_of_a_connection())
def test_requests_do_not_depend_on_how_the_bytes_are_cut(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert read(pieces) == read(bytes([byte]) for byte in whole)


def _post(body: bytes, *, length: int | None = None) -> bytes:
    announced = len(body) if length is None else length
    return b"POST /k?q HTTP/1.1\r\nHost: h\r\nCookie: c\r\nContent-Length: %d\r\n\r\n" % announced + body


def test_repeated_head_gives_each_request_its_own_body(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = 0
    original = RequestReader.on_headers_complete

    def count(self: RequestReader) -> None:
        nonlocal parsed
        parsed += 1
        original(self)

    monkeypatch.setattr(RequestReader, "on_headers_complete", count)
    outcome = read([_post(b"one"), _post(b"two"), _post(b"six"), _post(b"four"), _post(b"two")])
    assert [request[4] for request in outcome] == [b"one", b"two", b"six", b"four", b"two"]  # type: ignore[index]
    assert parsed == 2, "another length is another head; every other one is recognised"


def test_known_heads_keep_no_body_and_no_proof_that_is_good_for_once() -> None:
    service = HttpService(lambda _request: Response(ResponseHead(200)))
    reader = RequestReader(service, _PEER, lambda _request: None)
    reader.feed(_post(b"key material"))
    reader.feed(b"GET /k HTTP/1.1\r\nHost: h\r\nAuthorization: Negotiate ticket\r\n\r\n")
    kept = [getattr(reader, name) for name in RequestReader.__slots__]
    assert len(service.known_heads) == 1
    assert "key material" not in repr((kept, dict(service.known_heads)))
    assert "ticket" not in repr(dict(service.known_heads))


def test_known_heads_are_bounded_in_number_and_length() -> None:
    service = HttpService(lambda _request: Response(ResponseHead(200)))
    reader = RequestReader(service, _PEER, lambda _request: None)
    most = 0
    for number in range(5000):
        reader.feed(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number)
        most = max(most, len(service.known_heads))
    assert 0 < most <= 2048
    known = len(service.known_heads)
    reader.feed(b"GET /long HTTP/1.1\r\nHost: h\r\nCookie: %b\r\n\r\n" % (b"c" * 5000))
    assert len(service.known_heads) == known


def test_same_bytes_in_the_middle_of_a_body_are_body() -> None:
    twin = _post(b"one")
    outcome = read([twin, _post(b"", length=len(twin)), twin, twin])
    assert [request[4] for request in outcome] == [b"one", twin, b"one"]  # type: ignore[index]


def test_stray_bytes_behind_a_body_are_not_taken_for_part_of_its_head() -> None:
    first = _post(b"\r\n\r\n") + b"\r\n"
    second = first[:-4] + b"abcd"
    assert read([first, second]) == read([bytes([byte]) for byte in first + second])


@pytest.mark.parametrize("cut", [10, 40, -1])
def test_blank_lines_after_a_request_never_repeat_it(cut: int) -> None:
    """Regression: the request of an earlier call was remembered as if the blank line were its head."""
    request = b"GET /once HTTP/1.1\r\nHost: h\r\n\r\n"
    upgrade = b"GET /once HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    blank = b"\r\n\r\n"
    assert len(read([request[:cut], request[cut:], blank, blank, blank])) == 1
    assert len(read([upgrade + blank, blank, blank])) == 1


def test_nothing_is_read_behind_a_request_that_closes_not_even_a_remembered_head() -> None:
    request = b"GET /again HTTP/1.1\r\nHost: h\r\n\r\n"
    last = b"GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    assert [answer[1] for answer in read([request, last, request])] == [b"/again", b"/last"]  # type: ignore[index]


def test_refusal_behind_a_declined_upgrade_is_still_that_refusal() -> None:
    """Regression: the upgrade's own exception took the refusal's place, and a 500 was sent."""
    upgrade = b"Host: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    first = b"GET /1 HTTP/1.1\r\n" + upgrade + b"\r\n"
    assert read([first + b"POST /2 HTTP/1.1\r\n" + upgrade + b"Content-Length: 4\r\n\r\nabcd"])[1:] == [501]
