"""Simple authentication over the wire: the OPTIONS handshake, cookies that every worker accepts, `user.name` alone."""

from __future__ import annotations

import itertools
import time

import pytest
from http_serving import Answer, RawClient
from kms_serving import KmsPlace, RunningKms, call, json_of, remote_exception_of

_numbers = itertools.count()


def cookie_of(answer: Answer) -> str:
    header = answer.header("Set-Cookie")
    assert header is not None and header.startswith('hadoop.auth="') and header.endswith('"; HttpOnly'), header
    return header.removesuffix("; HttpOnly")


def handshake(client: RawClient, user: str, path: str = "/kms/v1/") -> str:
    answer = call(client, "OPTIONS", path, user=user)
    assert answer.status == 200
    return cookie_of(answer)


@pytest.mark.parametrize("path", ["/kms/v1/keys/names", "/kms/v1/", "/kms/v1/key/x/_eek", "/kms/v1/unknown", "/x"])
def test_the_java_handshake_in_three_steps(kms: RunningKms, path: str) -> None:
    client = kms.one_worker()
    first = call(client, "OPTIONS", path, user=None, query={"op": "GETDELEGATIONTOKEN"})
    assert (first.status, first.reason, first.body) == (401, "Authentication required", b"")
    assert first.header("WWW-Authenticate") == "PseudoAuth"
    assert first.header("Set-Cookie") == "hadoop.auth=; HttpOnly"
    cookie = handshake(client, "alice", path)
    fields = dict(field.partition("=")[::2] for field in cookie.removeprefix('hadoop.auth="').rstrip('"').split("&"))
    assert set(fields) == {"u", "p", "t", "e", "s"}
    assert (fields["u"], fields["p"], fields["t"]) == ("alice", "alice", "simple-dt")
    answer = call(client, "GET", "/kms/v1/keys/names", user=None, headers={"Cookie": cookie})
    assert answer.status == 200
    assert answer.header("Set-Cookie") is None


def test_a_cookie_of_one_worker_is_good_at_every_other(kms: RunningKms) -> None:
    for client in kms.every_worker():
        user = f"wanderer{next(_numbers)}"
        cookie = handshake(client, user)
        for other in kms.every_worker():
            answer = call(other, "GET", "/kms/v1/keys/names", user=None, headers={"Cookie": cookie})
            assert answer.status == 200
        names = [line["user"] for line in kms.place.audit_lines()]
        assert names.count(user) == kms.workers


def test_a_request_without_credentials_is_401_without_json(kms: RunningKms) -> None:
    for method, path in (("GET", "/kms/v1/keys/names"), ("POST", "/kms/v1/keys"), ("GET", "/ringfence/v1/status")):
        answer = call(kms.one_worker(), method, path, user=None)
        assert (answer.status, answer.reason, answer.body) == (401, "Authentication required", b"")
        assert answer.header("WWW-Authenticate") == "PseudoAuth"
        assert answer.header("Set-Cookie") == "hadoop.auth=; HttpOnly"
        assert answer.header("Content-Type") is None


def test_an_empty_user_name_is_nobody(kms: RunningKms) -> None:
    assert call(kms.one_worker(), "GET", "/kms/v1/keys/names", user="").status == 401


@pytest.mark.parametrize("user", ["a&b=c", 'a"b', "a;b", "a\r\nX-Injected: 1", "jörg", "x" * 300])
def test_a_user_name_that_cannot_stand_in_a_cookie_is_nobody(kms: RunningKms, user: str) -> None:
    answer = call(kms.one_worker(), "GET", "/kms/v1/keys/names", user=user)
    assert answer.status == 401
    assert answer.header("X-Injected") is None


def test_a_tampered_cookie_is_401_with_hadoops_reason(kms: RunningKms) -> None:
    client = kms.one_worker()
    forged = handshake(client, "alice").replace("alice", "admin")
    answer = call(client, "GET", "/kms/v1/keys/names", user=None, headers={"Cookie": forged})
    assert answer.status == 401
    assert answer.reason == "org.apache.hadoop.security.authentication.util.SignerException: Invalid signature"
    assert answer.header("Set-Cookie") == "hadoop.auth=; HttpOnly"


def test_a_bad_cookie_is_ignored_when_user_name_is_there(kms: RunningKms) -> None:
    client = kms.one_worker()
    for bad in ("hadoop.auth=junk", handshake(client, "alice").replace("alice", "admin"), "other=1"):
        answer = call(client, "GET", "/kms/v1/keys/names", user="bob", headers={"Cookie": bad})
        assert answer.status == 200
        assert "u=bob&" in cookie_of(answer)


def test_a_valid_cookie_wins_over_user_name(kms: RunningKms) -> None:
    client, user = kms.one_worker(), f"owner{next(_numbers)}"
    cookie = handshake(client, user)
    call(client, "GET", "/kms/v1/keys/names", user="bob", headers={"Cookie": cookie})
    assert kms.place.audit_lines()[-1]["user"] == user


def test_a_first_request_with_user_name_gets_a_cookie_even_when_it_is_refused(kms: RunningKms) -> None:
    client = kms.one_worker()
    answer = call(client, "POST", "/kms/v1/key/absent", b"{}", user="carol")
    assert answer.status == 500
    assert "u=carol&" in cookie_of(answer)


def test_impersonation_is_refused_with_the_callers_own_session(kms: RunningKms) -> None:
    client = kms.one_worker()
    for method in ("OPTIONS", "GET"):
        answer = call(client, method, "/kms/v1/keys/names", user="client", query={"doAs": "foo1"})
        assert answer.reason == "Forbidden"
        assert remote_exception_of(answer) == (
            403,
            "org.apache.hadoop.security.authorize.AuthorizationException",
            "User: client is not allowed to impersonate foo1",
        )
        again = call(
            client,
            method,
            "/kms/v1/keys/names",
            user="client",
            query={"DOAS": "foo1"},
            headers={"Cookie": cookie_of(answer)},
        )
        assert (again.status, again.reason) == (403, "Forbidden")


def test_sessions_live_as_long_as_configured_and_outlive_the_server(place: KmsPlace, workers: int) -> None:
    with place.serving(workers) as kms:
        cookie = handshake(kms.one_worker(), "alice")
        expires_ms = int(cookie.partition("&e=")[2].partition("&")[0])
        now_ms = time.time() * 1000
        assert abs(expires_ms - now_ms - 7_000_000) < 60_000
    with place.serving(workers) as kms:
        answer = call(kms.one_worker(), "GET", "/kms/v1/keys/names", user=None, headers={"Cookie": cookie})
        assert answer.status == 200


def test_a_cookie_of_another_key_store_is_401(kms: RunningKms, place: KmsPlace) -> None:
    with place.serving(1) as other:
        cookie = handshake(other.one_worker(), "alice")
    answer = call(kms.one_worker(), "GET", "/kms/v1/keys/names", user=None, headers={"Cookie": cookie})
    assert (answer.status, answer.reason.endswith("SignerException: Invalid signature")) == (401, True)


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> KmsPlace:
    site = {"hadoop.kms.authentication.token.validity": "7000"}
    return KmsPlace.make(tmp_path_factory.mktemp("kms"), site=site)


def test_every_json_answer_forbids_caching(kms: RunningKms) -> None:
    answer = call(kms.one_worker(), "GET", "/kms/v1/keys/names")
    assert isinstance(json_of(answer), list)
    assert "no-store" in (answer.header("Cache-Control") or "")
    assert answer.header("X-Content-Type-Options") == "nosniff"
