"""What one instance shows of another's changes: at once what was acknowledged, and nothing revoked past the bound."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from holding_proxy import HoldingProxy, holding_proxy
from http_serving import Answer, RawClient
from kms_instances import Instance, Pair, running_pair
from kms_serving import OPEN_ACLS, call, json_of, remote_exception_of, write_xml
from store_places import VAULT_KV, shared_stores

BOUND_S = 2.0
# Beyond the bound, on a machine with much else to do.
SLACK_S = 0.5
DEADLINE_S = 40.0
ALICE = "alice"


@pytest.fixture(
    scope="module",
    params=["postgresql", *(pytest.param(engine, marks=pytest.mark.long) for engine in ("mariadb", *VAULT_KV))],
)
def proxied(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Pair, HoldingProxy]]:
    """A pair of which the other instance reaches the database through a proxy."""
    server = shared_stores(request, request.param)
    with (
        holding_proxy(server.port) as proxy,
        running_pair(server, tmp_path_factory.mktemp("pair"), bound_s=BOUND_S, ports=(server.port, proxy.port)) as pair,
    ):
        yield pair, proxy


@pytest.fixture
def pair(proxied: tuple[Pair, HoldingProxy]) -> Pair:
    return proxied[0]


def create(client: RawClient, key: str, user: str = ALICE) -> None:
    assert call(client, "POST", "/kms/v1/keys", {"name": key}, user=user).status == 201


def generate(client: RawClient, key: str) -> dict[str, Any]:
    answer = call(client, "GET", f"/kms/v1/key/{key}/_eek", user=ALICE, query={"eek_op": "generate"})
    (eek,) = json_of(answer)
    assert isinstance(eek, dict)
    return eek


def decrypt(client: RawClient, key: str, eek: dict[str, Any], user: str = ALICE) -> Answer:
    path = f"/kms/v1/keyversion/{eek['versionName'].replace('@', '%40')}/_eek"
    body = {"name": key, "iv": eek["iv"], "material": eek["encryptedKeyVersion"]["material"]}
    return call(client, "POST", path, body, user=user, query={"eek_op": "decrypt"})


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_what_one_instance_acknowledged_the_other_shows_at_once(pair: Pair, count: int) -> None:
    one, other = pair.one.connect(), [pair.other.connect() for _ in range(4)]
    if not pair.database:
        count //= 10  # Vault takes that much longer
    for number in range(count):
        key, reader = f"at-once-{count}-{number}", other[number % 4]
        # What is known to be absent must be seen to come.
        assert json_of(call(reader, "GET", f"/kms/v1/key/{key}/_metadata", user=ALICE)) == {}
        create(one, key)
        shown = json_of(call(reader, "GET", f"/kms/v1/key/{key}/_metadata", user=ALICE))
        assert shown.get("versions") == 1, shown
        assert generate(reader, key)["versionName"] == f"{key}@0"
        assert call(one, "POST", f"/kms/v1/key/{key}", {}, user=ALICE).status == 200
        # A decrypt is answered from memory, which has not heard of this version.
        assert decrypt(reader, key, generate(one, key)).status == 200
        assert generate(reader, key)["versionName"] == f"{key}@1"


@dataclass
class Load:
    """Decrypts without a pause; every status with when it was asked for and when it came."""

    instance: Instance
    key: str
    eek: dict[str, Any]
    seen: list[tuple[float, float, Answer]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        client = self.instance.connect()
        while not self._stop.is_set():
            asked_s = time.monotonic()
            answer = decrypt(client, self.key, self.eek, "reader")
            self.seen.append((asked_s, time.monotonic(), answer))

    @contextmanager
    def running(self) -> Iterator[Load]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            self.wait_for(200)
            yield self
        finally:
            self._stop.set()
            thread.join(DEADLINE_S)

    def wait_for(self, status: int) -> float:
        """Until an answer with this status comes; when it came."""
        begun = len(self.seen)
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            for _, came_s, answer in self.seen[begun:]:
                if answer.status == status:
                    return came_s
            assert time.monotonic() < deadline_s, f"no {status} came"
            time.sleep(0.01)

    def last(self, status: int) -> float:
        """When the last answer with this status was asked for: it may have been given then, and come much later."""
        return max(asked_s for asked_s, _, answer in self.seen if answer.status == status)


def loaded(pair: Pair, key: str) -> Load:
    client = pair.one.connect()
    create(client, key)
    return Load(pair.other, key, generate(client, key))


def test_a_key_deleted_on_one_instance_is_opened_on_no_other_past_the_bound(pair: Pair) -> None:
    with loaded(pair, "doomed").running() as load:
        assert pair.one.ask("DELETE", "/kms/v1/key/doomed", user=ALICE).status == 200
        deleted_s = time.monotonic()
        load.wait_for(400)
        time.sleep(BOUND_S / 2)
    assert load.last(200) - deleted_s < BOUND_S + SLACK_S


def test_a_policy_tightened_on_one_instance_holds_on_every_other_within_the_bound(pair: Pair) -> None:
    def publish(revision: int, readers: list[str]) -> None:
        zone = {"path": "/data", "key": "guarded", "owner": "etl", "mode": "0750", "readers": readers, "writers": []}
        policy = {"version": 1, "cluster": "c", "zones": [zone], "kms": {"namenode_users": ["alice"], "admins": ["x"]}}
        body = {"expected_revision": revision, "policy": policy}
        answer = pair.one.ask_as_administrator("PUT", "/ringfence/v1/policy", body)
        assert answer.status == 200, answer

    load = loaded(pair, "guarded")
    publish(0, ["reader"])
    with load.running():
        publish(1, ["somebody"])
        published_s = time.monotonic()
        load.wait_for(403)
        time.sleep(BOUND_S / 2)
    assert load.last(200) - published_s < BOUND_S + SLACK_S


def test_an_acl_file_tightened_on_disk_is_in_force_within_about_a_second(pair: Pair) -> None:
    place = pair.other.place
    with loaded(pair, "on-disk").running() as load:
        write_xml(place.conf / "kms-acls.xml", {**OPEN_ACLS, "hadoop.kms.blacklist.DECRYPT_EEK": "reader"})
        written_s = time.monotonic()
        load.wait_for(403)
    # Each worker looks once a second.
    assert load.last(200) - written_s < 1.5 + SLACK_S
    write_xml(place.conf / "kms-acls.xml", OPEN_ACLS)


@pytest.mark.parametrize("outage", ["be_gone", "be_silent"])
def test_without_its_database_an_instance_opens_from_memory_for_the_bound_and_then_refuses(
    proxied: tuple[Pair, HoldingProxy], outage: str
) -> None:
    pair, proxy = proxied
    load = loaded(pair, f"outage-{outage}".replace("_", "-"))
    with load.running():
        # The look that learns that the key was made forgets it. What was forgotten right before the outage, and could
        # not be read again, is not in memory: past that look, this is about what is.
        time.sleep(BOUND_S / 2)
        getattr(proxy, outage)()
        gone_s = time.monotonic()
        load.wait_for(503)
        assert pair.other.ask("GET", "/health/ready", user=None).status == 503
        assert pair.one.ask("GET", "/health/ready", user=None).status == 200
        proxy.be_well()
        well_s = time.monotonic()
        back_s = load.wait_for(200)
    served = [asked_s - gone_s for asked_s, came_s, answer in load.seen if answer.status == 200 and came_s < well_s]
    # From memory, without a pause, for the rest of what the last look allows.
    assert BOUND_S / 2 < max(served) < BOUND_S + SLACK_S
    refused = [(asked_s, came_s, answer) for asked_s, came_s, answer in load.seen if answer.status == 503]
    for asked_s, came_s, answer in refused:
        assert remote_exception_of(answer)[1] == "org.apache.hadoop.ipc.RetriableException"
        assert came_s - asked_s < 25.0
    assert back_s - well_s < 15.0
