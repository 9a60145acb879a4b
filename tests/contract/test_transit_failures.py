"""Custody `transit` where Vault answers late, half, wrongly or from a node that lags; and no secret anywhere after."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from canary import Canaries
from http_serving import RawClient
from kms_serving import KmsPlace, RunningKms, call, json_of, remote_exception_of
from transit_custody import CustodyKms, create, dek, generate, open_eek, roll
from vault_clusters import VaultCluster, VaultServer, server_of, vault_cluster
from vault_doubles import VaultDouble, running_vault

from ringfence_agent.keystore.held import HeldKey, is_zone_key_name
from ringfence_agent.keystore.open import open_keystore

RETRIABLE = "org.apache.hadoop.ipc.RetriableException"


@pytest.fixture(scope="module")
def double() -> Iterator[VaultDouble]:
    """Three nodes, of which two lag."""
    with running_vault(nodes=3, lag_s=0.15) as running:
        yield running


@pytest.fixture
def cluster(double: VaultDouble, tmp_path: Path) -> Iterator[VaultCluster]:
    server: VaultServer = server_of(double)
    (tmp_path / "vault").mkdir()
    with vault_cluster(server, tmp_path / "vault") as found:
        found.set_up_and_log_in()
        yield found


@pytest.fixture
def custody(cluster: VaultCluster, tmp_path: Path) -> CustodyKms:
    (tmp_path / "kms").mkdir()
    return CustodyKms.make(tmp_path / "kms", cluster)


def zone_keys(cluster: VaultCluster) -> list[str]:
    return [name for name in cluster.administrator().transit.list_names() if is_zone_key_name(name)]


def held(place: KmsPlace, name: str) -> dict[int, int]:
    """Hadoop's number of each version and Transit's, as the store has them."""
    store = open_keystore(f"sqlite:///{place.store}", None, init=False)
    try:
        found = store.find_key(name)
        assert isinstance(found, HeldKey)
        return {each.version: each.place.version for each in found.versions}
    finally:
        store.close()


def test_nodes_that_lag_are_waited_for(custody: CustodyKms) -> None:
    with custody.serving(workers=2) as kms:
        one, two = kms.every_worker()
        for number in range(3):
            name = f"k{number}"
            assert create(one, name).status == 201
            eeks = generate(two, name, 5)
            found = [dek(one, eek) for eek in eeks]
            assert roll(two, name).status == 200
            assert {eek[0] for eek in generate(one, name, 5)} == {f"{name}@1"}
            assert [dek(two, eek) for eek in eeks] == found


def test_a_rotation_that_answers_500_is_looked_at_and_not_made_twice(
    custody: CustodyKms, cluster: VaultCluster, double: VaultDouble
) -> None:
    with custody.serving() as kms:
        client = kms.one_worker()
        create(client, "k")
        (name,) = zone_keys(cluster)
        with double.fault("execute_then_status", path="/rotate", status=500, body={"errors": ["internal error"]}):
            assert roll(client, "k").status == 200
        assert cluster.administrator().transit.get(name).latest_version == 2
        assert roll(client, "k").status == 200
    assert held(custody.place, "k") == {0: 1, 1: 2, 2: 3}


def test_a_create_without_an_answer_leaves_a_key_that_nobody_names(
    custody: CustodyKms, cluster: VaultCluster, double: VaultDouble
) -> None:
    with custody.serving() as kms:
        client = kms.one_worker()
        with double.fault("execute_then_drop", method="POST", path="/keys/z-"):
            assert remote_exception_of(create(client, "k"))[:2] == (503, RETRIABLE)
        assert call(client, "GET", "/kms/v1/key/k/_metadata").body == b"{}"
        assert create(client, "k").status == 201
        assert open_eek(client, generate(client, "k")[0]).status == 200
    assert len(zone_keys(cluster)) == 2


def test_many_who_roll_at_once_each_make_one_version(custody: CustodyKms, cluster: VaultCluster) -> None:
    with custody.serving(workers=2) as kms:
        create(kms.one_worker(), "k")
        begin = threading.Barrier(6)

        def roll_as(number: int) -> int:
            client = kms.connect()
            try:
                begin.wait()
                answer = call(client, "POST", "/kms/v1/key/k", {"description": str(number)}, user=f"user{number}")
                assert answer.status == 200, answer.body
                return int(json_of(answer)["versionName"].rpartition("@")[2])
            finally:
                client.socket.close()

        with ThreadPoolExecutor(6) as threads:
            numbers = sorted(threads.map(roll_as, range(6)))
    assert numbers == [1, 2, 3, 4, 5, 6]
    places = held(custody.place, "k")
    assert sorted(places) == list(range(7)) and len(set(places.values())) == 7


@pytest.mark.long
def test_a_vault_that_hangs_holds_up_no_other_key(custody: CustodyKms, double: VaultDouble) -> None:
    with custody.serving() as kms:
        client, other = kms.one_worker(), kms.connect()
        create(client, "held")
        create(client, "plain", custody=None)
        (held_eek,), (plain_eek,) = generate(client, "held"), generate(client, "plain")
        answered: list[int] = []
        with double.fault("hang", path="/decrypt/"), double.fault("hang", path="/keys/"):
            waiting = threading.Thread(target=lambda: answered.append(open_eek(client, held_eek).status))
            waiting.start()
            began = time.monotonic()
            assert open_eek(other, plain_eek).status == 200
            assert create(other, "plain2", custody=None).status == 201
            assert roll(other, "plain").status == 200
            assert time.monotonic() - began < 5 and not answered
            waiting.join(30)
        assert answered == [503]
        other.socket.close()


def test_no_secret_is_left_anywhere(custody: CustodyKms, cluster: VaultCluster, double: VaultDouble) -> None:
    canaries = Canaries()
    canaries.add("token", cluster.settings().token_file.read_text().strip())
    with custody.serving("-vv", workers=2) as kms:
        clients = kms.every_worker()
        create(clients[0], "k")
        eeks = generate(clients[0], "k", 40)
        found = [dek(clients[number % 2], eek) for number, eek in enumerate(eeks)]
        for number, text in enumerate(found):
            canaries.add_base64(f"dek {number}", text)
        spoil(clients[0], eeks, double)
        roll(clients[0], "k")
        assert call(clients[0], "GET", "/kms/v1/key/k/_versions").status == 200
        audit = "\n".join(json.dumps(line) for line in custody.place.all_audit_lines())
        stderr = ended(kms)
    texts = {"stderr": stderr, "audit": audit}
    assert "Vault" in stderr, "it logs what went wrong"
    assert canaries.find_in_texts(texts) == {}
    assert canaries.find_in_tree(custody.place.directory) == {}
    (custody.place.directory / "planted").write_text(stderr + found[7])
    assert canaries.find_in_tree(custody.place.directory) == {"planted": {"dek 7"}}


def spoil(client: RawClient, eeks: list[tuple[str, dict[str, str]]], double: VaultDouble) -> None:
    """Every way of failing with a plaintext under way."""
    (version_name, eek), *_ = eeks
    assert open_eek(client, (version_name, {**eek, "iv": eeks[1][1]["iv"]})).status == 400
    results = {"data": {"batch_results": [{"plaintext": "c2VjcmV0"}, {"error": "internal error"}]}}
    with double.fault("execute_then_status", path="/decrypt/", status=500, body={"errors": ["internal error"]}):
        assert open_eek(client, eeks[0]).status == 503
    with double.fault("status", path="/decrypt/", status=200, body=results):
        assert open_eek(client, eeks[0]).status == 503
    with double.fault("truncate", path="/decrypt/"), double.fault("truncate", path="/encrypt/"):
        assert open_eek(client, eeks[0]).status == 503
        assert call(client, "GET", "/kms/v1/key/k/_eek", query={"eek_op": "generate"}).status == 503


def ended(kms: RunningKms) -> str:
    """What the server wrote to standard error, once it was stopped."""
    kms.process.terminate()
    kms.close()
    _, stderr = kms.process.communicate(timeout=60)
    return stderr.decode()
