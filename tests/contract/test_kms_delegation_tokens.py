"""Delegation tokens over the wire: Hadoop's answers, every worker and a restart, and what is refused."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_serving import Answer
from kdc import Kdc
from kerberos_kms import PREFIX, KerberosKms, kerberos_site, serving_kerberos
from kms_serving import KmsPlace, call, json_of, remote_exception_of

NAMES = "/kms/v1/keys/names"
TOKEN = "X-Hadoop-Delegation-Token"
AUTHENTICATION = "org.apache.hadoop.security.authentication.client.AuthenticationException"
INVALID = "org.apache.hadoop.security.token.SecretManager$InvalidToken: "


@pytest.fixture(scope="module")
def kerberos(tmp_path_factory: pytest.TempPathFactory, kdc: Kdc) -> Iterator[KerberosKms]:
    with serving_kerberos(tmp_path_factory.mktemp("kms"), kdc) as running:
        yield running


def get_token(kerberos: KerberosKms, user: str, **query: str) -> str:
    answer = kerberos.ask("GET", "/kms/v1/", user=user, query={"op": "GETDELEGATIONTOKEN", **query})
    assert answer.header("Set-Cookie") is None
    assert (answer.header("WWW-Authenticate") or "").startswith("Negotiate ")
    token = json_of(answer)["Token"]["urlString"]
    assert isinstance(token, str)
    return token


def renew(kerberos: KerberosKms, user: str, token: str) -> Answer:
    query = {"op": "RENEWDELEGATIONTOKEN", "token": token}
    return kerberos.ask("PUT", "/kms/v1/", query=query, headers={"Cookie": kerberos.cookie(user)})


def cancel(kerberos: KerberosKms, token: str, user: str | None = None) -> Answer:
    headers = {} if user is None else {"Cookie": kerberos.cookie(user)}
    return kerberos.ask("PUT", "/kms/v1/", query={"op": "CANCELDELEGATIONTOKEN", "token": token}, headers=headers)


def use(kerberos: KerberosKms, token: str, **query: str) -> Answer:
    return kerberos.ask("GET", NAMES, query=query, headers={TOKEN: token})


def use_everywhere(kerberos: KerberosKms, token: str) -> set[int]:
    """The statuses of so many connections that each worker has most probably answered one."""
    return {use(kerberos, token).status for _ in range(8)}


def test_a_token_lives_from_its_issue_to_its_cancel(kerberos: KerberosKms) -> None:
    token = get_token(kerberos, "alice", renewer="yarn/host.example@" + kerberos.kdc.realm.name)
    answer = use(kerberos, token)
    assert (answer.status, answer.header("Set-Cookie"), answer.header("WWW-Authenticate")) == (200, None, None)
    line = kerberos.place.audit_lines()[-1]
    assert (line["user"], line["identity"], line["real_user"]) == ("alice", "token", None)
    assert use_everywhere(kerberos, token) == {200}
    dates = []
    for _ in range(2):
        renewed = renew(kerberos, "yarn", token)
        assert set(json_of(renewed)) == {"long"}
        assert renewed.header("Set-Cookie") is None
        dates.append(json_of(renewed)["long"])
    assert time.time() * 1000 < dates[0] < dates[1]
    cancelled = cancel(kerberos, token)
    assert (cancelled.status, cancelled.body) == (200, b"")
    for _ in range(4):
        assert remote_exception_of(use(kerberos, token)) == (
            403,
            AUTHENTICATION,
            INVALID + "Token for real user: , can't be found in cache",
        )
    again = cancel(kerberos, token)
    assert (again.status, again.reason, again.body) == (404, "Invalid delegation token, cannot cancel", b"")
    refused = renew(kerberos, "yarn", token)
    assert (refused.status, refused.body) == (403, b"")
    assert refused.reason.startswith(INVALID + "Renewal request for unknown token (kms-dt owner=alice, renewer=yarn,")


def test_a_refused_renewal_names_its_cause_in_the_reason_phrase_and_ends_the_session(kerberos: KerberosKms) -> None:
    token = get_token(kerberos, "client", renewer="client1")
    refused = renew(kerberos, "client", token)
    assert (refused.status, refused.body, refused.header("Set-Cookie")) == (403, b"", "hadoop.auth=; HttpOnly")
    assert re.fullmatch(
        r"org\.apache\.hadoop\.security\.AccessControlException: client tries to renew a token \(kms-dt owner=client,"
        r" renewer=client1, realUser=, issueDate=\d+, maxDate=\d+, sequenceNumber=\d+, masterKeyId=\d+\)"
        r" with non-matching renewer client1",
        refused.reason,
    )
    assert renew(kerberos, "client1", token).status == 200


def test_owner_and_renewer_cancel_and_a_stranger_with_a_session_does_not(kerberos: KerberosKms) -> None:
    for user, status in (("mallory", 404), ("alice", 200), ("yarn", 200)):
        token = get_token(kerberos, "alice", renewer="yarn")
        assert cancel(kerberos, token, user).status == status
        assert use(kerberos, token).status == (200 if status == 404 else 403)


def test_options_with_an_operation_only_authenticates(kerberos: KerberosKms) -> None:
    token = get_token(kerberos, "alice", renewer="alice")
    query = {"op": "CANCELDELEGATIONTOKEN", "token": token}
    assert kerberos.ask("OPTIONS", "/kms/v1/", query=query).status == 401
    assert kerberos.ask("OPTIONS", "/kms/v1/", query=query, user="alice").status == 200
    assert use(kerberos, token).status == 200


@pytest.mark.parametrize("op", ["getdelegationtoken", "GetDelegationToken"])
def test_the_operation_is_the_same_in_any_case_and_on_any_path(kerberos: KerberosKms, op: str) -> None:
    for path in ("/kms/v1/", "/kms/v1/keys/names", "/kms/v1"):
        answer = kerberos.ask("GET", path, query={"op": op}, headers={"Cookie": kerberos.cookie("alice")})
        assert set(json_of(answer)) == {"Token"}


def test_a_token_gets_and_renews_no_token(kerberos: KerberosKms) -> None:
    token = get_token(kerberos, "alice", renewer="alice")
    for method, op in (("GET", "GETDELEGATIONTOKEN"), ("PUT", "RENEWDELEGATIONTOKEN")):
        answer = kerberos.ask(method, "/kms/v1/", query={"op": op, "token": token}, headers={TOKEN: token})
        assert (answer.status, answer.body, answer.header("WWW-Authenticate")) == (401, b"", "Negotiate")
        assert answer.header("Set-Cookie") is None


def test_nobody_gets_a_token(kerberos: KerberosKms) -> None:
    for query in ({}, {"user.name": "alice"}):
        answer = kerberos.ask("GET", "/kms/v1/", query={"op": "GETDELEGATIONTOKEN", **query})
        assert (answer.status, answer.header("WWW-Authenticate")) == (401, "Negotiate")


@pytest.mark.parametrize(
    ("method", "query", "words"),
    [
        ("PUT", {"op": "GETDELEGATIONTOKEN"}, "Wrong HTTP method [PUT] for operation [GETDELEGATIONTOKEN]"),
        ("GET", {"op": "CANCELDELEGATIONTOKEN", "token": "x"}, "it should be [PUT]"),
        ("PUT", {"op": "CANCELDELEGATIONTOKEN"}, "requires the parameter [token]"),
    ],
)
def test_a_malformed_operation_is_400(kerberos: KerberosKms, method: str, query: dict[str, str], words: str) -> None:
    answer = kerberos.ask(method, "/kms/v1/", query=query)
    assert answer.status == 400
    assert words in remote_exception_of(answer)[2]


@pytest.mark.parametrize("change", ["flip", "cut", "junk", "empty", "padded"])
def test_a_tampered_token_is_refused(kerberos: KerberosKms, change: str) -> None:
    token = get_token(kerberos, "alice", renewer="alice")
    middle = len(token) // 3
    tampered = {
        "flip": token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :],
        "cut": token[:middle],
        "junk": "junk!",
        "empty": "",
        "padded": token + "AAAA",
    }[change]
    status, java_class, message = remote_exception_of(use(kerberos, tampered))
    assert (status, java_class) == (403, AUTHENTICATION)
    assert message.startswith(INVALID)
    assert token not in message
    assert renew(kerberos, "alice", tampered).status == 403
    assert cancel(kerberos, tampered).status == 404
    assert use(kerberos, token).status == 200


def test_a_bad_token_decides_alone(kerberos: KerberosKms) -> None:
    headers = {TOKEN: "junk", "Authorization": kerberos.negotiate("alice")}
    assert kerberos.ask("GET", NAMES, headers=headers).status == 403


def test_a_token_in_the_query_is_not_looked_at(kerberos: KerberosKms) -> None:
    token = get_token(kerberos, "alice", renewer="alice")
    assert kerberos.ask("GET", NAMES, query={"delegation": token}).status == 401


def test_do_as_means_nothing_beside_a_token(kerberos: KerberosKms) -> None:
    token = get_token(kerberos, "alice", renewer="alice")
    assert use(kerberos, token, doAs="bob").status == 200
    line = kerberos.place.audit_lines()[-1]
    assert (line["user"], line["real_user"]) == ("alice", None)


def test_the_service_of_the_request_stands_in_the_token(kerberos: KerberosKms) -> None:

    token = get_token(kerberos, "alice", renewer="alice", service="kms://http@localhost:1/kms")
    assert base64.urlsafe_b64decode(token + "==").endswith(b"\x06kms-dt\x1akms://http@localhost:1/kms")
    assert use(kerberos, token).status == 200


def test_every_operation_is_in_the_audit_log_and_no_token_is(kerberos: KerberosKms) -> None:
    token = get_token(kerberos, "auditee", renewer="auditee")
    renew(kerberos, "auditee", token)
    cancel(kerberos, token)
    text = json.dumps(kerberos.place.all_audit_lines())
    for op in ("GETDELEGATIONTOKEN", "RENEWDELEGATIONTOKEN", "CANCELDELEGATIONTOKEN"):
        assert op in text
    assert token not in text


def test_tokens_outlive_the_server_and_end_with_their_time(tmp_path: Path, kdc: Kdc) -> None:
    site = {PREFIX + f"delegation-token.{name}.sec": "6" for name in ("max-lifetime", "renew-interval")}
    place = KmsPlace.make(tmp_path, site={**kerberos_site(kdc.keytab("HTTP/localhost")), **site})
    with place.serving(1, environment=kdc.environment) as running:
        first = KerberosKms(running, kdc)
        token = get_token(first, "alice", renewer="alice")
        issued_s = time.monotonic()
        assert use(first, token).status == 200
    with place.serving(1, environment=kdc.environment) as running:
        second = KerberosKms(running, kdc)
        if time.monotonic() < issued_s + 5:
            assert use(second, token).status == 200
        while time.monotonic() < issued_s + 6.1:
            time.sleep(0.05)
        status, _, message = remote_exception_of(use(second, token))
        assert status == 403
        assert re.search(r"has expired, current time: .* expected renewal time: ", message)
        refused = renew(second, "alice", token)
        assert (refused.status, "tried to renew an expired token" in refused.reason) == (403, True)


def test_under_simple_authentication_a_token_is_a_claim_too(tmp_path: Path) -> None:
    with KmsPlace.make(tmp_path).serving(2) as running:
        client = running.one_worker()
        bare = call(client, "GET", "/kms/v1/", user=None, query={"op": "GETDELEGATIONTOKEN"})
        assert (bare.status, bare.reason, bare.body) == (403, "Forbidden", b"")
        assert bare.header("WWW-Authenticate") == "PseudoAuth"
        answer = call(client, "GET", "/kms/v1/", user="alice", query={"op": "GETDELEGATIONTOKEN", "renewer": "bob"})
        assert answer.header("Set-Cookie") is None
        token = json_of(answer)["Token"]["urlString"]
        for each in running.every_worker():
            assert call(each, "GET", NAMES, user=None, headers={TOKEN: token}).status == 200
        line = running.place.audit_lines()[-1]
        assert (line["user"], line["identity"]) == ("alice", "claimed")
        query = {"op": "CANCELDELEGATIONTOKEN", "token": token}
        assert call(client, "PUT", "/kms/v1/", user=None, query=query).status == 200
        for each in running.every_worker():
            assert call(each, "GET", NAMES, user=None, headers={TOKEN: token}).status == 403
