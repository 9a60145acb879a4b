"""An ASGI application behind our HTTP core sees a proper scope and answers once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from ringfence_agent.api.asgi import REQUEST, AsgiApplication, AsgiBridge, Receive, Scope, Send
from ringfence_agent.http.request import Peer, Request
from ringfence_agent.http.response import Response

_PEER = Peer(None, uid=7, gid=8, pid=9)


def _request(raw_path: bytes = b"/v1/a%20b", query: bytes = b"x=%2F", body: bytes = b"") -> Request:
    return Request(b"POST", raw_path, query, {b"content-type": b"text/plain"}, body, _PEER, True)


def _run(application: AsgiApplication, request: Request) -> Response:
    answer = AsgiBridge(application)(request)
    if isinstance(answer, Response):
        return answer

    async def wait(pending: Awaitable[Response]) -> Response:
        return await pending

    return asyncio.run(wait(answer))


def test_the_scope_says_what_came_over_the_wire() -> None:
    seen: dict[str, Any] = {}

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.update(scope, body=await receive())
        await send({"type": "http.response.start", "status": 201, "headers": [(b"X-Kind", b"k"), (b"Date", b"no")]})
        await send({"type": "http.response.body", "body": b"he", "more_body": True})
        await send({"type": "http.response.body", "body": b"llo"})

    answer = _run(application, _request(body=b"in"))
    assert (seen["method"], seen["path"], seen["raw_path"], seen["query_string"]) == (
        "POST",
        "/v1/a b",
        b"/v1/a%20b",
        b"x=%2F",
    )
    assert seen[REQUEST].peer is _PEER
    assert seen["client"] is None
    assert seen["body"] == {"type": "http.request", "body": b"in", "more_body": False}
    assert (answer.head.status, answer.body, answer.head.headers) == (201, b"hello", (("X-Kind", "k"),))


def test_a_path_that_is_not_utf_8_is_refused() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("must not be reached")

    assert _run(application, _request(raw_path=b"/v1/%ff")).head.status == 400


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"type": "http.response.start", "status": 200}],
        [{"type": "http.response.body", "body": b"x"}],
        [{"type": "http.response.start", "status": 200}, {"type": "http.response.body", "more_body": True}],
        [{"type": "http.response.start", "status": 200}] * 2,
    ],
)
def test_half_an_answer_is_a_bug_not_an_answer(messages: list[dict[str, Any]]) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    with pytest.raises(RuntimeError):
        _run(application, _request())
