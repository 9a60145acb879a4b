"""A KMS with keys in custody `transit`, on a Vault that is its own: the double, or the server the environment names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from http_serving import Answer, RawClient
from kms_serving import KmsPlace, RunningKms, call, json_of
from vault_clusters import VaultCluster

TRANSIT = {"ringfence.custody": "transit"}
Eek = tuple[str, dict[str, str]]
"""A version's name, and the body that opens the EDEK."""


@dataclass
class CustodyKms:
    """Where one such KMS lives. `vault_block` is what kms.yaml says of Vault."""

    place: KmsPlace
    vault_block: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def make(cls, directory: Path, cluster: VaultCluster, **settings: Any) -> CustodyKms:
        return cls(KmsPlace.make(directory), cluster.block, settings)

    @property
    def config(self) -> Path:
        return self.place.directory / "kms.yaml"

    def write_config(self) -> None:
        admin = {"socket": str(self.place.admin_socket)}
        self.config.write_text(json.dumps({"admin": admin, "vault": self.vault_block, **self.settings}))

    @contextmanager
    def serving(
        self, *options: str, workers: int = 1, environment: Mapping[str, str] | None = None
    ) -> Iterator[RunningKms]:
        self.write_config()
        config = ("--config", str(self.config))
        with self.place.serving(workers, *config, *options, environment=environment) as kms:
            yield kms


def create(client: RawClient, name: str, custody: str | None = "transit", **body: Any) -> Answer:
    attributes = {} if custody is None else {"ringfence.custody": custody}
    return call(client, "POST", "/kms/v1/keys", {"name": name, "length": 256, "attributes": attributes, **body})


def roll(client: RawClient, name: str) -> Answer:
    return call(client, "POST", f"/kms/v1/key/{name}", {})


def generate(client: RawClient, name: str, count: int = 1) -> list[Eek]:
    """New EDEKs."""
    query = {"eek_op": "generate", "num_keys": str(count)}
    return [eek_of(name, each) for each in json_of(call(client, "GET", f"/kms/v1/key/{name}/_eek", query=query))]


def eek_of(name: str, body: dict[str, Any]) -> Eek:
    assert body["encryptedKeyVersion"]["versionName"] == "EEK"
    return body["versionName"], {"name": name, "iv": body["iv"], "material": body["encryptedKeyVersion"]["material"]}


def open_eek(client: RawClient, eek: Eek, operation: str = "decrypt") -> Answer:
    path = f"/kms/v1/keyversion/{eek[0].replace('@', '%40')}/_eek"
    return call(client, "POST", path, eek[1], query={"eek_op": operation})


def deks(client: RawClient, eeks: list[Eek]) -> list[str]:
    """The DEKs in several."""
    return [dek(client, eek) for eek in eeks]


def dek(client: RawClient, eek: Eek) -> str:
    """The DEK in an EDEK, as the answer has it."""
    return str(json_of(open_eek(client, eek))["material"])


def reencrypt(client: RawClient, eek: Eek) -> Eek:
    return eek_of(eek[1]["name"], json_of(open_eek(client, eek, "reencrypt")))


def reencrypt_batch(client: RawClient, name: str, eeks: list[Eek]) -> Answer:
    body = [
        {
            "versionName": version_name,
            "iv": eek["iv"],
            "encryptedKeyVersion": {"versionName": "EEK", "material": eek["material"]},
        }
        for version_name, eek in eeks
    ]
    return call(client, "POST", f"/kms/v1/key/{name}/_reencryptbatch", body)
