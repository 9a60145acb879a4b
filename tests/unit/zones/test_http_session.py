"""What a session sends to prove itself, against servers that accept with Kerberos's own library."""

from __future__ import annotations

import base64
import functools
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from certificates import Certificates
from kdc import Kdc
from scripted_http import Answer, Seen, scripted_server

from ringfence_zones.errors import AuthenticationError, ConfigError
from ringfence_zones.gssapi import Acceptor
from ringfence_zones.http_session import DaemonSession, HttpAccess, HttpAnswer
from ringfence_zones.kerberos import KerberosLogin
from ringfence_zones.tls_trust import TlsTrust

COOKIE = 'hadoop.auth="u=session&p=session@R&t=kerberos&e=1&s=x="; Path=/; HttpOnly'


@pytest.fixture
def accept(kdc: Kdc, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Seen], Answer]]:
    """A server's script: 401 without a token or the cookie, else 200 with a proof of its own and the cookie."""
    monkeypatch.setenv("KRB5_CONFIG", kdc.environment["KRB5_CONFIG"])
    acceptor = Acceptor(kdc.keytab("HTTP/localhost"))

    def script(seen: Seen) -> Answer:
        if seen.headers.get("cookie", "").startswith("hadoop.auth="):
            return 200, b"by cookie"
        scheme, _, token = seen.headers.get("authorization", "").partition(" ")
        if scheme != "Negotiate":
            return 401, b"", {"WWW-Authenticate": "Negotiate"}
        accepted = acceptor.accept(base64.b64decode(token))
        proof = f"Negotiate {base64.b64encode(accepted.token).decode()}"
        return 200, accepted.principal.encode(), {"WWW-Authenticate": proof, "Set-Cookie": COOKIE}

    yield script
    acceptor.close()


def login_of(kdc: Kdc, name: str) -> KerberosLogin:
    return KerberosLogin(kdc.principal(name), kdc.keytab(name))


def ask(session: DaemonSession, port: int, method: str = "GET", scheme: str = "http") -> HttpAnswer:
    return session.exchange(method, f"{scheme}://localhost:{port}/x", timeout=(10, 10), max_bytes=1000)


def test_the_first_request_carries_a_token_and_later_ones_the_cookie(
    kdc: Kdc, accept: Callable[[Seen], Answer]
) -> None:
    with scripted_server(accept) as server:
        session = DaemonSession(HttpAccess(login_of(kdc, "session")))
        assert ask(session, server.port).body == b"session@RINGFENCE.TEST"
        assert ask(session, server.port).body == b"by cookie"
    assert len(server.seen) == 2
    assert "cookie" not in server.seen[0].headers
    assert "authorization" not in server.seen[1].headers


def test_a_ticket_cache_proves_as_a_keytab_does(
    kdc: Kdc, accept: Callable[[Seen], Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRB5CCNAME", kdc.kinit("session")["KRB5CCNAME"])
    with scripted_server(accept) as server:
        assert ask(DaemonSession(HttpAccess(KerberosLogin())), server.port).body == b"session@RINGFENCE.TEST"


def test_a_cookie_that_is_not_taken_any_more_is_replaced_without_losing_the_request(
    kdc: Kdc, accept: Callable[[Seen], Answer]
) -> None:
    restarted = False

    def script(seen: Seen) -> Answer:
        if restarted and "cookie" in seen.headers:
            return 401, b"", {"WWW-Authenticate": "Negotiate", "Set-Cookie": "hadoop.auth=; HttpOnly"}
        return accept(seen)

    with scripted_server(script) as server:
        session = DaemonSession(HttpAccess(login_of(kdc, "session")))
        ask(session, server.port)
        restarted = True
        assert ask(session, server.port, "POST").body == b"session@RINGFENCE.TEST"
    assert [seen.method for seen in server.seen] == ["GET", "POST", "POST"]


def test_a_server_that_does_not_prove_itself_is_not_believed(kdc: Kdc, accept: Callable[[Seen], Answer]) -> None:
    for headers in ({}, {"WWW-Authenticate": "Negotiate AAAA"}):
        script = functools.partial(lambda headers, _seen: (200, b"trust me", headers), headers)
        with scripted_server(script) as server, pytest.raises(AuthenticationError):
            ask(DaemonSession(HttpAccess(login_of(kdc, "session"))), server.port)


def test_a_refused_ticket_is_an_error_and_no_name_is_tried_instead(kdc: Kdc, accept: Callable[[Seen], Answer]) -> None:
    with (
        scripted_server(lambda _seen: (401, b"", {"WWW-Authenticate": "Negotiate"})) as server,
        pytest.raises(AuthenticationError, match="does not accept this Kerberos ticket") as caught,
    ):
        ask(DaemonSession(HttpAccess(login_of(kdc, "session"))), server.port)
    assert len(server.seen) == 1
    assert "user.name" not in server.seen[0].target
    assert (caught.value.command or "").startswith("kinit -k -t ")


def test_no_ticket_and_no_service_are_told_apart_from_a_refusal(
    kdc: Kdc, accept: Callable[[Seen], Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/none")
    with scripted_server(accept) as server:
        with pytest.raises(AuthenticationError, match="there is no valid ticket here") as caught:
            ask(DaemonSession(HttpAccess(KerberosLogin())), server.port)
        assert caught.value.command == "kinit"
        with pytest.raises(ConfigError, match="cannot read the keytab"):
            ask(DaemonSession(HttpAccess(KerberosLogin("session", tmp_path / "none.keytab"))), server.port)
    assert server.seen == []


def test_without_kerberos_neither_token_nor_cookie_travels(accept: Callable[[Seen], Answer]) -> None:
    with scripted_server(lambda _seen: (200, b"", {"Set-Cookie": COOKIE})) as server:
        session = DaemonSession()
        ask(session, server.port)
        ask(session, server.port)
    assert all(not seen.headers.keys() & {"cookie", "authorization"} for seen in server.seen)


def test_a_cookie_goes_to_the_server_that_gave_it_alone(kdc: Kdc, accept: Callable[[Seen], Answer]) -> None:
    with scripted_server(accept) as one, scripted_server(accept) as other:
        session = DaemonSession(HttpAccess(login_of(kdc, "session")))
        ask(session, one.port)
        ask(session, other.port)
    assert "cookie" not in other.seen[0].headers


def test_only_certificates_of_the_named_authority_are_trusted(certificates: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.certificate, certificates.server.key)
    with scripted_server(lambda _seen: (200, b"safe"), tls=context) as server:
        trusting = DaemonSession(HttpAccess(trust=TlsTrust(ca_file=certificates.trusted)))
        assert ask(trusting, server.port, scheme="https").body == b"safe"
        with pytest.raises(requests.exceptions.SSLError):
            ask(DaemonSession(), server.port, scheme="https")
    assert len(server.seen) == 1
