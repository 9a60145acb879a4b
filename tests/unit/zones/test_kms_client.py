"""What the KMS client makes of failures; what it makes of real servers is tested against those."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from scripted_http import Answer, Script, Seen, scripted_server

from ringfence_zones.errors import (
    AuthenticationError,
    ConfigError,
    KeyExistsError,
    KeyNotFoundError,
    KmsError,
    KmsRemoteError,
    KmsUnavailableError,
)
from ringfence_zones.kms_client import KmsClient

METADATA = {
    "name": "k",
    "cipher": "AES/CTR/NoPadding",
    "length": 256,
    "description": None,
    "attributes": {},
    "created": 1_700_000_000_000,
    "versions": 1,
}


def as_json(value: object, status: int = 200) -> Answer:
    return status, json.dumps(value).encode()


def remote_exception(status: int, java_class: str, message: str) -> Answer:
    return as_json(
        {
            "RemoteException": {
                "message": message,
                "exception": java_class.rpartition(".")[2],
                "javaClassName": java_class,
            }
        },
        status,
    )


def client_of(port: int, hosts: str = "127.0.0.1", read_timeout_s: float = 10) -> KmsClient:
    return KmsClient(f"kms://http@{hosts}:{port}/kms", "etl", read_timeout_s=read_timeout_s)


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_every_request_carries_the_user_and_keeps_no_cookie() -> None:
    with scripted_server(lambda _: as_json({})) as server:
        client = client_of(server.port)
        assert client.find_key("a/b c") is None
        client.find_key("x")
    assert [seen.target for seen in server.seen] == [
        "/kms/v1/key/a%2Fb%20c/_metadata?user.name=etl",
        "/kms/v1/key/x/_metadata?user.name=etl",
    ]
    assert all("cookie" not in seen.headers for seen in server.seen)


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_port()}")
    with scripted_server(lambda _: as_json(["b", "a"])) as server:
        assert client_of(server.port).list_key_names() == ("a", "b")


def test_many_keys_are_asked_for_in_few_requests_and_missing_ones_left_out() -> None:
    def script(seen: Seen) -> Answer:
        names = [part.removeprefix("key=") for part in seen.target.partition("?")[2].split("&") if "key=" in part]
        return as_json([{**METADATA, "name": name} if name != "k7" else {} for name in names])

    with scripted_server(script) as server:
        found = client_of(server.port).find_keys([f"k{number}" for number in range(300)])
    assert len(found) == 299
    assert "k7" not in found
    assert len(server.seen) <= 4
    assert all(len(seen.target) < 2000 for seen in server.seen)


@pytest.mark.parametrize(
    ("answer", "error_class", "words"),
    [
        ((401, b"<html>Authentication required</html>"), AuthenticationError, "Kerberos"),
        (
            remote_exception(
                403, "org.apache.hadoop.security.authorize.AuthorizationException", "User:etl not allowed"
            ),
            KmsRemoteError,
            "User:etl not allowed",
        ),
        ((404, b"<html>Jetty</html>"), KmsRemoteError, "HTTP status 404"),
        ((302, b""), KmsRemoteError, "HTTP status 302"),
        (remote_exception(503, "org.apache.hadoop.ipc.RetriableException", "sealed"), KmsUnavailableError, "sealed"),
        ((200, b"<html>some other server</html>"), KmsError, "not its protocol"),
        (remote_exception(500, "java.io.IOException", "first line\nsecond line"), KmsRemoteError, "first line"),
    ],
)
def test_each_kind_of_answer_becomes_its_error(answer: Answer, error_class: type, words: str) -> None:
    with scripted_server(lambda _: answer) as server, pytest.raises(error_class) as caught:
        client_of(server.port).list_key_names()
    assert type(caught.value) is error_class
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_kms_that_says_not_now_is_not_sent_for_as_one_that_is_away() -> None:
    answer = remote_exception(503, "org.apache.hadoop.ipc.RetriableException", "Vault is sealed")
    with scripted_server(lambda _: answer) as server, pytest.raises(KmsUnavailableError) as caught:
        client_of(server.port).list_key_names()
    assert str(caught.value).endswith("cannot do that now: Vault is sealed")
    assert "ringfence kms status" in str(caught.value.hint)
    assert "core-site.xml" not in str(caught.value.hint)


def test_status_and_java_class_stay_attributes() -> None:
    answer = remote_exception(403, "org.apache.hadoop.security.authorize.AuthorizationException", "no")
    with scripted_server(lambda _: answer) as server, pytest.raises(KmsRemoteError) as caught:
        client_of(server.port).list_key_names()
    assert caught.value.status == 403
    assert caught.value.java_class == "org.apache.hadoop.security.authorize.AuthorizationException"


def refusing_create(exists: bool) -> Script:
    def script(seen: Seen) -> Answer:
        if seen.method == "POST":
            return remote_exception(500, "java.io.IOException", "whatever the KMS says")
        return as_json(METADATA if exists else {})

    return script


def test_a_create_refused_because_the_key_is_there_is_told_from_one_refused_otherwise() -> None:
    with scripted_server(refusing_create(exists=True)) as server, pytest.raises(KeyExistsError):
        client_of(server.port).create_key("k", 256)
    with scripted_server(refusing_create(exists=False)) as server, pytest.raises(KmsRemoteError, match="whatever"):
        client_of(server.port).create_key("k", 256)


def test_rolling_and_deleting_a_key_that_is_not_there_says_so() -> None:
    with scripted_server(refusing_create(exists=False)) as server, pytest.raises(KeyNotFoundError):
        client_of(server.port).roll_key("k")


def test_get_is_probed_without_asking_for_the_material() -> None:
    with scripted_server(lambda seen: (403 if "closed" in seen.target else 200, b"")) as server:
        client = client_of(server.port)
        assert client.is_get_open("open")
        assert not client.is_get_open("closed")
    assert {seen.method for seen in server.seen} == {"HEAD"}


def test_a_read_goes_to_the_next_instance_and_stays_there() -> None:
    # One port on two loopback addresses: only the second listens.
    with scripted_server(lambda _: as_json(["k"])) as server:
        client = client_of(server.port, "127.0.0.2;127.0.0.1")
        assert client.list_key_names() == ("k",)
        assert client.list_key_names() == ("k",)
    assert len(server.seen) == 2


def test_a_change_that_never_left_goes_to_the_next_instance() -> None:
    with scripted_server(lambda _: as_json({"name": "k", "versionName": "k@0", "material": None}, 201)) as server:
        client_of(server.port, "127.0.0.2;127.0.0.1").create_key("k", 128)
    assert [json.loads(seen.body)["length"] for seen in server.seen] == [128]


def test_a_change_whose_answer_is_lost_is_not_sent_again() -> None:
    with scripted_server(lambda _: None) as server, pytest.raises(KmsUnavailableError):
        client_of(server.port, "127.0.0.1;localhost").create_key("k", 128)
    assert [seen.method for seen in server.seen] == ["POST"]


def test_a_read_whose_connection_broke_is_repeated() -> None:
    answers: list[Answer] = [None, as_json(["k"])]
    with scripted_server(lambda _: answers.pop(0)) as server:
        assert client_of(server.port).list_key_names() == ("k",)


def test_a_kms_that_hangs_is_unavailable_after_the_timeout() -> None:
    release = threading.Event()

    def script(_seen: Seen) -> Answer:
        release.wait(30)
        return None

    with scripted_server(script) as server:
        try:
            with pytest.raises(KmsUnavailableError, match="timed out"):
                client_of(server.port, read_timeout_s=0.2).list_key_names()
        finally:
            release.set()


def test_a_kms_that_is_down_is_unavailable_and_the_hint_names_the_property() -> None:
    with pytest.raises(KmsUnavailableError, match="connection refused") as caught:
        client_of(unused_port()).list_key_names()
    assert "hadoop.security.key.provider.path" in (caught.value.hint or "")


def test_an_unknown_host_is_named_as_such() -> None:
    with pytest.raises(KmsUnavailableError, match="unknown host"):
        KmsClient("kms://http@kms.invalid:9600/kms", "etl").list_key_names()


def test_plain_http_where_tls_is_expected_says_tls() -> None:
    with scripted_server(lambda _: None) as server, pytest.raises(KmsUnavailableError, match="TLS"):
        KmsClient(f"kms://https@127.0.0.1:{server.port}/kms", "etl").list_key_names()


def test_an_address_that_is_no_kms_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ConfigError):
        KmsClient("http://localhost:9600/kms", "etl")


@pytest.mark.parametrize(
    ("answer", "revision"),
    [
        (as_json({"product": "ringfence", "version": "0.1.0", "revision": 3, "digest": "ab"}), 3),
        (as_json({"product": "another"}), None),
        (as_json(["x"]), None),
        ((404, b"<html>"), None),
        ((200, b"<html>"), None),
    ],
)
def test_only_ringfences_own_status_makes_it_ringfence(answer: Answer, revision: int | None) -> None:
    with scripted_server(lambda _: answer) as server:
        status = client_of(server.port).find_ringfence_status()
    assert (status.revision if status else None) == revision
    assert server.seen[0].target.startswith("/ringfence/v1/status?")
