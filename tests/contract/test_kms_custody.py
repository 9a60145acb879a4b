"""One contract for what a KMS does with a key, over every (store, protector, custody): the real server on each.

The Vault that protects, and the one that holds keys, is the double; where the environment names a real one, that too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aws_kms_double import AwsKmsDouble
from databases import DatabaseServer
from http_serving import RawClient
from kms_serving import KmsPlace, RunningKms, call, json_of, remote_exception_of
from store_places import VaultStores
from transit_custody import (
    CustodyKms,
    Eek,
    create,
    dek,
    eek_of,
    generate,
    open_eek,
    reencrypt,
    reencrypt_batch,
    roll,
)
from vault_clusters import SERVERS, VaultCluster

from ringfence_agent.keystore.protectors.aws_kms_config import AwsKmsSettings

ENGINES = ("sqlite", "postgresql", "mariadb", "vault-kv")
PROTECTORS = ("file", "vault-transit", "aws-kms")
# The pairs that the test command runs; all others are `long`.
_ALWAYS = {("sqlite", "file"), ("sqlite", "vault-transit"), ("sqlite", "aws-kms"), ("postgresql", "file")}
PAIRS = [
    pytest.param((engine, protector, "double"), id=f"{engine}+{protector}", marks=marks)
    for engine in ENGINES
    for protector in PROTECTORS
    for marks in [() if (engine, protector) in _ALWAYS else pytest.mark.long]
] + [pytest.param(("sqlite", "vault-transit", "real"), id="sqlite+vault-transit-real") for _ in SERVERS[1:]]


@dataclass
class Served:
    """One server that tests of one pair share, with the custody that a test's keys are in."""

    kms: RunningKms
    place: CustodyKms
    custody: str

    @property
    def client(self) -> RawClient:
        return self.kms.one_worker()

    def key(self, name: str) -> str:
        """A key of this custody; its name is the test's own."""
        full = f"{self.custody}-{name}"
        assert create(self.client, full, self.custody).status == 201
        return full


@pytest.fixture(scope="module", params=PAIRS)
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningKms, CustodyKms]]:
    engine, protector, server = request.param
    cluster: VaultCluster = request.getfixturevalue(f"vault_cluster_on_{server}")
    directory = tmp_path_factory.mktemp("kms")
    environment: dict[str, str] = {}
    settings: dict[str, Any] = {"protector": [protector]}
    options = ["--init"] if protector != "file" or engine != "sqlite" else []
    with ExitStack() as stack:
        if protector == "aws-kms":
            aws: AwsKmsDouble = request.getfixturevalue("aws_kms_process")
            keys: AwsKmsSettings = request.getfixturevalue("aws_kms_settings")
            settings["aws_kms"] = {"key": keys.key, "cluster": keys.cluster, "endpoint": keys.endpoint}
            environment = {**aws.server.environment(), "AWS_CONFIG_FILE": os.devnull}
        place = CustodyKms.make(directory, cluster, **settings)
        if engine != "sqlite":
            stores = stores_of(request, engine, cluster)
            uri = stores.new_database()
            stack.callback(stores.recycle, uri)
            place.place = DatabasePlace(directory, uri)
            place.settings["audit"] = {"directory": str(place.place.audit_directory)}
            options += password_options(stores)
            if protector == "file":
                options += ["--root-key", str(directory / "root.key")]
        yield stack.enter_context(place.serving(*options, environment=environment)), place


def stores_of(request: pytest.FixtureRequest, engine: str, cluster: VaultCluster) -> DatabaseServer | VaultStores:
    """Where a KMS keeps its keys: in the database server, or in the same Vault that holds others."""
    if engine == "vault-kv":
        return VaultStores(cluster)
    found = request.getfixturevalue(engine)
    assert isinstance(found, DatabaseServer)
    return found


def password_options(stores: DatabaseServer | VaultStores) -> list[str]:
    return ["--keystore-password-file", str(stores.password_file)] if isinstance(stores, DatabaseServer) else []


@dataclass
class DatabasePlace(KmsPlace):
    """A KMS whose keys rest in a server, of a database or Vault."""

    uri: str = ""

    def command(self, *options: str) -> list[str]:
        found = super().command(*options)
        found[found.index("--keystore") + 1] = self.uri
        return found


@pytest.fixture(params=["envelope", "transit"])
def served(request: pytest.FixtureRequest, running: tuple[RunningKms, CustodyKms]) -> Served:
    return Served(*running, request.param)


def deks(client: RawClient, eeks: list[Eek]) -> list[str]:
    return [dek(client, eek) for eek in eeks]


def test_what_is_made_opens_again_and_only_there(served: Served) -> None:
    client, name = served.client, served.key("opens")
    eeks = generate(client, name, 10)
    found = deks(client, eeks)
    assert len(set(found)) == len({eek[1]["iv"] for eek in eeks}) == 10
    assert deks(client, eeks) == found
    other = served.key("opens-not")
    status, _, message = remote_exception_of(open_eek(client, (f"{other}@0", eeks[0][1])))
    assert status == 400 and "does not belong" in message
    assert open_eek(client, (f"{name}@1", eeks[0][1])).status == 400, "there is no such version"


def test_a_roll_keeps_old_files_open_and_reencryption_keeps_their_keys(served: Served) -> None:
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


def test_a_deleted_key_opens_nothing_and_comes_back(served: Served) -> None:
    client, name = served.client, served.key("deleted")
    (eek,) = generate(client, name)
    secret = dek(client, eek)
    assert call(client, "DELETE", f"/kms/v1/key/{name}").status == 200
    assert open_eek(client, eek).status == 400
    admin = served.kms.connect_admin()
    assert call(admin, "POST", f"/ringfence/v1/key/{name}/_undelete", {}, user=None).status == 200
    admin.socket.close()
    assert dek(client, eek) == secret
    assert call(client, "DELETE", f"/kms/v1/key/{name}").status == 200
    assert json_of(create(client, name, served.custody))["versionName"] == f"{name}@1"
    assert open_eek(client, eek).status == 400
    (new,) = generate(client, name)
    assert new[0] == f"{name}@1" and open_eek(client, new).status == 200


def test_a_key_of_128_bits_makes_data_keys_of_128(served: Served) -> None:
    client, name = served.client, f"{served.custody}-small"
    assert create(client, name, served.custody, length=128).status == 201
    (eek,) = generate(client, name)
    assert len(dek(client, eek)) == 22
    assert open_eek(client, eek).status == 200


def test_its_custody_shows_in_its_metadata_and_in_absent_material(served: Served) -> None:
    client, name = served.client, served.key("shown")
    metadata = json_of(call(client, "GET", f"/kms/v1/key/{name}/_metadata"))
    assert metadata["attributes"]["ringfence.custody"] == served.custody
    material = json_of(call(client, "GET", f"/kms/v1/keyversion/{name}%400"))["material"]
    assert (material is None) == (served.custody == "transit")


@pytest.mark.parametrize("engine", ["postgresql", "vault-kv"])
def test_two_servers_on_one_store_agree_about_a_key_that_vault_holds(
    request: pytest.FixtureRequest, engine: str, vault_cluster_on_double: VaultCluster, tmp_path: Path
) -> None:
    stores = stores_of(request, engine, vault_cluster_on_double)
    uri, root_key = stores.new_database(), tmp_path / "root.key"
    options = ["--init", *password_options(stores), "--root-key", str(root_key)]

    def server(name: str) -> CustodyKms:
        (tmp_path / name).mkdir()
        place = CustodyKms.make(tmp_path / name, vault_cluster_on_double)
        place.place = DatabasePlace(tmp_path / name, uri)
        place.settings["audit"] = {"directory": str(place.place.audit_directory)}
        return place

    with server("a").serving(*options) as first, server("b").serving(*options) as second:
        a, b = first.one_worker(), second.one_worker()
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


def generate_status(client: RawClient, name: str) -> int:
    return call(client, "GET", f"/kms/v1/key/{name}/_eek", query={"eek_op": "generate"}).status
