"""Response heads: what is rendered, and what cannot be smuggled through them."""

from __future__ import annotations

import pytest

from ringfence_agent.http.request import Peer, Request
from ringfence_agent.http.response import Response, ResponseHead, plain_error


def test_head_is_rendered_with_exact_case_and_order() -> None:
    head = ResponseHead(401, "Authentication required", [("WWW-Authenticate", "Negotiate"), ("x-lower", "1")])
    assert head.rendered == (b"HTTP/1.1 401 Authentication required\r\nWWW-Authenticate: Negotiate\r\nx-lower: 1\r\n")


def test_registered_reason_is_the_default_and_unknown_statuses_have_none() -> None:
    assert ResponseHead(404).rendered == b"HTTP/1.1 404 Not Found\r\n"
    assert ResponseHead(599).rendered == b"HTTP/1.1 599 \r\n"


@pytest.mark.parametrize("reason", ["a\r\nSet-Cookie: evil=1", "a\nb", "a\x00b", "a\x7fb", "snowman ☃"])
def test_reason_never_breaks_the_line_or_the_encoding(reason: str) -> None:
    rendered = ResponseHead(403, reason).rendered
    assert rendered.startswith(b"HTTP/1.1 403 ")
    assert rendered.count(b"\n") == 1
    assert b"\x00" not in rendered


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb", "a\x00", "☃"])
def test_unclean_header_value_is_refused_without_quoting_it(value: str) -> None:
    with pytest.raises(ValueError, match="Location") as caught:
        ResponseHead(201, headers=[("Location", value)])
    assert value not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\n", "ä"])
def test_name_that_is_not_a_token_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="header"):
        ResponseHead(200, headers=[(name, "x")])


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Connection", "Date", "Keep-Alive"])
def test_headers_of_the_server_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="may set"):
        ResponseHead(200, headers=[(name, "x")])


@pytest.mark.parametrize("status", [100, 199, 600, 0])
def test_status_that_is_not_final_is_refused(status: int) -> None:
    with pytest.raises(ValueError, match="final"):
        ResponseHead(status)


def test_with_headers_appends_and_leaves_the_original_alone() -> None:
    head = ResponseHead(200, "Fine", [("A", "1")])
    assert head.with_headers(("Set-Cookie", "x=1")).rendered == b"HTTP/1.1 200 Fine\r\nA: 1\r\nSet-Cookie: x=1\r\n"
    assert head.rendered == b"HTTP/1.1 200 Fine\r\nA: 1\r\n"


def test_plain_error_carries_the_sentence() -> None:
    response = plain_error(413, "too much")
    assert (response.head.status, response.body) == (413, b"too much")


def test_representations_show_no_content() -> None:
    headers = {b"cookie": b"hunter2"}
    request = Request(b"POST", b"/kms/v1/hunter2", b"user.name=hunter2", headers, b"hunter2", Peer("127.0.0.1"), True)
    response = Response(ResponseHead(200, headers=[("Set-Cookie", "hunter2")]), b"hunter2")
    assert "hunter2" not in f"{request!r} {response!r} {response.head!r}"
