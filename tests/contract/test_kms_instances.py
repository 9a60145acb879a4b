"""Two instances on one database server, under Hadoop's own Java client: killed, started again, and killed in between.

Nothing acknowledged is lost, no version appears that nobody asked for, and no operation fails that the client's own
retries cover.
"""

from __future__ import annotations

import base64
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from databases import DatabaseServer
from holding_proxy import HoldingProxy, holding_proxy
from java_load import JavaClient, running_java_client
from kms_instances import Instance, Pair, running_pair
from kms_serving import call, json_of

DEADLINE_S = 30.0
KINDS = ["postgresql", pytest.param("mariadb", marks=pytest.mark.long)]


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> DatabaseServer:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, DatabaseServer)
    return found


@pytest.mark.parametrize("seconds", [8, pytest.param(150, marks=pytest.mark.long)])
def test_instances_that_are_killed_under_load_lose_nothing_and_fail_nothing(
    server: DatabaseServer, tmp_path: Path, seconds: int
) -> None:
    with running_pair(server, tmp_path) as pair, running_java_client(pair.uri) as client:
        client.do("load", threads=4)
        kills = kill_in_turns(pair, seconds)
        report = client.do("stop")
        assert report["failures"] == [], Counter(failure.split(" ", 1)[1][:150] for failure in report["failures"])
        assert min(report["done"][name] for name in ("create", "roll", "metadata", "current", "token")) > kills
        told_again = Counter(line["key"] for line in audit(pair.both) if line.get("answered_again"))
        print(f"{kills} kills, {report['done']}, {told_again.total()} answered again")
        for key, numbers in report["acknowledged"].items():
            check_versions(pair, key, numbers, told_again[key])
        for eek in report["eeks"]:
            check_eek(pair, eek)


def kill_in_turns(pair: Pair, seconds: float) -> int:
    """Kills one or the other, never both at once, for so long; how often."""
    chance = random.Random(4)
    end_s = time.monotonic() + seconds
    kills = 0
    while time.monotonic() < end_s or kills < 4:
        time.sleep(chance.uniform(0.3, 1.5))
        victim = pair.both[kills % 2] if kills < 2 else chance.choice(pair.both)
        victim.kill()
        kills += 1
        time.sleep(chance.uniform(0.0, 0.8))
        victim.start()
    return kills


def audit(instances: Sequence[Instance]) -> list[dict[str, Any]]:
    return [line for instance in instances for line in instance.place.audit_lines()]


def check_versions(pair: Pair, key: str, acknowledged: list[int], told_again: int) -> None:
    """Exactly the acknowledged versions are there. One that was told twice was answered again, as the audit has it."""
    repeats = len(acknowledged) - len(set(acknowledged))
    assert repeats <= told_again, (key, acknowledged)
    for instance in pair.both:
        found = json_of(call(instance.client, "GET", f"/kms/v1/key/{key}/_versions", user="alice"))
        assert [each["versionName"] for each in found] == [f"{key}@{n}" for n in sorted(set(acknowledged))]


def check_eek(pair: Pair, eek: dict[str, Any]) -> None:
    """Both instances open it, to the data key that the client saw."""
    body = {"name": eek["key"], "iv": eek["iv"], "material": eek["material"]}
    path = f"/kms/v1/keyversion/{eek['version'].replace('@', '%40')}/_eek"
    query = {"eek_op": "decrypt"}
    deks = {
        base64.urlsafe_b64decode(json_of(answer)["material"] + "==")
        for answer in (call(instance.client, "POST", path, body, user="alice", query=query) for instance in pair.both)
    }
    assert len(deks) == 1
    if eek["dek"] is not None:
        assert deks == {base64.urlsafe_b64decode(eek["dek"])}


class Held:
    """A pair and a client of both. The first reaches the database through a proxy that can hold its commits."""

    def __init__(self, server: DatabaseServer, proxy: HoldingProxy, pair: Pair, client: JavaClient) -> None:
        self._server = server
        self._proxy = proxy
        self.pair = pair
        self.client = client
        self._turns = 0

    def prepare(self) -> None:
        """Both have told the database that they are alive, and no answer of theirs is unconfirmed."""
        for instance in self.pair.both:
            self._turns += 1
            body = {"name": f"other-{self._turns}"}
            assert instance.ask("POST", "/kms/v1/keys", body, user="bob").status == 201
        table = "ringfence.unconfirmed_change" if self._server.kind == "postgresql" else "unconfirmed_change"
        count = f"SELECT count(*) FROM {table}"
        wait_for(lambda: self._server.sql(count, self.pair.database).strip() == "0", "answers stay unconfirmed")

    def is_caught(self, order: str, key: str, *, delivers: bool) -> bool:
        """Gives the client an order. When it goes to the first instance, that dies between commit and answer."""
        self.prepare()
        begun = self._begun()
        self._proxy.hold_commit(delivers=delivers)
        self.client.begin(order, key=key)
        wait_for(lambda: self._proxy.holds.is_set() or self.client.is_done(), "neither a commit nor an answer")
        self._proxy.hold_nothing()
        if not self._proxy.holds.is_set():
            return False
        self.pair.one.kill()
        wait_for(lambda: self._begun() > begun, "the client did not ask the other instance")
        self._proxy.release()
        return True

    def _begun(self) -> int:
        return sum(line["outcome"] == "begun" for line in self.pair.other.place.all_audit_lines())


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.02)


@pytest.fixture
def held(server: DatabaseServer, tmp_path: Path) -> Iterator[Held]:
    with (
        holding_proxy(server.port) as proxy,
        running_pair(server, tmp_path, workers=1, ports=(proxy.port, server.port)) as pair,
        running_java_client(pair.uri) as client,
    ):
        yield Held(server, proxy, pair, client)


@pytest.mark.parametrize(
    ("order", "delivers"),
    [
        ("create", True),
        ("roll", False),
        pytest.param("create", False, marks=pytest.mark.long),
        pytest.param("roll", True, marks=pytest.mark.long),
    ],
)
def test_a_change_whose_server_dies_between_commit_and_answer_is_made_once(
    held: Held, order: str, delivers: bool
) -> None:
    """The client's own retry goes to the other instance, which gives the first one's answer."""
    client = held.client
    keys = iter(f"k-{number}" for number in range(8))
    key = next(keys)
    if order == "roll":
        client.do("create", key=key)
    versions = 1
    while not held.is_caught(order, key, delivers=delivers):
        assert "result" in client.result()
        versions, key = (versions + 1, key) if order == "roll" else (1, next(keys))
    answer = client.result()
    number = versions if order == "roll" else 0
    if order == "create":
        assert answer == {"result": f"{key}@{number}"}
    # After a roll the client tells every host of it, and its caller of the one that is down.
    assert client.do("versions", key=key) == {"result": number + 1}
    assert client.do("current", key=key) == {"result": f"{key}@{number}"}
    (again,) = [line for line in held.pair.other.place.audit_lines() if line.get("answered_again")]
    assert (again["key"], again["version"], again["status"]) == (key, number, 201 if order == "create" else 200)
