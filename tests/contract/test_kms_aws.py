"""The real server with its keys under AWS KMS: what AWS is asked, a disabled key, a move to another key, no leaks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from aws_kms_double import AwsKmsDouble
from aws_kms_places import CLUSTER, double_settings, make_key
from canary import Canaries
from http_serving import Answer, RawClient
from kms_serving import KmsPlace, RunningKms, call, json_of, remote_exception_of

from ringfence_agent.keystore.open import open_protected
from ringfence_agent.keystore.protector import Protectors
from ringfence_agent.keystore.protectors.aws_kms import open_aws_kms

NAMES = tuple(f"k{number}" for number in range(6))


class AwsKmsServer:
    """A KMS of two workers, under one key of the double."""

    def __init__(self, directory: Path, double: AwsKmsDouble) -> None:
        self.place = KmsPlace.make(directory)
        self.double = double
        self.key = make_key(double)
        self.former_keys: list[str] = []
        self.outputs: list[str] = []

    @property
    def config(self) -> Path:
        file = self.place.directory / "kms.yaml"
        block = {"key": self.key, "cluster": CLUSTER, "endpoint": self.double.url, "deadline": "3s"}
        document = {
            "protector": ["aws-kms"],
            "aws_kms": {**block, "former_keys": self.former_keys},
            "admin": {"socket": str(self.place.admin_socket)},
        }
        file.write_text(json.dumps(document))
        return file

    @contextmanager
    def serving(self, *options: str) -> Iterator[RunningKms]:
        # A log as talkative as it gets.
        with self.place.serving(2, "--config", str(self.config), "-vv", *options) as kms:
            yield kms
            kms.process.terminate()
            kms.close()
            _, stderr = kms.process.communicate(timeout=60)
            self.outputs.append(stderr.decode())

    def keystore(self, *arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("ringfence")), "keystore", *arguments, "-vv"]
        options = ["--config", str(self.config), "--keystore", f"sqlite:///{self.place.store}"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        self.outputs.append(done.stdout + done.stderr)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def take_operations(self) -> Counter[tuple[str, str]]:
        """How often each operation was asked for each key and version, since the last time."""
        return Counter(
            (each["operation"], f"{each['context']['ringfence:key']}@{each['context']['ringfence:version']}")
            for each in self.double.take_requests()
        )


@pytest.fixture
def server(tmp_path: Path, aws_kms_double: AwsKmsDouble) -> AwsKmsServer:
    return AwsKmsServer(tmp_path, aws_kms_double)


def generate(client: RawClient, name: str) -> tuple[str, dict[str, str]]:
    (eek,) = json_of(call(client, "GET", f"/kms/v1/key/{name}/_eek", query={"eek_op": "generate"}))
    return eek["versionName"], {"name": name, "iv": eek["iv"], "material": eek["encryptedKeyVersion"]["material"]}


def decrypt(client: RawClient, eek: tuple[str, dict[str, str]]) -> Answer:
    path = f"/kms/v1/keyversion/{eek[0].replace('@', '%40')}/_eek"
    return call(client, "POST", path, eek[1], query={"eek_op": "decrypt"})


def fill(server: AwsKmsServer) -> list[tuple[str, dict[str, str]]]:
    with server.serving("--init") as kms:
        client = kms.one_worker()
        for name in NAMES:
            assert call(client, "POST", "/kms/v1/keys", {"name": name, "length": 256}).status == 201
        return [generate(client, name) for name in NAMES]


def zone_keys(server: AwsKmsServer) -> dict[str, bytes]:
    """The material of each key, as the store's owner can have it."""
    protectors = open_aws_kms(double_settings(server.double, server.key))
    uri = f"sqlite:///{server.place.store}"
    with closing(open_protected(uri, None, False, None, Protectors(False, tuple(protectors)))) as store:
        found = {name: store.find_key(name) for name in NAMES}
    return {name: key.versions[0].material.reveal() for name, key in found.items() if key is not None}


def test_aws_is_asked_once_for_each_version_in_each_worker_however_many_edeks_are_opened(server: AwsKmsServer) -> None:
    eeks = fill(server)
    with server.serving() as kms:
        workers = kms.every_worker()
        server.take_operations()
        for _ in range(5):
            for client in workers:
                assert {decrypt(client, eek).status for eek in eeks} == {200}
        asked = server.take_operations()
    assert set(asked) == {("Decrypt", f"{name}@0") for name in NAMES}
    assert max(asked.values()) <= 2


def test_a_disabled_key_ends_what_is_not_in_memory_and_names_itself(server: AwsKmsServer) -> None:
    eeks = fill(server)
    admin = server.double.client("kms", server.double.admin)
    with server.serving() as kms:
        client = kms.one_worker()
        assert decrypt(client, eeks[0]).status == 200
        admin.disable_key(KeyId=server.key)
        assert decrypt(client, eeks[0]).status == 200
        status, kind, message = remote_exception_of(decrypt(client, eeks[1]))
        assert (status, kind) == (500, "java.io.IOException")
        assert message == f"AWS KMS key {server.key} is disabled"
        assert remote_exception_of(call(client, "POST", "/kms/v1/key/k0", {}))[0] == 500
        admin.enable_key(KeyId=server.key)
        assert decrypt(client, eeks[1]).status == 200
        assert call(client, "POST", "/kms/v1/key/k0", {}).status == 200


def test_a_store_moves_to_another_key_while_it_is_served_and_nobody_sees_a_secret(server: AwsKmsServer) -> None:
    canaries = Canaries()
    canaries.add("credential", server.double.server.secret)
    canaries.add("token", server.double.server.token or "")
    eeks = fill(server)
    keys = zone_keys(server)
    assert len(keys) == len(NAMES)
    for name, material in keys.items():
        canaries.add(f"zone key {name}", material)
    old, server.key = server.key, make_key(server.double)
    server.former_keys = [old]
    with server.serving() as kms:
        client = kms.one_worker()
        answers = [decrypt(client, eek) for eek in eeks]
        assert {answer.status for answer in answers} == {200}
        for number, answer in enumerate(answers):
            canaries.add_base64(f"dek {number}", json_of(answer)["material"])
        server.keystore("protect", "--with", "aws-kms")
        server.take_operations()
        assert "6 versions moved" in server.keystore("rewrap")
        # The others are of the store's root, whose key is named by hex digits.
        moved = {each for each in server.take_operations() if each[1].startswith("k")}
        assert moved == {("ReEncrypt", f"{name}@0") for name in NAMES}
        server.keystore("unprotect", "1")
        server.double.client("kms", server.double.admin).disable_key(KeyId=old)
        assert {decrypt(client, eek).status for eek in eeks} == {200}
        assert canaries.find_in_processes([kms.process.pid]) == {f"{kms.process.pid}/environ": {"credential", "token"}}
    server.former_keys = []
    with server.serving() as kms:
        client = kms.one_worker()
        assert [decrypt(client, eek).body for eek in eeks] == [answer.body for answer in answers]
    assert canaries.find_in_tree(server.place.directory) == {}
    assert canaries.find_in_texts({"output": "\n".join(server.outputs)}) == {}
