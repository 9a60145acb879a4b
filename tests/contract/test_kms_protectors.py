"""The real server with its keys under remote protectors: what it serves while one is away, and how a store moves."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aws_kms_double import AwsKmsDouble
from http_serving import Answer, RawClient
from kms_serving import KmsPlace, RunningKms, call, json_of, remote_exception_of
from protector_places import RemotePlace
from vault_clusters import VaultCluster

from ringfence_agent.keystore.protectors.aws_kms_config import AwsKmsSettings

DEADLINE_S = 20.0
RETRIABLE = "org.apache.hadoop.ipc.RetriableException"


class Protected:
    """A KMS whose kms.yaml sets both remote protectors up, and names some."""

    def __init__(self, directory: Path, cluster: VaultCluster, aws: AwsKmsSettings) -> None:
        self.place = KmsPlace.make(directory)
        self._blocks = {
            "admin": {"socket": str(self.place.admin_socket)},
            "vault": {
                "addresses": cluster.addresses,
                "cluster": cluster.name,
                "kv_mount": cluster.kv_mount,
                "token_file": str(cluster.settings().token_file),
                "auth": {"method": "token_file"},
            },
            "aws_kms": {"key": aws.key, "cluster": aws.cluster, "endpoint": aws.endpoint, "deadline": "2s"},
            "key_memory": "300s",
        }

    @property
    def config(self) -> Path:
        return self.place.directory / "kms.yaml"

    @contextmanager
    def serving(self, *protectors: str, workers: int = 1, init: bool = False) -> Iterator[RunningKms]:
        self.name(*protectors)
        options = ["--init"] if init else []
        with self.place.serving(workers, "--config", str(self.config), *options) as kms:
            yield kms

    def name(self, *protectors: str) -> None:
        self.config.write_text(json.dumps({**self._blocks, "protector": list(protectors)}))

    def run(self, *arguments: str, exit_code: int = 0) -> str:
        """`ringfence keystore ...` beside the server; what it printed."""
        command = [str(Path(sys.executable).with_name("ringfence")), "keystore", *arguments]
        options = ["--config", str(self.config), "--keystore", f"sqlite:///{self.place.store}"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        assert done.returncode == exit_code, done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def protected(
    tmp_path: Path,
    vault_cluster_on_double: VaultCluster,
    aws_kms_settings: AwsKmsSettings,
    aws_kms_double: AwsKmsDouble,
) -> Protected:
    assert aws_kms_double is not None  # its credentials are in the environment
    return Protected(tmp_path, vault_cluster_on_double, aws_kms_settings)


def create(client: RawClient, name: str) -> Answer:
    return call(client, "POST", "/kms/v1/keys", {"name": name, "length": 256})


def generate(client: RawClient, name: str) -> tuple[str, dict[str, str]]:
    (eek,) = json_of(call(client, "GET", f"/kms/v1/key/{name}/_eek", query={"eek_op": "generate"}))
    return eek["versionName"], {"name": name, "iv": eek["iv"], "material": eek["encryptedKeyVersion"]["material"]}


def decrypt(client: RawClient, eek: tuple[str, dict[str, str]]) -> Answer:
    path = f"/kms/v1/keyversion/{eek[0].replace('@', '%40')}/_eek"
    return call(client, "POST", path, eek[1], query={"eek_op": "decrypt"})


@pytest.fixture
def vault(find_remote: Callable[[str], RemotePlace]) -> RemotePlace:
    return find_remote("vault-transit")


@pytest.fixture
def aws(find_remote: Callable[[str], RemotePlace]) -> RemotePlace:
    return find_remote("aws-kms")


@pytest.mark.parametrize("name", ["vault-transit", "aws-kms"])
def test_a_store_that_a_remote_protector_opens_alone_is_served_and_survives_its_absence(
    protected: Protected, name: str, request: pytest.FixtureRequest
) -> None:
    away: RemotePlace = request.getfixturevalue(name.partition("-")[0])
    assert away.stop is not None and away.start is not None
    with protected.serving(name, init=True) as kms:
        client = kms.one_worker()
        for key in ("warm", "cold"):
            assert create(client, key).status == 201
        warm, cold = generate(client, "warm"), generate(client, "cold")
        assert call(client, "POST", "/kms/v1/key/warm", {}).status == 200
        first = json_of(decrypt(client, warm))
    assert not list(protected.place.directory.glob("*root-key*"))
    with protected.serving(name) as kms:
        client = kms.one_worker()
        assert json_of(decrypt(client, warm)) == first
        away.stop()
        assert json_of(decrypt(client, warm)) == first
        assert call(client, "GET", "/kms/v1/key/cold/_metadata").status == 200
        for refused in (decrypt(client, cold), create(client, "new"), call(client, "POST", "/kms/v1/key/cold", {})):
            assert remote_exception_of(refused)[:2] == (503, RETRIABLE)
        assert call(client, "GET", "/health/ready", user=None).status == 503
        away.start()
        deadline = time.monotonic() + DEADLINE_S
        while decrypt(client, cold).status != 200:
            assert time.monotonic() < deadline
        assert create(client, "new").status == 201
        eeks = [generate(client, "warm"), warm]
        assert [eek[0] for eek in eeks] == ["warm@1", "warm@0"]
        assert {decrypt(client, eek).status for eek in eeks} == {200}


def test_a_store_moves_between_three_protectors_while_it_is_served(protected: Protected, vault: RemotePlace) -> None:
    everyone = ("file", "vault-transit", "aws-kms")
    with protected.serving(*everyone, workers=2) as kms:
        clients = kms.every_worker()
        for number in range(6):
            assert create(clients[0], f"k{number}").status == 201
        eeks = [generate(clients[1], f"k{number}") for number in range(6)]
        answers = [json_of(decrypt(clients[0], eek)) for eek in eeks]

        def check() -> None:
            for client in clients:
                assert [json_of(decrypt(client, eek)) for eek in eeks] == answers

        for slot, protector in ((2, "vault-transit"), (3, "aws-kms")):
            assert f"new keys are sealed by slot {slot} ({protector}" in protected.run("protect", "--with", protector)
            check()
            assert call(clients[0], "POST", "/kms/v1/key/k0", {}).status == 200
            check()
            assert "moved; all are sealed by" in protected.run("rewrap")
            check()
            assert f"slot {slot - 1} " in protected.run("unprotect", str(slot - 1))
            protected.name(*everyone[slot - 1 :])
            check()
        slots = json.loads(protected.run("slots", "--json"))["slots"]
        assert [(slot["slot"], slot["protector"], slot["active"], slot["versions"]) for slot in slots] == [
            (3, "aws-kms", True, 8)
        ]
        new_root_key = protected.place.directory / "new.root-key"
        protected.run("protect", "--with", "file", "--new-root-key", str(new_root_key))
        assert "0 versions" not in protected.run("rewrap")
        check()
        assert "stop every key server" in protected.run("rotate-root", exit_code=2)
    protected.run("rotate-root", "--root-key", str(new_root_key), exit_code=2)  # kms.yaml does not name `file`
    protected.name("file", "aws-kms")
    assert "sealed for 2 slots" in protected.run("rotate-root", "--root-key", str(new_root_key))
    protected.run("unprotect", "3", "--root-key", str(new_root_key))
    protected.name("file")
    with protected.place.serving(1, "--config", str(protected.config), "--root-key", str(new_root_key)) as kms:
        client = kms.one_worker()
        assert [json_of(decrypt(client, eek)) for eek in eeks] == answers


def test_a_server_that_is_not_set_up_for_the_active_slot_says_which_setting_it_lacks(
    protected: Protected, vault: RemotePlace
) -> None:
    with protected.serving("file") as kms:
        client = kms.one_worker()
        assert create(client, "k").status == 201
        eek = generate(client, "k")
        protected.run("protect", "--with", "vault-transit")
        assert decrypt(client, eek).status == 200
        status, kind, message = remote_exception_of(create(client, "new"))
        assert (status, kind) == (503, RETRIABLE)
        assert "slot 2 (vault-transit" in message


def test_no_key_memory_and_a_remote_protector_do_not_go_together(protected: Protected) -> None:
    protected._blocks["key_memory"] = "0s"
    protected.name("vault-transit")
    done = subprocess.run(
        [*protected.place.command("--init"), "--config", str(protected.config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "key_memory is 0" in done.stderr and "vault-transit" in done.stderr
