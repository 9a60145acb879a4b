"""Custody `transit` through the real server: the double always, and the Vault that the environment names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from http_serving import Answer, RawClient
from kms_serving import KmsPlace, RunningKms, call, json_of, remote_exception_of
from transit_custody import CustodyKms, create, dek, eek_of, generate, open_eek, reencrypt, reencrypt_batch, roll
from vault_clusters import SERVERS, VaultCluster

from ringfence_agent.keystore.held import is_zone_key_name

DEADLINE_S = 20.0
ILLEGAL = "java.lang.IllegalArgumentException"
RETRIABLE = "org.apache.hadoop.ipc.RetriableException"


@pytest.fixture(scope="module", params=SERVERS)
def cluster(request: pytest.FixtureRequest) -> VaultCluster:
    name = "vault_cluster_on_double" if request.param == "double" else "vault_cluster_on_real"
    found: VaultCluster = request.getfixturevalue(name)
    return found


@pytest.fixture(scope="module")
def kms(cluster: VaultCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKms]:
    with CustodyKms.make(tmp_path_factory.mktemp("kms"), cluster).serving(workers=2) as running:
        yield running


@pytest.fixture
def client(kms: RunningKms) -> RawClient:
    return kms.one_worker()


def test_a_key_that_vault_holds_makes_opens_rolls_and_reencrypts(kms: RunningKms) -> None:
    client, other = kms.every_worker()
    answer = create(client, "held")
    assert answer.status == 201
    assert json_of(answer) == {"name": "held", "versionName": "held@0", "material": None}
    made = generate(client, "held", 3)
    assert {eek[0] for eek in made} == {"held@0"}
    deks = [dek(other, eek) for eek in made]
    assert len(set(deks)) == 3 and {len(each) for each in deks} == {43}
    assert json_of(roll(other, "held")) == {"name": "held", "versionName": "held@1", "material": None}
    again = reencrypt(client, made[0])
    assert (
        again[0] == "held@1" and again[1]["iv"] == made[0][1]["iv"] and again[1]["material"] != made[0][1]["material"]
    )
    assert dek(other, again) == deks[0]
    new = generate(other, "held")[0]
    assert new[0] == "held@1"
    batch = [eek_of("held", each) for each in json_of(reencrypt_batch(client, "held", [*made, new]))]
    assert [eek[0] for eek in batch] == ["held@1"] * 4
    assert batch[3] == new, "what is under the current version stays as it is"
    assert [dek(client, eek) for eek in batch[:3]] == deks
    assert [dek(client, eek) for eek in made] == deks


def test_what_vault_holds_is_given_to_nobody_and_looks_absent(client: RawClient) -> None:
    create(client, "absent")
    roll(client, "absent")
    versions = [{"name": "absent", "versionName": f"absent@{number}", "material": None} for number in (0, 1)]
    assert json_of(call(client, "GET", "/kms/v1/key/absent/_versions")) == versions
    assert json_of(call(client, "GET", "/kms/v1/key/absent/_currentversion")) == versions[1]
    assert json_of(call(client, "GET", "/kms/v1/keyversion/absent%400")) == versions[0]
    assert json_of(call(client, "GET", "/kms/v1/keyversion/absent%402")) == {}
    metadata = json_of(call(client, "GET", "/kms/v1/key/absent/_metadata"))
    assert (metadata["attributes"]["ringfence.custody"], metadata["versions"], metadata["length"]) == (
        "transit",
        2,
        256,
    )


def test_custody_is_one_of_two_words_and_takes_no_material(client: RawClient) -> None:
    status, kind, message = remote_exception_of(create(client, "odd", custody="Transit"))
    assert (status, kind) == (400, ILLEGAL) and "envelope" in message and "transit" in message
    material = "A" * 43
    status, kind, message = remote_exception_of(create(client, "given", material=material))
    assert (status, kind) == (400, ILLEGAL) and "material" in message
    assert call(client, "GET", "/kms/v1/key/given/_metadata").body == b"{}"
    create(client, "given")
    status, kind, message = remote_exception_of(call(client, "POST", "/kms/v1/key/given", {"material": material}))
    assert (status, kind) == (400, ILLEGAL) and "material" in message
    assert create(client, "given").status == 500, "it is there already"
    assert create(client, "plain", custody="envelope").status == 201
    assert len(generate(client, "plain")[0][1]["material"]) == 43
    assert len(generate(client, "given")[0][1]["material"]) == 88


def test_an_edek_opens_with_its_own_key_version_and_iv_alone(client: RawClient) -> None:
    for name in ("mine", "other"):
        create(client, name)
    (eek,) = generate(client, "mine")
    roll(client, "mine")
    changed = eek[1]["material"][:40] + ("A" if eek[1]["material"][40] != "A" else "B") + eek[1]["material"][41:]
    cases = [
        (("other@0", {**eek[1], "name": "other"}), "corrupt"),
        (("mine@1", eek[1]), "another version"),
        (("mine@0", {**eek[1], "iv": generate(client, "mine")[0][1]["iv"]}), "corrupt"),
        (("mine@0", {**eek[1], "material": changed}), "corrupt"),
        (("mine@0", {**eek[1], "material": eek[1]["material"][:43]}), "not made by Vault Transit"),
    ]
    for bad, words in cases:
        status, kind, message = remote_exception_of(open_eek(client, bad))
        assert (status, kind) == (400, ILLEGAL), message
        assert words in message and bad[1]["material"] not in message
    status, kind, _ = remote_exception_of(reencrypt_batch(client, "mine", [eek, cases[3][0]]))
    assert (status, kind) == (400, ILLEGAL)
    assert open_eek(client, eek).status == 200


def test_a_key_made_again_is_another_key_of_vault_and_goes_on_counting(
    client: RawClient, cluster: VaultCluster
) -> None:
    before = set(zone_keys(cluster))
    create(client, "again")
    (old,) = generate(client, "again")
    assert call(client, "DELETE", "/kms/v1/key/again").status == 200
    assert open_eek(client, old).status == 400
    assert json_of(create(client, "again"))["versionName"] == "again@1"
    assert len(set(zone_keys(cluster)) - before) == 2
    (new,) = generate(client, "again")
    assert new[0] == "again@1"
    assert open_eek(client, new).status == 200
    assert open_eek(client, old).status == 400
    assert json_of(roll(client, "again"))["versionName"] == "again@2"
    assert [eek[0] for eek in generate(client, "again", 2)] == ["again@2"] * 2


def test_a_version_of_vault_that_no_roll_took_is_taken_by_the_next(client: RawClient, cluster: VaultCluster) -> None:
    before = set(zone_keys(cluster))
    create(client, "behind")
    (name,) = set(zone_keys(cluster)) - before
    (old,) = generate(client, "behind")
    cluster.administrator().transit.rotate(name, from_version=1)
    cluster.administrator().transit.rotate(name, from_version=2)
    (still,) = generate(client, "behind")
    assert still[0] == "behind@0", "what Vault has beyond the record is not used"
    secret = dek(client, old)
    assert json_of(roll(client, "behind"))["versionName"] == "behind@1"
    assert cluster.administrator().transit.get(name).latest_version == 3
    again = reencrypt(client, old)
    assert (again[0], dek(client, again)) == ("behind@1", secret)


def test_a_thousand_are_made_and_reencrypted_in_one_request(client: RawClient) -> None:
    create(client, "bulk")
    eeks = generate(client, "bulk", 500)
    roll(client, "bulk")
    again = json_of(reencrypt_batch(client, "bulk", eeks))
    assert {each["versionName"] for each in again} == {"bulk@1"}
    last = eek_of("bulk", again[-1])
    assert dek(client, last) == dek(client, eeks[-1])


def test_it_says_what_it_can_and_counts_what_it_asked(client: RawClient) -> None:
    assert json_of(call(client, "GET", "/ringfence/v1/status"))["custody"] == ["envelope", "transit"]
    create(client, "counted")
    generate(client, "counted", 5)
    assert json_of(call(client, "GET", "/health/ready", user=None)) == {"ready": True}
    text = call(client, "GET", "/metrics", user=None).body.decode()
    counts = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(counts["ringfence_kms_transit_batch_items_sum"]) >= 5
    assert float(counts["ringfence_kms_transit_call_seconds_count"]) >= 1
    assert float(counts["ringfence_kms_transit_call_failures_total"]) == 0
    assert float(counts["ringfence_kms_transit_nodes_left_alone"]) == 0


def test_the_name_in_vault_is_on_record_before_the_key_is_there(kms: RunningKms, cluster: VaultCluster) -> None:
    before = set(zone_keys(cluster))
    create(kms.one_worker(), "recorded")
    (name,) = set(zone_keys(cluster)) - before
    lines = [line for line in kms.place.all_audit_lines() if line.get("key") == "recorded"]
    assert [line["outcome"] for line in lines] == ["begun", "ok"]
    for line in lines:
        assert (line["custody"], line["transit_key"]) == ("transit", name)
    roll(kms.one_worker(), "recorded")
    lines = [line for line in kms.place.audit_lines() if line.get("key") == "recorded"]
    assert (lines[-1]["op"], lines[-1]["transit_key"], lines[-1]["transit_version"]) == ("ROLL_NEW_VERSION", name, 2)


def zone_keys(cluster: VaultCluster) -> list[str]:
    return [name for name in cluster.administrator().transit.list_names() if is_zone_key_name(name)]


# -- without Vault


def test_without_a_vault_block_the_custody_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    with KmsPlace.make(tmp_path).serving(1) as kms:
        client = kms.one_worker()
        status, kind, message = remote_exception_of(create(client, "held"))
        assert (status, kind) == (500, "java.io.IOException") and "not set up for Vault" in message
        assert call(client, "GET", "/kms/v1/key/held/_metadata").body == b"{}"
        assert json_of(call(client, "GET", "/ringfence/v1/status"))["custody"] == ["envelope"]


def test_while_vault_is_sealed_other_keys_are_served_and_it_recovers_by_itself(
    vault_cluster_on_double: VaultCluster, tmp_path: Path
) -> None:
    vault = vault_cluster_on_double.double
    assert vault is not None
    with CustodyKms.make(tmp_path, vault_cluster_on_double).serving() as kms:
        client = kms.one_worker()
        create(client, "held")
        create(client, "plain", custody="envelope")
        (held,), (plain,) = generate(client, "held"), generate(client, "plain")
        secret = dek(client, held)
        vault.seal()
        try:
            for refused in (open_eek(client, held), roll(client, "held"), create(client, "more")):
                assert remote_exception_of(refused)[:2] == (503, RETRIABLE)
            assert open_eek(client, plain).status == 200
            assert roll(client, "plain").status == 200
            assert create(client, "plain2", custody=None).status == 201
            assert call(client, "GET", "/kms/v1/key/held/_metadata").status == 200
            assert call(client, "DELETE", "/kms/v1/key/plain2").status == 200
            until(lambda: json_of(ready(client)) == {"ready": True, "degraded": True})
            assert ready(client).status == 200
            with closing_client(kms) as admin:
                told = json_of(call(admin, "GET", "/ringfence/v1/status", user=None))["server"]
            assert (told["ready"], told["degraded"]) == (True, True)
            assert "is sealed" in told["problems"][0]
        finally:
            vault.unseal()
        until(lambda: open_eek(client, held).status == 200)
        assert dek(client, held) == secret
        until(lambda: json_of(ready(client)) == {"ready": True})
        assert roll(client, "held").status == 200


def ready(client: RawClient) -> Answer:
    return call(client, "GET", "/health/ready", user=None)


@contextmanager
def closing_client(kms: RunningKms) -> Iterator[RawClient]:
    client = kms.connect_admin()
    try:
        yield client
    finally:
        client.socket.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
