"""Flow rules where two instances share a database: one decides for both, whichever a session asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from databases import DatabaseServer
from flow_kms import ENFORCE, SHADOW, Eek, make_keys, new_eek, new_eeks, old_eek, open_eek, policy, refusal
from kms_instances import Instance, Pair, running_pair
from kms_serving import DEADLINE_S, json_of


@pytest.fixture(scope="module", params=["postgresql", pytest.param("mariadb", marks=pytest.mark.long)])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    server: DatabaseServer = request.getfixturevalue(request.param)
    with running_pair(server, tmp_path_factory.mktemp("pair"), bound_s=2.0) as pair:
        make_keys(pair.one.client)
        document = policy(ENFORCE)
        for zone in document["zones"]:
            zone["readers"] = ["*"]
        for mode in (SHADOW, ENFORCE):
            publish(pair.one, {**document, "flow_control": mode})
        # An answer that must be the newest: the worker that gave it knows the policy. Each of the two gives some.
        for _ in range(20):
            assert json_of(pair.other.ask("GET", "/ringfence/v1/status"))["flows"]["mode"] == "enforce"
        # Within the bound another server may not know yet that openings are noted: nothing is taken for the first one.
        deadline = time.monotonic() + DEADLINE_S
        while probe(pair.one) != "write":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield pair


def probe(instance: Instance) -> str:
    """What the first opening of a new EDEK is."""
    assert open_eek(instance.client, new_eek(instance.client, "third"), "probe").status == 200
    return opened(instance, "probe")[-1]


def publish(instance: Instance, document: dict[str, Any]) -> None:
    revision = json_of(instance.ask_as_administrator("GET", "/ringfence/v1/policy"))["revision"]
    body = {"expected_revision": revision, "policy": document}
    answer = instance.ask_as_administrator("PUT", "/ringfence/v1/policy", body)
    assert answer.status == 200, answer.body


def opened(instance: Instance, user: str) -> list[str]:
    lines = instance.place.audit_lines()
    return [line["opened"] for line in lines if line["op"] == "DECRYPT_EEK" and line["user"] == user]


@pytest.mark.parametrize("order", ["source first", "target first"])
def test_a_copy_whose_halves_come_to_two_instances_is_refused(pair: Pair, order: str) -> None:
    user = f"copies-{order[:6]}"
    source, target = old_eek(pair.one.client, "pii"), new_eek(pair.one.client, "masked")
    one, other = (source, target) if order == "source first" else (target, source)
    assert open_eek(pair.one.client, one, user).status == 200
    assert "/data/pii to /data/masked" in refusal(open_eek(pair.other.client, other, user))


def test_the_other_instance_knows_what_was_opened_for_the_first_time(pair: Pair) -> None:
    eek = new_eek(pair.one.client, "third")
    assert open_eek(pair.other.client, eek, "writer").status == 200
    assert open_eek(pair.one.client, eek, "reader").status == 200
    assert open_eek(pair.one.client, eek, "writer").status == 200
    assert (opened(pair.other, "writer"), opened(pair.one, "reader"), opened(pair.one, "writer")) == (
        ["write"], ["read"], ["write"],
    )  # fmt: skip


def test_halves_sent_to_both_at_once_are_never_both_granted(pair: Pair) -> None:
    users = [f"racer{number}" for number in range(30)]
    source, targets = old_eek(pair.one.client, "pii"), new_eeks(pair.one.client, "masked", 30)
    outcomes: dict[str, list[int]] = {user: [] for user in users}
    barrier = threading.Barrier(2)

    def run(instance: Instance, eeks: Sequence[Eek]) -> None:
        client = instance.connect()
        for user, eek in zip(users, eeks, strict=True):
            barrier.wait()
            outcomes[user].append(open_eek(client, eek, user).status)

    threads = [threading.Thread(target=run, args=work) for work in ((pair.one, [source] * 30), (pair.other, targets))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {user: sorted(found) for user, found in outcomes.items()} == {user: [200, 403] for user in users}


def test_a_grant_of_one_instance_holds_at_the_other_and_ends_there_within_the_bound(pair: Pair) -> None:
    client = pair.other.connect()
    body = {
        "user": "granted", "from": "/data/pii", "to": "/data/masked", "lifetime_s": 60, "purpose": "p",
        "approver": "a", "address": client.socket.getsockname()[0],
    }  # fmt: skip
    source = old_eek(pair.one.client, "pii")
    assert open_eek(client, source, "granted").status == 200
    refusal(open_eek(client, new_eek(pair.one.client, "masked"), "granted"))
    assert pair.one.ask_as_administrator("PUT", "/ringfence/v1/grants/g", body).status == 200
    assert open_eek(client, new_eek(pair.one.client, "masked"), "granted").status == 200
    (shown,) = json_of(pair.other.ask_as_administrator("GET", "/ringfence/v1/grants"))["grants"]
    assert (shown["id"], shown["ended"]) == ("g", None)
    assert pair.one.ask_as_administrator("DELETE", "/ringfence/v1/grants/g").status == 200
    deadline = time.monotonic() + DEADLINE_S
    for half in (lambda: new_eek(pair.one.client, "masked"), lambda: source):
        while open_eek(client, half(), "granted").status != 403:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_an_instance_that_was_killed_and_started_again_forgot_nothing(pair: Pair) -> None:
    source, target = old_eek(pair.one.client, "pii"), new_eek(pair.one.client, "masked")
    assert open_eek(pair.one.client, source, "patient").status == 200
    pair.one.kill()
    refusal(open_eek(pair.other.client, target, "patient"))
    pair.one.start()
    refusal(open_eek(pair.one.client, target, "patient"))
    assert open_eek(pair.one.client, target, "another").status == 200
