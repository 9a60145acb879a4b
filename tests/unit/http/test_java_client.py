"""The JDK's HttpURLConnection, which Hadoop's clients stand on, against this server."""

from __future__ import annotations

import subprocess
from collections.abc import Awaitable
from pathlib import Path

import http_serving
import pytest
from certificates import STORE_PASSWORD, Certificates, JavaStores
from http_serving import serving

from ringfence_agent.http.request import Peer, Request
from ringfence_agent.http.response import Response, ResponseHead

_CLIENT = Path(http_serving.__file__).with_name("ReuseClient.java")
_ROUNDS = 10


EXPECTED = [
    "200 OK",
    "403 Anonymous requests are disallowed",
    "200 OK",
    "204 No Content",
    "200 OK",
    "500 Internal Server Error",
    "200 OK",
]


class Application:
    """Keeps one peer for each connection that asked."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        if not any(peer is request.peer for peer in self.peers):
            self.peers.append(request.peer)
        match request.raw_path:
            case b"/forbidden":
                return Response(ResponseHead(403, "Anonymous requests are disallowed"), b"{}")
            case b"/slow":
                return _slow()
            case b"/empty":
                return Response(ResponseHead(204))
            case b"/broken":
                raise RuntimeError
            case b"/large":
                return Response(ResponseHead(200), b"x" * int(request.raw_query))
            case _:
                return Response(ResponseHead(200))


async def _slow() -> Response:
    return Response(ResponseHead(200), b"later")


def _run(url: str, *options: str) -> list[str]:
    command = ["java", *options, str(_CLIENT), url, str(_ROUNDS)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.splitlines()


def test_mixed_requests_of_a_java_client_share_one_connection() -> None:
    application = Application()
    with serving(application) as running:
        answers = _run(f"http://127.0.0.1:{running.address[1]}")
    assert answers == EXPECTED * _ROUNDS
    assert len(application.peers) == 1


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_java_client_does_the_same_over_tls(
    certificates: Certificates, java_stores: JavaStores, version: str
) -> None:
    """With the trust store that Java's keytool made, the host name checked, and its own certificate shown."""
    application = Application()
    with serving(application, tls=certificates.server_tls(client_auth="required")) as running:
        answers = _run(
            f"https://localhost:{running.address[1]}",
            f"-Djavax.net.ssl.trustStore={java_stores.trust_store}",
            f"-Djavax.net.ssl.trustStorePassword={STORE_PASSWORD}",
            f"-Djavax.net.ssl.keyStore={java_stores.key_store}",
            f"-Djavax.net.ssl.keyStorePassword={STORE_PASSWORD}",
            f"-Djdk.tls.client.protocols={version}",
        )
    assert answers == EXPECTED * _ROUNDS
    assert [(peer.tls.version, peer.tls.client_name) for peer in application.peers if peer.tls] == [
        (version, "localhost")
    ]
