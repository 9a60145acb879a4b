"""One exchange with one node: where it goes, where it does not, and what its errors hold."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from certificates import Certificates
from scripted_http import ScriptedServer, Seen, scripted_server
from vault_settings import make_settings

from ringfence_agent.vault import exchange
from ringfence_agent.vault.exchange import CALL, Patience, SocketWay, TcpWay, VaultRequest
from ringfence_zones.errors import ConfigError, ProtectorUnavailableError
from ringfence_zones.secret import Secret

TOKEN = "s.canary-token-0123456789"
BODY = b'{"plaintext":"canary-plaintext-0123456789"}'
REQUEST = VaultRequest(
    method="POST", path="transit-c1/encrypt/k", body=BODY, token=Secret(TOKEN.encode()), namespace="team1"
)


def everything_in(error: BaseException) -> str:
    """What anybody who gets hold of an exception could print of it, and of all that leads to it."""
    texts, waiting, seen = [], [error], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        texts += [str(one), repr(one), repr(one.args), repr(vars(one))]
        for name in ("request", "response"):
            texts.append(repr(getattr(getattr(one, name, None), "__dict__", "")))
        waiting += [each for each in (one.__cause__, one.__context__) if each is not None]
    return "\n".join(texts)


@pytest.fixture
def elsewhere() -> Iterator[ScriptedServer]:
    """A server that nothing should reach."""
    with scripted_server(lambda _: (200, b'{"data":{"plaintext":"forged"}}')) as server:
        yield server


def way_to(port: int, directory: Path, **fields: object) -> TcpWay:
    address = f"http://127.0.0.1:{port}"
    return TcpWay(address, make_settings(address, directory, **fields))


def test_a_request_carries_vault_s_headers_and_no_others_of_ours(tmp_path: Path) -> None:
    with scripted_server(lambda _: (200, b"{}")) as server:
        way_to(server.port, tmp_path).send(REQUEST, CALL)
    (seen,) = server.seen
    assert (seen.method, seen.target, seen.body) == ("POST", "/v1/transit-c1/encrypt/k", BODY)
    assert seen.headers["x-vault-token"] == TOKEN
    assert seen.headers["x-vault-namespace"] == "team1"
    assert seen.headers["x-vault-request"] == "true"
    assert "authorization" not in seen.headers


def test_parameters_and_a_wrap_ttl_travel_and_nothing_is_sent_that_is_not_said(tmp_path: Path) -> None:
    with scripted_server(lambda _: (200, b"{}")) as server:
        request = VaultRequest(method="LIST", path="kv/metadata/x", params={"version": "3"}, wrap_ttl_s=60)
        way_to(server.port, tmp_path).send(request, CALL)
    (seen,) = server.seen
    assert (seen.method, seen.target) == ("LIST", "/v1/kv/metadata/x?version=3")
    assert seen.headers["x-vault-wrap-ttl"] == "60s"
    assert not {"x-vault-token", "x-vault-namespace", "content-type"} & seen.headers.keys()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status: int, elsewhere: ScriptedServer, tmp_path: Path) -> None:
    location = {"Location": f"http://127.0.0.1:{elsewhere.port}/v1/transit-c1/encrypt/k"}
    with scripted_server(lambda _: (status, b"", location)) as server:
        assert way_to(server.port, tmp_path).send(REQUEST, CALL).status == status
    assert elsewhere.seen == []


def test_nothing_of_the_environment_counts(
    elsewhere: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = f"http://127.0.0.1:{elsewhere.port}"
    for name in ("http_proxy", "https_proxy", "all_proxy", "VAULT_ADDR", "VAULT_PROXY_ADDR"):
        monkeypatch.setenv(name, proxy)
        monkeypatch.setenv(name.upper(), proxy)
    monkeypatch.setenv("VAULT_TOKEN", "s.somebody-else-s")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with scripted_server(lambda _: (200, b"{}")) as server:
        way_to(server.port, tmp_path).send(VaultRequest(method="GET", path="sys/mounts"), CALL)
    (seen,) = server.seen
    assert not {"authorization", "x-vault-token"} & seen.headers.keys()
    assert elsewhere.seen == []


def test_no_cookie_is_kept(tmp_path: Path) -> None:
    with scripted_server(lambda _: (200, b"{}", {"Set-Cookie": "a=b"})) as server:
        way = way_to(server.port, tmp_path)
        way.send(REQUEST, CALL)
        way.send(REQUEST, CALL)
    assert all("cookie" not in seen.headers for seen in server.seen)


def test_a_connection_that_is_refused_changed_nothing(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ProtectorUnavailableError, match="connection refused") as caught:
            way_to(unused.getsockname()[1], tmp_path).send(REQUEST, CALL)
    assert not caught.value.may_have_changed


def test_a_connection_that_breaks_off_may_have_changed_something_and_its_error_holds_nothing(tmp_path: Path) -> None:
    with scripted_server(lambda _: None) as server:
        with pytest.raises(ProtectorUnavailableError) as caught:
            way_to(server.port, tmp_path).send(REQUEST, CALL)
        assert caught.value.may_have_changed
    text = everything_in(caught.value)
    assert "canary" not in text
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_the_scan_would_find_a_token() -> None:
    careless = ProtectorUnavailableError("it broke")
    prepared = requests.Request("GET", "http://localhost", headers=REQUEST.headers).prepare()
    careless.__context__ = requests.ConnectionError("broken", request=prepared)
    assert TOKEN in everything_in(careless)


def test_neither_request_nor_answer_shows_what_it_holds(tmp_path: Path) -> None:
    with scripted_server(lambda _: (400, BODY)) as server:
        answer = way_to(server.port, tmp_path).send(REQUEST, CALL)
    assert "canary" not in repr(REQUEST) + repr(answer) + str(REQUEST)


def test_an_answer_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_MAX_ANSWER_BYTES", 1000)
    with (
        scripted_server(lambda _: (200, b"x" * 1001)) as server,
        pytest.raises(ProtectorUnavailableError, match="more than 1000"),
    ):
        way_to(server.port, tmp_path).send(REQUEST, CALL)


def test_half_an_answer_is_none(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer_half() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"data":{}}')

    thread = threading.Thread(target=answer_half)
    thread.start()
    try:
        with pytest.raises(ProtectorUnavailableError, match="broke off") as caught:
            way_to(listener.getsockname()[1], tmp_path).send(REQUEST, CALL)
        assert caught.value.may_have_changed
    finally:
        thread.join()
        listener.close()


def test_an_answer_that_drips_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not done.wait(0.05):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        began = time.monotonic()
        with pytest.raises(ProtectorUnavailableError, match="no answer in time"):
            way_to(listener.getsockname()[1], tmp_path).send(REQUEST, Patience(1.0, 1.0, 0.3))
        assert time.monotonic() - began < 2
    finally:
        done.set()
        thread.join()
        listener.close()


def test_a_private_authority_is_trusted_and_no_other(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.certificate, certificates.server.key)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    with scripted_server(lambda _: (200, b"{}"), tls=context) as server:
        address = f"https://localhost:{server.port}"
        trusting = make_settings(address, tmp_path, ca_file=certificates.trusted)
        assert TcpWay(address, trusting).send(REQUEST, CALL).status == 200
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.trusted))
        with pytest.raises(ProtectorUnavailableError, match="certificate is not trusted") as caught:
            TcpWay(address, make_settings(address, tmp_path)).send(REQUEST, CALL)
    assert not caught.value.may_have_changed
    assert "vault.ca_file" in (caught.value.hint or "")
    assert len(server.seen) == 1


def test_a_ca_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    settings = make_settings("https://localhost:1", tmp_path, ca_file=tmp_path / "ca.pem")
    with pytest.raises(ConfigError, match=r"vault\.ca_file"):
        TcpWay("https://localhost:1", settings)


def test_an_agent_s_socket_is_spoken_to_without_a_token(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"

    def script(seen: Seen) -> tuple[int, bytes, dict[str, str]]:
        return 429, seen.target.encode(), {"Retry-After": "7"}

    with scripted_server(script, unix_socket=path) as server:
        request = VaultRequest(method="LIST", path="kv/metadata/a b", params={"version": "3"})
        answer = SocketWay(path).send(request, CALL)
    assert (answer.status, answer.body, answer.retry_after_s) == (429, b"/v1/kv/metadata/a%20b?version=3", 7.0)
    (seen,) = server.seen
    assert seen.headers["x-vault-request"] == "true"
    assert "x-vault-token" not in seen.headers


def test_an_agent_that_is_not_there_changed_nothing_and_one_that_breaks_off_may_have(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with pytest.raises(ProtectorUnavailableError) as caught:
        SocketWay(path).send(REQUEST, CALL)
    assert not caught.value.may_have_changed
    with scripted_server(lambda _: None, unix_socket=path), pytest.raises(ProtectorUnavailableError) as caught:
        SocketWay(path).send(REQUEST, CALL)
    assert caught.value.may_have_changed
    assert "canary" not in everything_in(caught.value)
