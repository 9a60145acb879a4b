"""One key server for each (store, protector, custody), as an operator runs it: what one suite is run over.

A site is told everything by its kms.yaml, so that commands beside the server find what it finds. It can be stopped,
restarted with other protectors, and cut off from what seals its keys or holds them. All of one Vault is one cluster's:
it seals, it holds zone keys, and it keeps the stores of the engine `vault-kv`.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet
from aws_kms_double import AwsKmsDouble
from aws_kms_places import double_settings, make_key
from databases import DatabaseServer
from http_serving import RawClient
from kms_serving import KmsPlace, RunningKms, call
from protected_kms import remote_blocks
from sandboxes import RINGFENCE
from store_places import VaultStores
from transit_custody import create
from vault_clusters import SERVERS, VaultCluster

from ringfence_agent.vault.policy import PolicyRole, policy_name
from ringfence_agent.vault.settings import WRAP_KEY

ENGINES = ("sqlite", "postgresql", "mariadb", "vault-kv")
PROTECTORS = ("file", "vault-transit", "aws-kms")
CUSTODIES = ("envelope", "transit")
_DEADLINE_S = 20.0


@dataclass(frozen=True)
class Triple:
    """What keeps the records, what seals, and who holds zone keys. `server` says which Vault: see `vault_clusters`."""

    engine: str
    protector: str
    custody: str
    server: str = "double"

    def __str__(self) -> str:
        real = "" if self.server == "double" else f"-on-{self.server}"
        return f"{self.engine}+{self.protector}+{self.custody}{real}"


def triples(spread: Set[Triple]) -> list[ParameterSet]:
    """Every combination, for a fixture's `params`: those of `spread` in every run, all others `long`."""
    return [
        pytest.param(triple, id=str(triple), marks=[] if triple in spread else [pytest.mark.long])
        for engine in ENGINES
        for protector in PROTECTORS
        for custody in CUSTODIES
        for triple in [Triple(engine, protector, custody)]
    ] + [pytest.param(triple, id=str(triple)) for triple in ON_REAL]


ON_REAL = [
    Triple(engine, "vault-transit", custody, server)
    for server in SERVERS[1:]
    for engine in ("sqlite", "vault-kv")
    for custody in CUSTODIES
]
"""What is run on the Vault that the environment names."""


@dataclass
class FileStores:
    """A directory where key servers keep stores, as `databases.DatabaseServer` is a database server."""

    directory: Path
    made: int = 0

    def new_database(self) -> str:
        self.made += 1
        return f"sqlite:///{self.directory}/store-{self.made}.db"

    def recycle(self, uri: str) -> None:
        """Files go with the directory."""


Stores = FileStores | DatabaseServer | VaultStores


@dataclass
class ConfiguredPlace(KmsPlace):
    """A KMS whose command line names its kms.yaml and nothing else."""

    @property
    def config(self) -> Path:
        return self.directory / "kms.yaml"

    def command(self, *options: str) -> list[str]:
        return [str(RINGFENCE), "kms", "serve", "--config", str(self.config), *options]


@dataclass
class Surroundings:
    """What sites share: where stores are, a Vault, an AWS KMS with a key of their own, a root key file."""

    stores: Stores
    cluster: VaultCluster
    aws: AwsKmsDouble
    aws_key: str
    root_key: Path

    @classmethod
    def make(cls, directory: Path, stores: Stores, cluster: VaultCluster, aws: AwsKmsDouble) -> Surroundings:
        return cls(stores, cluster, aws, make_key(aws), directory / "root.key")

    @property
    def environment(self) -> dict[str, str]:
        nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        return {**self.aws.server.environment(), **nowhere}

    def zone_keys(self) -> set[str]:
        """The names of all Transit keys but the one that wraps."""
        answer = self.cluster.call("GET", f"{self.cluster.settings().transit_mount}/keys?list=true")
        return set(answer.data["keys"]) - {WRAP_KEY} if answer.status == 200 else set()

    @contextmanager
    def withdrawn(self, protector: str) -> Iterator[None]:
        """The protector says no for as long as the block takes: one that is asked over the network."""
        if protector == "vault-transit":
            with self.denied(WRAP_KEY):
                yield
            return
        assert protector == "aws-kms"
        admin = self.aws.client("kms", self.aws.admin)
        admin.disable_key(KeyId=self.aws_key)
        try:
            yield
        finally:
            admin.enable_key(KeyId=self.aws_key)

    @contextmanager
    def denied(self, transit_key: str) -> Iterator[None]:
        """The key server's policy lets it do nothing with one Transit key."""
        settings = self.cluster.settings()
        path = f"sys/policies/acl/{policy_name(PolicyRole.SERVICE, settings)}"
        policy = self.cluster.done("GET", path).data["policy"]
        denials = [
            f'path "{settings.transit_mount}/{operation}/{transit_key}" {{ capabilities = ["deny"] }}\n'
            for operation in ("encrypt", "decrypt", "rewrap")
        ]
        self.cluster.done("PUT", path, {"policy": policy + "".join(denials)})
        try:
            yield
        finally:
            self.cluster.done("PUT", path, {"policy": policy})


class Site:
    """One key server. `kms` is the process that runs now."""

    kms: RunningKms

    def __init__(self, directory: Path, around: Surroundings, uri: str, protector: str, custody: str) -> None:
        self.around = around
        self.uri = uri
        self.protector = protector
        self.custody = custody
        self.place = ConfiguredPlace.make(directory)
        self._running = ExitStack()
        self.name(protector)

    def name(self, *protectors: str) -> None:
        """Writes kms.yaml. Short key memory: what a protector withdrew is soon forgotten."""
        around, place = self.around, self.place
        aws = double_settings(around.aws, around.aws_key)
        document: dict[str, Any] = {
            "listen": "localhost:0",
            "hadoop_conf": str(place.conf),
            "keystore": self.uri,
            "root_key_file": str(around.root_key),
            "protector": list(protectors),
            "key_memory": "1s",
            "admin": {"socket": str(place.admin_socket)},
            "audit": {"directory": str(place.audit_directory)},
            **remote_blocks(around.cluster, aws),
        }
        if isinstance(around.stores, DatabaseServer):
            document["keystore_password_file"] = str(around.stores.password_file)
        place.config.write_text(json.dumps(document))

    @contextmanager
    def serving(self, *options: str) -> Iterator[Site]:
        self.start(*options)
        try:
            yield self
        finally:
            self.stop()

    def start(self, *options: str) -> None:
        served = self.place.serving(1, *options, environment=self.around.environment)
        self.kms = self._running.enter_context(served)

    def stop(self) -> None:
        self._running.close()

    def restart(self, *protectors: str) -> None:
        """With other protectors when they are given."""
        self.stop()
        if protectors:
            self.name(*protectors)
        self.start()

    def refused(self) -> str:
        """What a server says that does not start."""
        done = self._run(self.place.command("--workers", "1"))
        assert done.returncode != 0 and "ready" not in done.stdout, done
        return done.stderr

    @property
    def client(self) -> RawClient:
        return self.kms.one_worker()

    def key(self, name: str) -> str:
        """A new key of this site's custody."""
        assert create(self.client, name, self.custody).status == 201
        return name

    def undelete(self, name: str) -> None:
        admin = self.kms.connect_admin()
        assert call(admin, "POST", f"/ringfence/v1/key/{name}/_undelete", {}, user=None).status == 200
        admin.socket.close()

    def keystore(self, *arguments: str) -> Any:
        """`ringfence keystore ...` beside the server; its JSON."""
        done = self._run([str(RINGFENCE), "keystore", *arguments, "--config", str(self.place.config), "--json"])
        assert done.returncode == 0, (done.stdout, done.stderr)
        return json.loads(done.stdout)

    def protect_with(self, old: str, new: str) -> None:
        """Makes `new` the active protector, while keys are served; the server then knows both."""
        if new == "file":
            self.around.root_key.unlink(missing_ok=True)
            self.keystore("protect", "--with", "file", "--new-root-key", str(self.around.root_key))
            self.restart(old, new)
        else:
            self.restart(old, new)
            self.keystore("protect", "--with", new)

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.around.environment}
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)


@contextmanager
def site_of(request: pytest.FixtureRequest, directory: Path) -> Iterator[Site]:
    """The server of the fixture's triple, with an empty store."""
    triple: Triple = request.param
    cluster: VaultCluster = request.getfixturevalue(f"vault_cluster_on_{triple.server}")
    aws: AwsKmsDouble = request.getfixturevalue("aws_kms_process")
    stores = stores_of(request, triple.engine, cluster, directory)
    around = Surroundings.make(directory, stores, cluster, aws)
    uri = stores.new_database()
    with Site(directory, around, uri, triple.protector, triple.custody).serving("--init") as site:
        yield site
    stores.recycle(uri)


def stores_of(request: pytest.FixtureRequest, engine: str, cluster: VaultCluster, directory: Path) -> Stores:
    """Where a KMS keeps its records: with `vault-kv` in the same Vault that holds keys."""
    if engine == "sqlite":
        return FileStores(directory)
    if engine == "vault-kv":
        return VaultStores(cluster)
    found = request.getfixturevalue(engine)
    assert isinstance(found, DatabaseServer)
    return found


def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition; fails at the deadline."""
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.05)
