"""Leases through the real server: one winner, renewed through any worker, for proven administrators alone."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from http_serving import Answer
from kms_serving import DEADLINE_S, KmsPlace, RunningKms, call, json_of, remote_exception_of

from ringfence_zones.client_config import ClientConfig
from ringfence_zones.errors import InputError, KmsRemoteError, LeaseHeldError
from ringfence_zones.kms_admin import AdminClient, open_admin_client
from ringfence_zones.kms_uri import parse_kms_uri
from ringfence_zones.leases import Lease

TAKERS = 20
LOADS = "ringfence_kms_key_cache_loads_total"
PATH = "/ringfence/v1/leases/"
TOKEN = "an-administrators-token-0123"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKms]:
    directory = tmp_path_factory.mktemp("kms")
    place = KmsPlace.make(directory)
    token_file = directory / "token"
    token_file.touch(0o600)
    token_file.write_text(TOKEN + "\n")
    config = directory / "kms.yaml"
    config.write_text(
        f"admin: {{socket: {place.admin_socket}, token_file: {token_file}}}\n"
        f"audit: {{directory: {place.audit_directory}}}\n"
    )
    with place.serving(3, "--config", str(config)) as kms:
        yield kms


@pytest.fixture
def admin(serving: RunningKms) -> AdminClient:
    return open_admin_client(
        ClientConfig(kms_admin_socket=serving.place.admin_socket), parse_kms_uri("kms://http@localhost:9600/kms")
    )


def ask(kms: RunningKms, method: str, name: str, body: object = None, **more: Any) -> Answer:
    client = kms.connect_admin()
    try:
        return call(client, method, PATH + name, body, **{"user": None, **more})
    finally:
        client.socket.close()


def test_of_twenty_that_ask_at_once_one_gets_it(admin: AdminClient) -> None:
    def take(number: int) -> Lease | LeaseHeldError:
        try:
            return admin.take_lease("many", f"taker-{number}", 60)
        except LeaseHeldError as error:
            return error

    with ThreadPoolExecutor(TAKERS) as takers:
        outcomes = list(takers.map(take, range(TAKERS)))
    winners = [outcome for outcome in outcomes if isinstance(outcome, Lease)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, LeaseHeldError)]
    assert (len(winners), len(losers)) == (1, TAKERS - 1)
    assert {loser.holder for loser in losers} == {winners[0].holder}
    assert all(0 < loser.left_s <= 61 for loser in losers)
    assert admin.get_lease("many").holder == winners[0].holder


def test_a_lease_is_renewed_shown_and_given_back(admin: AdminClient) -> None:
    never = admin.get_lease("agent")
    assert (never.holder, never.epoch, never.left_s) == (None, 0, 0)
    first = admin.take_lease("agent", "one:1", 15)
    assert 0 < first.left_s() <= 15
    for _ in range(6):  # by whichever worker
        assert admin.take_lease("agent", "one:1", 15).epoch == first.epoch
    shown = admin.get_lease("agent")
    assert (shown.holder, shown.epoch) == ("one:1", first.epoch)
    assert 10 < shown.left_s <= 16
    with pytest.raises(LeaseHeldError, match=r"lease agent is held by one:1"):
        admin.release_lease("agent", "two:1")
    admin.release_lease("agent", "one:1")
    admin.release_lease("agent", "one:1")
    assert admin.get_lease("agent").holder is None
    assert admin.take_lease("agent", "two:1", 15).epoch == first.epoch + 1


def test_a_name_that_is_only_claimed_takes_shows_and_frees_nothing(serving: RunningKms, admin: AdminClient) -> None:
    admin.take_lease("claimed", "one", 60)
    body = {"holder": "two", "ttl_s": 15}
    for worker in serving.every_worker():
        for user in ("hdfs", "root", None):
            for query in ({}, {"doAs": "hdfs"}):
                wanted = (403,) if user is not None else (401, 403)
                assert call(worker, "PUT", f"{PATH}claimed", body, user=user, query=query).status in wanted
                assert call(worker, "GET", f"{PATH}claimed", user=user, query=query).status in wanted
                freed = call(worker, "DELETE", f"{PATH}claimed", user=user, query={**query, "holder": "one"})
                assert freed.status in wanted
        forged = {"Authorization": "Bearer an-administrators-token-0124", "X-Forwarded-User": "root"}
        assert call(worker, "PUT", f"{PATH}claimed", body, headers=forged).status == 403
    assert admin.get_lease("claimed").holder == "one"


def test_a_bearer_token_proves_an_administrator(serving: RunningKms) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    body = {"holder": "one", "ttl_s": 15}
    for worker in serving.every_worker():
        taken = json_of(call(worker, "PUT", f"{PATH}token", body, user=None, headers=headers))
        assert (taken["holder"], taken["ttl_s"], taken["left_s"]) == ("one", 15, 16)


@pytest.mark.parametrize(
    "body",
    [
        {"holder": "one"},
        {"ttl_s": 15},
        {"holder": "one", "ttl_s": 0.9},
        {"holder": "one", "ttl_s": 301},
        {"holder": "one", "ttl_s": -1},
        {"holder": "one", "ttl_s": 1e308},
        {"holder": "one", "ttl_s": "15"},
        {"holder": "one", "ttl_s": True},
        {"holder": "one", "ttl_s": None},
        {"holder": 1, "ttl_s": 15},
        {"holder": "", "ttl_s": 15},
        {"holder": "o ne", "ttl_s": 15},
        {"holder": "one\n", "ttl_s": 15},
        {"holder": "öne", "ttl_s": 15},
        {"holder": "x" * 201, "ttl_s": 15},
        [],
        "one",
        b'{"holder": "one", "ttl_s": NaN}',
        b"\xff\xfe",
        b"{" * 5000,
    ],
)
def test_a_body_of_another_shape_is_refused_and_takes_nothing(serving: RunningKms, body: object) -> None:
    assert ask(serving, "PUT", "shape", body).status == 400
    assert json_of(ask(serving, "GET", "shape"))["holder"] is None


def test_a_body_that_is_no_json_or_far_too_long_is_refused(serving: RunningKms) -> None:
    body = {"holder": "one", "ttl_s": 15}
    assert ask(serving, "PUT", "body", body, headers={"Content-Type": "text/plain"}).status == 400
    assert ask(serving, "PUT", "body").status == 400
    status = ask(serving, "PUT", "body", b'{"holder": "' + b"x" * 3_000_000 + b'", "ttl_s": 15}').status
    assert status in (400, 413)
    assert json_of(ask(serving, "GET", "body"))["holder"] is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "%20",
        "A",
        "a%2Fb",
        "a/b",
        "..%2F..%2Fpolicy",
        "a%00",
        "%ff",
        "-a",
        ".",
        "%E2%98%83",
        "x" * 65,
        "a'%20OR%201",
    ],
)
def test_a_name_with_odd_characters_is_refused(serving: RunningKms, name: str) -> None:
    for method, body in (("GET", None), ("PUT", {"holder": "one", "ttl_s": 15})):
        status, java_class, _message = remote_exception_of(ask(serving, method, name, body))
        assert (status, java_class) == (400, "java.lang.IllegalArgumentException")


def test_other_methods_and_a_release_without_a_holder_are_refused(serving: RunningKms, admin: AdminClient) -> None:
    assert ask(serving, "POST", "agent", {"holder": "one", "ttl_s": 15}).status == 405
    assert ask(serving, "DELETE", "agent").status == 400
    with pytest.raises(InputError, match="1 to 300 seconds"):
        admin.take_lease("agent", "one", 0.5)
    with pytest.raises(KmsRemoteError, match="is named by"):
        admin.take_lease("an agent", "one", 15)


def test_a_lease_costs_no_worker_its_keys_and_is_no_change_of_them(serving: RunningKms, admin: AdminClient) -> None:
    worker, workers = serving.one_worker(), serving.every_worker()

    def make(name: str) -> dict[str, str]:
        assert call(worker, "POST", "/kms/v1/keys", {"name": name, "length": 128}).status == 201
        query = {"eek_op": "generate", "num_keys": "1"}
        (edek,) = json_of(call(worker, "GET", f"/kms/v1/key/{name}/_eek", query=query))
        return {"name": name, "iv": edek["iv"], "material": edek["encryptedKeyVersion"]["material"]}

    def open_everywhere(body: dict[str, str]) -> None:
        path = f"/kms/v1/keyversion/{body['name']}%400/_eek"
        for each in workers:
            assert call(each, "POST", path, body, query={"eek_op": "decrypt"}).status == 200

    def loads() -> float:
        metrics = call(worker, "GET", "/metrics").body.decode().splitlines()
        return float(next(line.split()[1] for line in metrics if line.startswith(LOADS)))

    def wait_for_loads(count: float) -> None:
        # Each worker tells of its memory once a second.
        deadline_s = time.monotonic() + DEADLINE_S
        while loads() < count:
            assert time.monotonic() < deadline_s, f"{loads()} loads, not {count}"
            time.sleep(0.1)

    def ledger() -> bytes:
        with closing(sqlite3.connect(serving.place.store)) as store:
            (found,) = store.execute("SELECT ledger FROM store_header").fetchone()
            return bytes(found)

    kept, fresh = make("kept"), make("fresh")
    open_everywhere(kept)
    number = ledger()
    for _ in range(10):
        admin.take_lease("costs", "one", 15)
    open_everywhere(kept)
    # By when the other key's loads are counted, so is whatever the leases had loaded again.
    open_everywhere(fresh)
    wait_for_loads(2 * len(workers))
    assert loads() == 2 * len(workers)
    assert ledger() == number


def test_the_audit_log_says_who_has_it(serving: RunningKms, admin: AdminClient) -> None:
    lease = admin.take_lease("audited", "one", 15)
    with pytest.raises(LeaseHeldError):
        admin.take_lease("audited", "two", 15)
    call(serving.one_worker(), "PUT", f"{PATH}audited", {"holder": "three", "ttl_s": 15}, user="mallory")
    admin.release_lease("audited", "one")
    lines = [line for line in serving.place.audit_lines() if line.get("lease") == "audited"]
    assert [(line["op"], line["outcome"], line["user"]) for line in lines] == [
        ("TAKE_LEASE", "ok", f"uid {os.getuid()}"),
        ("TAKE_LEASE", "failed", f"uid {os.getuid()}"),
        ("TAKE_LEASE", "denied", "mallory"),
        ("RELEASE_LEASE", "ok", f"uid {os.getuid()}"),
    ]
    assert (lines[0]["holder"], lines[0]["epoch"]) == ("one", lease.epoch)


def test_a_book_that_cannot_be_used_gives_no_lease_and_keys_go_on(tmp_path: Path) -> None:
    place = KmsPlace.make(tmp_path)
    with place.serving(1) as kms:
        assert ask(kms, "PUT", "agent", {"holder": "one", "ttl_s": 15}).status == 200
        book = place.store.with_name(place.store.name + ".leases")
        book.rename(book.with_suffix(".away"))
        status, java_class, _message = remote_exception_of(ask(kms, "PUT", "agent", {"holder": "one", "ttl_s": 15}))
        assert (status, java_class) == (503, "org.apache.hadoop.ipc.RetriableException")
        assert call(kms.one_worker(), "POST", "/kms/v1/keys", {"name": "k", "length": 128}).status == 201
        book.with_suffix(".away").rename(book)
        assert ask(kms, "PUT", "agent", {"holder": "one", "ttl_s": 15}).status == 200
