"""Custody `transit` through the real server: the double always, and the Vault that the environment names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from http_serving import RawClient
from kms_serving import RunningKms, json_of
from transit_custody import CustodyKms, create, dek, eek_of, generate, reencrypt, reencrypt_batch, roll
from vault_clusters import SERVERS, VaultCluster

ILLEGAL = "java.lang.IllegalArgumentException"


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
