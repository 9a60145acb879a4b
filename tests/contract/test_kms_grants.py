"""Grants through the real server: one session past the flow rules, for its time, on every worker, and on record."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flow_kms import ENFORCE, SHADOW, force, new_eek, new_eeks, old_eek, open_eek, records, refusal, serving
from http_serving import Answer, RawClient
from kms_serving import DEADLINE_S, RunningKms, call, json_of, remote_exception_of

from ringfence_zones.client_config import ClientConfig
from ringfence_zones.errors import GrantNotFoundError, KmsRemoteError
from ringfence_zones.grants import Grant, GrantRequest
from ringfence_zones.kms_admin import AdminClient, open_admin_client
from ringfence_zones.kms_uri import parse_kms_uri

PATH = "/ringfence/v1/grants"
HERE = "127.0.0.1"


def request(**changes: Any) -> GrantRequest:
    asked = GrantRequest(
        user="alice",
        source="/data/pii",
        target="/data/masked",
        lifetime_s=600,
        purpose="transfer t-1",
        approver="carol",
        address=HERE,
    )
    return replace(asked, **changes)


def admin_of(kms: RunningKms) -> AdminClient:
    config = ClientConfig(kms_admin_socket=kms.place.admin_socket)
    return open_admin_client(config, parse_kms_uri("kms://http@localhost:9600/kms"))


@pytest.fixture
def kms(tmp_path: Path) -> Iterator[RunningKms]:
    with serving(tmp_path, 3) as running:
        force(running, ENFORCE)
        yield running


def connections(kms: RunningKms) -> list[RawClient]:
    """One to each worker, from 127.0.0.1."""
    assert {client.socket.getpeername()[0] for client in kms.every_worker()} <= {HERE, "::1"}
    return kms.every_worker()


def address_of(kms: RunningKms) -> str:
    """Where this test's requests come from, as the server sees it."""
    return str(kms.one_worker().socket.getsockname()[0])


def copy(client: RawClient, user: str = "alice", source: str = "pii", target: str = "masked") -> tuple[Answer, Answer]:
    """As `fs -cp` opens them."""
    return open_eek(client, old_eek(client, source), user), open_eek(client, new_eek(client, target), user)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def grants_of(kms: RunningKms, op: str) -> list[dict[str, Any]]:
    return [line for line in kms.place.audit_lines() if line["op"] == op]


def test_a_grant_admits_its_session_on_every_worker_and_nobody_else(kms: RunningKms) -> None:
    workers, admin = kms.every_worker(), admin_of(kms)
    refusal(copy(workers[0], "bob")[1])
    grant = admin.create_grant(request(address=address_of(kms)))
    for worker in workers:
        read, written = copy(worker)
        assert (read.status, written.status) == (200, 200), written.body
        # Nor is it a grant for bob, for the other direction, or into a third zone.
        refusal(copy(worker, "bob")[1])
        refusal(open_eek(worker, new_eek(worker, "third")))
        assert open_eek(worker, old_eek(worker, "masked")).status == 200
        refusal(open_eek(worker, new_eek(worker, "pii")))
    used = [line for line in records(kms) if line.get("grants")]
    assert {line["slot"] for line in used} == {0, 1, 2}
    assert all(line["grants"] == [grant.id] and line["outcome"] == "ok" for line in used)
    assert not any(line.get("grants") for line in records(kms, "bob"))


def test_the_target_may_be_opened_first(kms: RunningKms) -> None:
    worker = kms.one_worker()
    admin_of(kms).create_grant(request(address=address_of(kms)))
    for eek in (new_eek(worker, "masked"), old_eek(worker, "pii")):
        assert open_eek(worker, eek).status == 200


def test_ended_it_admits_nothing_more_within_the_bound_on_every_worker(tmp_path: Path) -> None:
    (tmp_path / "kms.yaml").write_text(
        f"revocation_bound: 2s\nadmin: {{socket: {tmp_path}/k.db.sock}}\n"
        f"audit: {{directory: {tmp_path}/k.db.audit.d}}\n"
    )
    with serving(tmp_path, 3, "--config", str(tmp_path / "kms.yaml")) as kms:
        force(kms, ENFORCE)
        admin, workers = admin_of(kms), kms.every_worker()
        grant = admin.create_grant(request(address=address_of(kms)))
        sources = new_eeks(workers[0], "pii", 4)
        for eek in sources:
            assert open_eek(workers[0], eek, "masker").status == 200
        for worker in workers:
            assert open_eek(worker, sources[0]).status == 200
            assert open_eek(worker, new_eek(worker, "masked")).status == 200
        ended = admin.end_grant(grant.id)
        assert (ended.ended_by, admin.end_grant(grant.id)) == ("deleted", ended)
        ended_s = time.monotonic()
        for worker in workers:
            # What it wrote into is what it may not read for any more, and the other way round.
            wait_for(lambda w=worker: open_eek(w, sources[0]).status == 403, "the source")  # type: ignore[misc]
            wait_for(lambda w=worker: open_eek(w, new_eek(w, "masked")).status == 403, "the target")  # type: ignore[misc]
        assert time.monotonic() - ended_s < 2.0 + 10.0


def test_a_grant_of_a_token_is_for_that_token_and_ends_with_it(kms: RunningKms) -> None:
    worker, admin = kms.one_worker(), admin_of(kms)

    def issue() -> tuple[str, int]:
        query = {"op": "GETDELEGATIONTOKEN", "renewer": "yarn"}
        text = json_of(call(worker, "GET", "/kms/v1/", user="alice", query=query))["Token"]["urlString"]
        header = {"X-Hadoop-Delegation-Token": text}
        assert open_eek(worker, old_eek(worker, "third"), user=None, headers=header).status == 200
        (line,) = [each for each in kms.place.audit_lines() if each["op"] == "DECRYPT_EEK" and each.get("token")][-1:]
        return text, int(line["token"])

    (mine, number), (other, _) = issue(), issue()
    grant = admin.create_grant(request(token=number, address=None, source="/data/third"))
    for text, status in ((mine, 200), (other, 403)):
        header = {"X-Hadoop-Delegation-Token": text}
        assert open_eek(worker, new_eek(worker, "masked"), user=None, headers=header).status == status
    cancel = {"op": "CANCELDELEGATIONTOKEN", "token": mine}
    assert call(worker, "PUT", "/kms/v1/", user="alice", query=cancel).status == 200
    wait_for(lambda: by_id(admin, grant).ended_by == "token", "the end of the grant")
    wait_for(lambda: bool(grants_of(kms, "END_GRANT")), "its record")
    (line,) = grants_of(kms, "END_GRANT")
    assert (line["grant"], line["rule"], line["user"]) == (grant.id, "grant:token", None)
    with pytest.raises(KmsRemoteError, match="no delegation token"):
        admin.create_grant(request(token=number, address=None))


def by_id(admin: AdminClient, grant: Grant) -> Grant:
    return next(each for each in admin.list_grants() if each.id == grant.id)


def test_it_ends_by_its_time_and_one_worker_puts_that_on_record(kms: RunningKms) -> None:
    admin, worker = admin_of(kms), kms.one_worker()
    grant = admin.create_grant(request(address=address_of(kms), lifetime_s=8))
    assert copy(worker)[1].status == 200
    wait_for(lambda: open_eek(worker, new_eek(worker, "masked")).status == 403, "its time")
    assert time.time() * 1000 >= grant.not_after_ms
    assert (by_id(admin, grant).ended_by, by_id(admin, grant).ended_ms is None) == ("time", False)
    wait_for(lambda: bool(grants_of(kms, "END_GRANT")), "its record")
    (line,) = grants_of(kms, "END_GRANT")
    assert (line["grant"], line["rule"], line["grant_purpose"]) == (grant.id, "grant:time", "transfer t-1")


def test_it_outlives_the_server(tmp_path: Path) -> None:
    with serving(tmp_path, 1) as kms:
        force(kms, ENFORCE)
        grant = admin_of(kms).create_grant(request(address=address_of(kms)))
        place = kms.place
    with place.serving(2) as kms:
        assert by_id(admin_of(kms), grant) == grant
        for worker in kms.every_worker():
            assert copy(worker)[1].status == 200


def test_it_is_on_record_when_it_is_made_and_when_it_is_ended(kms: RunningKms) -> None:
    admin = admin_of(kms)
    grant = admin.create_grant(request(id="g-1"))
    assert admin.create_grant(request(id="g-1")) == grant
    admin.end_grant("g-1")
    assert admin.create_grant(request(id="g-1")).ended_by == "deleted"
    with pytest.raises(KmsRemoteError, match="something else"):
        admin.create_grant(request(id="g-1", purpose="another"))
    with pytest.raises(GrantNotFoundError, match="there is no grant g-2"):
        admin.end_grant("g-2")
    begun, made = [line for line in kms.place.all_audit_lines() if line["op"] == "CREATE_GRANT"][:2]
    assert (begun["outcome"], made["outcome"]) == ("begun", "ok")
    for line in (begun, made):
        said = {name.removeprefix("grant_"): value for name, value in line.items() if name.startswith("grant_")}
        assert said == {
            "user": "alice",
            "from": "/data/pii",
            "to": "/data/masked",
            "address": HERE,
            "purpose": "transfer t-1",
            "approver": "carol",
            "granted_by": f"uid {os.getuid()}",
            "created": grant.created_ms,
            "not_after": grant.not_after_ms,
        }
    ended = [line for line in grants_of(kms, "END_GRANT") if line["outcome"] == "ok"]
    assert [(line["grant"], line["grant_ended_by"]) for line in ended] == [("g-1", "deleted")]


def test_it_admits_nothing_that_key_acls_refuse(kms: RunningKms) -> None:
    admin_of(kms).create_grant(request(user="mallory", address=address_of(kms)))
    worker = kms.one_worker()
    status, _java_class, message = remote_exception_of(open_eek(worker, old_eek(worker, "pii"), "mallory"))
    assert (status, "flow" in message) == (403, False)


def test_in_shadow_mode_what_a_grant_admits_is_no_refusal_on_record(tmp_path: Path) -> None:
    with serving(tmp_path, 1) as kms:
        force(kms, SHADOW)
        grant = admin_of(kms).create_grant(request(address=address_of(kms)))
        for user in ("alice", "bob"):
            copy(kms.one_worker(), user)
        assert [line.get("grants") for line in records(kms)] == [None, [grant.id]]
        assert not any("flow" in line for line in records(kms))
        assert "flow" in records(kms, "bob")[-1]


def ask(kms: RunningKms, method: str, name: str, body: object = None, **more: Any) -> Answer:
    client = kms.connect_admin()
    try:
        return call(client, method, f"{PATH}/{name}", body, **{"user": None, **more})
    finally:
        client.socket.close()


BODY: dict[str, Any] = {
    "user": "alice",
    "from": "/data/pii",
    "to": "/data/masked",
    "lifetime_s": 60,
    "purpose": "p",
    "approver": "a",
    "address": HERE,
}
WRONG: list[object] = [
    *({name: value for name, value in BODY.items() if name != left_out} for left_out in BODY),
    *({**BODY, name: wrong} for name in BODY for wrong in (None, 1.5 if name != "lifetime_s" else "60", [], {}, True)
      if not (name == "address" and wrong is None)),
    *({**BODY, "lifetime_s": wrong} for wrong in (0, -1, 0.5, 86_401, 1e300)),
    *({**BODY, "from": wrong} for wrong in ("/data/pii/", "/data", "/data/other", "", "data/pii", "/data/masked")),
    *({**BODY, "address": wrong} for wrong in ("", "localhost", "127.0.0.1/8", "1.2.3", "*", "127.0.0.1 ")),
    *({**BODY, "user": wrong} for wrong in ("", "al ice", "alice\n", "älice", "x" * 201)),
    *({**BODY, "purpose": wrong} for wrong in ("", "  ", "a\nb", "a\x00b", "x" * 501)),
    *({**BODY, "approver": wrong} for wrong in ("", "a\u2028b")),
    *({**BODY, "token": wrong} for wrong in (1, 0)),
    *({**BODY, "address": None, "token": wrong} for wrong in (None, 0, -1, 2**31, 2**70, "1", 999_999)),
    {**BODY, "address": None, "token": 1, "real_user": "oozie"},
    [],
    b"{",
    b"\xff",
    b"[" * 5000,
]  # fmt: skip


def test_a_request_of_another_shape_is_refused_and_grants_nothing(kms: RunningKms) -> None:
    for body in WRONG:
        answer = ask(kms, "PUT", "wrong", body)
        assert answer.status == 400, (body, answer)
    assert ask(kms, "PUT", "wrong", BODY, headers={"Content-Type": "text/plain"}).status == 400
    assert ask(kms, "PUT", "wrong", b'{"user": "' + b"x" * 3_000_000 + b'"}').status in (400, 413)
    for name in ("", "%20", "a%2Fb", "a/b", "..%2Fpolicy", "%00", "%ff", "-a", "x" * 65, "%E2%98%83"):
        for method, body in (("PUT", BODY), ("DELETE", None)):
            assert ask(kms, method, name, body).status == (400 if name else 405), name
    assert ask(kms, "POST", "g", BODY).status == 405
    assert admin_of(kms).list_grants() == []


def test_a_name_that_is_only_claimed_makes_shows_and_ends_no_grant(kms: RunningKms) -> None:
    grant = admin_of(kms).create_grant(request())
    for worker in kms.every_worker():
        for user in ("hdfs", "root"):
            assert call(worker, "PUT", f"{PATH}/forged", BODY, user=user).status == 403
            assert call(worker, "GET", PATH, user=user).status == 403
            assert call(worker, "DELETE", f"{PATH}/{grant.id}", user=user, query={"doAs": "hdfs"}).status == 403
        assert call(worker, "PUT", f"{PATH}/forged", BODY, user=None).status == 401
    assert [(each.id, each.ended_ms) for each in admin_of(kms).list_grants()] == [(grant.id, None)]
    denied = [line for line in grants_of(kms, "CREATE_GRANT") if line["outcome"] == "denied"]
    assert {line["grant"] for line in denied} == {"forged"}


def test_before_a_policy_is_published_nothing_is_granted(tmp_path: Path) -> None:
    with serving(tmp_path, 1) as kms:
        with pytest.raises(KmsRemoteError, match="no policy is published"):
            admin_of(kms).create_grant(request())
        assert not kms.place.store.with_name("k.db.flows").exists()
