"""The JDK's HttpURLConnection, which Hadoop's clients stand on, against this server."""

from __future__ import annotations

import subprocess
from collections.abc import Awaitable
from pathlib import Path

import http_serving
from http_serving import serving

from ringfence_agent.http.request import Peer, Request
from ringfence_agent.http.response import Response, ResponseHead

_CLIENT = Path(http_serving.__file__).with_name("ReuseClient.java")
_ROUNDS = 10


def test_mixed_requests_of_a_java_client_share_one_connection() -> None:
    peers: list[Peer] = []  # one object per connection

    async def slow() -> Response:
        return Response(ResponseHead(200), b"later")

    def application(request: Request) -> Response | Awaitable[Response]:
        if not any(peer is request.peer for peer in peers):
            peers.append(request.peer)
        match request.raw_path:
            case b"/forbidden":
                return Response(ResponseHead(403, "Anonymous requests are disallowed"), b"{}")
            case b"/slow":
                return slow()
            case b"/empty":
                return Response(ResponseHead(204))
            case b"/broken":
                raise RuntimeError
            case b"/large":
                return Response(ResponseHead(200), b"x" * int(request.raw_query))
            case _:
                return Response(ResponseHead(200))

    with serving(application) as running:
        url = f"http://127.0.0.1:{running.address[1]}"
        command = ["java", str(_CLIENT), url, str(_ROUNDS)]
        answers = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.splitlines()
    expected = [
        "200 OK",
        "403 Anonymous requests are disallowed",
        "200 OK",
        "204 No Content",
        "200 OK",
        "500 Internal Server Error",
        "200 OK",
    ]
    assert answers == expected * _ROUNDS
    assert len(peers) == 1
