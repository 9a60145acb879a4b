"""A key server whose kms.yaml sets up Vault and AWS KMS, and what tests ask of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from http_serving import Answer, RawClient
from kms_serving import KmsPlace, RunningKms, call, json_of
from vault_clusters import VaultCluster

from ringfence_agent.keystore.protectors.aws_kms_config import AwsKmsSettings


class Protected:
    """A KMS whose kms.yaml sets both remote protectors up, and names some."""

    def __init__(self, directory: Path, cluster: VaultCluster, aws: AwsKmsSettings) -> None:
        self.place = KmsPlace.make(directory)
        self.blocks: dict[str, object] = {
            "admin": {"socket": str(self.place.admin_socket)},
            "key_memory": "300s",
            **remote_blocks(cluster, aws),
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
        self.config.write_text(json.dumps({**self.blocks, "protector": list(protectors)}))

    def run(self, *arguments: str, exit_code: int = 0) -> str:
        """`ringfence keystore ...` beside the server; what it printed."""
        command = [str(Path(sys.executable).with_name("ringfence")), "keystore", *arguments]
        options = ["--config", str(self.config), "--keystore", f"sqlite:///{self.place.store}"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        assert done.returncode == exit_code, done.stderr
        return done.stdout + done.stderr


def remote_blocks(cluster: VaultCluster, aws: AwsKmsSettings) -> dict[str, object]:
    """What kms.yaml says of both. The token is kept by whoever logged the cluster in."""
    return {
        "vault": cluster.block,
        "aws_kms": {"key": aws.key, "cluster": aws.cluster, "endpoint": aws.endpoint, "deadline": "2s"},
    }


def create(client: RawClient, name: str) -> Answer:
    return call(client, "POST", "/kms/v1/keys", {"name": name, "length": 256})


def generate(client: RawClient, name: str) -> tuple[str, dict[str, str]]:
    (eek,) = json_of(call(client, "GET", f"/kms/v1/key/{name}/_eek", query={"eek_op": "generate"}))
    return eek["versionName"], {"name": name, "iv": eek["iv"], "material": eek["encryptedKeyVersion"]["material"]}


def decrypt(client: RawClient, eek: tuple[str, dict[str, str]]) -> Answer:
    path = f"/kms/v1/keyversion/{eek[0].replace('@', '%40')}/_eek"
    return call(client, "POST", path, eek[1], query={"eek_op": "decrypt"})
