"""One contract for what a KMS does with a key, over every (store, protector, custody): the real server on each.

All are run with `--all`, a spread of them in every run. The Vault that protects, holds keys and keeps stores is the
double; where the environment names a real one, that too. Moves and backups: `test_kms_custody_keeping`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from aws_kms_double import AwsKmsDouble
from custody_sites import (
    CUSTODIES,
    ENGINES,
    ON_REAL,
    PROTECTORS,
    Site,
    Surroundings,
    Triple,
    site_of,
    stores_of,
    triples,
    until,
)
from http_serving import RawClient
from kms_serving import call, json_of, remote_exception_of
from transit_custody import Eek, create, dek, deks, eek_of, generate, open_eek, reencrypt, reencrypt_batch, roll
from vault_clusters import VaultCluster

SPREAD = {
    Triple("sqlite", "file", "envelope"),
    Triple("sqlite", "vault-transit", "transit"),
    Triple("postgresql", "aws-kms", "envelope"),
    Triple("vault-kv", "vault-transit", "envelope"),
    Triple("vault-kv", "file", "transit"),
}


@pytest.fixture(scope="module", params=triples(SPREAD))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server that the tests of one triple share; each makes keys of its own."""
    with site_of(request, tmp_path_factory.mktemp("kms")) as site:
        yield site


def test_every_combination_is_run_and_the_spread_has_each_part_but_mariadb() -> None:
    """MariaDB's own words are tried by `test_keystore_mariadb` in every run."""
    every = {param.values[0] for param in triples(SPREAD)} - set(ON_REAL)
    assert len(every) == 4 * 3 * 2 and every > SPREAD
    assert {each.engine for each in SPREAD} == set(ENGINES) - {"mariadb"}
    assert {each.protector for each in SPREAD} == set(PROTECTORS)
    assert {each.custody for each in SPREAD} == set(CUSTODIES)


def generate_status(client: RawClient, name: str) -> int:
    return call(client, "GET", f"/kms/v1/key/{name}/_eek", query={"eek_op": "generate"}).status


def test_what_is_made_opens_again_and_only_there(served: Site) -> None:
    client, name = served.client, served.key("opens")
    eeks = generate(client, name, 10)
    found = deks(client, eeks)
    assert len(set(found)) == len({eek[1]["iv"] for eek in eeks}) == 10
    assert deks(client, eeks) == found
    other = served.key("opens-not")
    status, _, message = remote_exception_of(open_eek(client, (f"{other}@0", eeks[0][1])))
    assert status == 400 and "does not belong" in message
    assert open_eek(client, (f"{name}@1", eeks[0][1])).status == 400, "there is no such version"


def test_a_roll_keeps_old_files_open_and_reencryption_keeps_their_keys(served: Site) -> None:
    client, name = served.client, served.key("rolled")
    old = generate(client, name, 3)
    found = deks(client, old)
    for number in (1, 2):
        assert json_of(roll(client, name))["versionName"] == f"{name}@{number}"
    assert deks(client, old) == found
    one = reencrypt(client, old[0])
    assert (one[0], one[1]["iv"]) == (f"{name}@2", old[0][1]["iv"])
    new = generate(client, name)[0]
    batch = [eek_of(name, each) for each in json_of(reencrypt_batch(client, name, [*old, new]))]
    assert {eek[0] for eek in batch} == {f"{name}@2"}
    assert deks(client, [one, *batch[:3]]) == [found[0], *found]
    assert batch[3] == new


def test_a_deleted_key_opens_nothing_and_comes_back(served: Site) -> None:
    client, name = served.client, served.key("deleted")
    (eek,) = generate(client, name)
    secret = dek(client, eek)
    assert call(client, "DELETE", f"/kms/v1/key/{name}").status == 200
    assert open_eek(client, eek).status == 400
    served.undelete(name)
    assert dek(client, eek) == secret
    assert call(client, "DELETE", f"/kms/v1/key/{name}").status == 200
    assert json_of(create(client, name, served.custody))["versionName"] == f"{name}@1"
    assert open_eek(client, eek).status == 400
    (new,) = generate(client, name)
    assert new[0] == f"{name}@1" and open_eek(client, new).status == 200


def test_a_key_of_128_bits_makes_data_keys_of_128(served: Site) -> None:
    client, name = served.client, "small"
    assert create(client, name, served.custody, length=128).status == 201
    (eek,) = generate(client, name)
    assert len(dek(client, eek)) == 22
    assert open_eek(client, eek).status == 200


def test_its_custody_shows_in_its_metadata_and_in_absent_material(served: Site) -> None:
    client, name = served.client, served.key("shown")
    metadata = json_of(call(client, "GET", f"/kms/v1/key/{name}/_metadata"))
    assert metadata["attributes"]["ringfence.custody"] == served.custody
    material = json_of(call(client, "GET", f"/kms/v1/keyversion/{name}%400"))["material"]
    assert (material is None) == (served.custody == "transit")


def test_everything_is_there_after_a_restart(served: Site) -> None:
    name, gone = served.key("restarted"), served.key("restarted-gone")
    eeks = [*generate(served.client, name), *generate(served.client, gone)]
    assert roll(served.client, name).status == 200
    eeks += generate(served.client, name)
    found = deks(served.client, eeks)
    assert call(served.client, "DELETE", f"/kms/v1/key/{gone}").status == 200
    served.restart()
    client = served.client
    assert deks(client, [eeks[0], eeks[2]]) == [found[0], found[2]]
    assert open_eek(client, eeks[1]).status == 400
    assert json_of(roll(client, name))["versionName"] == f"{name}@2"
    served.undelete(gone)
    assert dek(client, eeks[1]) == found[1]


def test_who_loses_the_protector_loses_what_it_sealed_and_no_more(served: Site) -> None:
    name = served.key("sealed")
    (eek,) = generate(served.client, name)
    found = dek(served.client, eek)
    if served.protector == "file":
        lose_the_root_key_file(served, eek, found)
        return
    assert create(served.client, "sealed-control", "envelope").status == 201
    (control,) = generate(served.client, "sealed-control")
    with served.around.withdrawn(served.protector):
        client = served.client
        until(lambda: open_eek(client, control).status == 500)
        held = served.custody == "transit"
        until(lambda: held or open_eek(client, eek).status == 500)
        made = [roll(client, name).status, create(client, "sealed-later", served.custody).status]
        used = [open_eek(client, eek).status, generate_status(client, name)]
        assert (made, used) == (([200, 201], [200, 200]) if held else ([500, 500], [500, 500]))
    until(lambda: open_eek(client, control).status == 200)
    assert dek(client, eek) == found
    assert json_of(roll(client, name))["versionName"] == f"{name}@{2 if held else 1}"


def lose_the_root_key_file(site: Site, eek: Eek, found: str) -> None:
    """It is read when the server starts, and nothing that was made by its server opens without it."""
    aside = site.around.root_key.rename(site.around.root_key.with_name("aside"))
    assert dek(site.client, eek) == found
    site.stop()
    assert str(site.around.root_key) in site.refused()
    aside.rename(site.around.root_key)
    site.start()
    assert dek(site.client, eek) == found


def test_a_zone_key_that_vault_refuses_is_lost_alone_and_only_where_vault_holds_it(served: Site) -> None:
    before = served.around.zone_keys()
    client, name = served.client, served.key("held")
    made = served.around.zone_keys() - before
    (eek,), (beside,) = generate(client, name), generate(client, served.key("held-other"))
    found = dek(client, eek)
    if served.custody == "envelope":
        assert not made, "Vault has nothing of it"
        return
    (transit_key,) = made
    with served.around.denied(transit_key):
        until(lambda: open_eek(client, eek).status == 500)
        assert generate_status(client, name) == 500
        assert open_eek(client, beside).status == 200
    until(lambda: open_eek(client, eek).status == 200)
    assert dek(client, eek) == found


@pytest.mark.parametrize("engine", ["postgresql", "vault-kv"])
def test_two_servers_on_one_store_agree_about_a_key_that_vault_holds(
    request: pytest.FixtureRequest,
    engine: str,
    vault_cluster_on_double: VaultCluster,
    aws_kms_process: AwsKmsDouble,
    tmp_path: Path,
) -> None:
    stores = stores_of(request, engine, vault_cluster_on_double, tmp_path)
    around, uri = Surroundings.make(tmp_path, stores, vault_cluster_on_double, aws_kms_process), stores.new_database()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = (Site(tmp_path / name, around, uri, "file", "transit") for name in ("a", "b"))
    with first.serving("--init"), second.serving():
        a, b = first.client, second.client
        for number in range(5):
            name = f"k{number}"
            assert create(a, name).status == 201
            (eek,) = generate(b, name)
            secret = dek(a, eek)
            assert json_of(roll(b, name))["versionName"] == f"{name}@1"
            assert json_of(roll(a, name))["versionName"] == f"{name}@2"
            again = reencrypt(b, eek)
            assert (again[0], dek(a, again)) == (f"{name}@2", secret)
            assert call(a, "DELETE", f"/kms/v1/key/{name}").status == 200
            assert generate_status(b, name) == 500
            assert json_of(create(b, name))["versionName"] == f"{name}@3"
            assert dek(a, generate(b, name)[0])
    stores.recycle(uri)
