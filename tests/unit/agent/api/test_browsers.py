"""Requests that a browser was made to send by somebody else's page."""

from __future__ import annotations

import pytest

from ringfence_agent.api.browsers import BrowserGuard, find_problem
from ringfence_agent.http.request import Peer, Request, TlsPeer
from ringfence_agent.http.response import Response, ResponseHead, plain_error

UNIX = Peer(None, uid=1)
TLS = Peer("10.0.0.7", tls=TlsPeer("TLSv1.3"))


def request(peer: Peer = UNIX, method: bytes = b"GET", path: bytes = b"/v1/overview", **headers: str) -> Request:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Request(method, path, b"", named, b"", peer, keep_alive=True)


NAVIGATION = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}


@pytest.mark.parametrize(
    "asked",
    [
        request(),
        request(host="localhost"),
        request(host="LOCALHOST:8480"),
        request(host="127.0.0.1:1"),
        request(host="[::1]:8480", sec_fetch_site="same-origin"),
        request(host="localhost:1", origin="http://localhost:1", sec_fetch_site="same-origin", method=b"POST"),
        request(host="localhost:1", sec_fetch_site="none"),
        request(path=b"/page/", host="localhost:1", sec_fetch_site="cross-site", **NAVIGATION),
        request(path=b"/", host="localhost:1", sec_fetch_site="same-site", **NAVIGATION),
        request(TLS, host="agent.example.com:8443"),
        request(TLS, host="agent.example.com", origin="https://agent.example.com", method=b"POST"),
    ],
    ids=repr,
)
def test_programs_the_page_itself_and_links_to_it_are_answered(asked: Request) -> None:
    assert find_problem(asked) is None


@pytest.mark.parametrize(
    "asked",
    [
        request(host="evil.example"),
        request(host="localhost.evil.example"),
        request(host="localhost:1.evil.example"),
        request(host="agent"),
        request(host="127.0.0.1.nip.example:8480"),
        request(host="localhost:1", sec_fetch_site="cross-site"),
        request(host="localhost:1", sec_fetch_site="same-site"),
        request(host="localhost:1", sec_fetch_site="whatever-comes-next"),
        request(host="localhost:1", sec_fetch_site="cross-site", **NAVIGATION),
        request(path=b"/page/", method=b"POST", host="localhost:1", sec_fetch_site="cross-site", **NAVIGATION),
        request(path=b"/page/", host="localhost:1", sec_fetch_site="cross-site", sec_fetch_mode="navigate"),
        request(
            path=b"/page/",
            host="localhost:1",
            sec_fetch_site="cross-site",
            sec_fetch_mode="navigate",
            sec_fetch_dest="iframe",
        ),
        request(host="localhost:1", origin="null"),
        request(host="localhost:1", origin="http://localhost:2"),
        request(host="localhost:1", origin="https://localhost:1"),
        request(origin="http://evil.example"),
        request(TLS, host="agent.example.com", origin="http://agent.example.com"),
        request(TLS, host="agent.example.com", sec_fetch_site="cross-site"),
    ],
    ids=repr,
)
def test_what_somebody_elses_page_sends_is_refused(asked: Request) -> None:
    def never(_request: Request) -> Response:
        raise AssertionError("it must not get here")

    answer = BrowserGuard(never, plain_error)(asked)
    assert isinstance(answer, Response)
    assert answer.head.status == 403


def test_what_is_good_is_handed_on() -> None:
    answer = Response(ResponseHead(200), b"x")
    assert BrowserGuard(lambda _: answer, plain_error)(request()) is answer
