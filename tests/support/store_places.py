"""Where the contract suites of key stores run: one place for each pair of engine and protector.

A place is where one store lives: `open()` gives a handle on it (as another process would get), `stored_bytes()`
everything it wrote, for the canary scan. A new engine joins by adding a place, and its name to KINDS. A name with a
plus is a store that a remote protector (`protector_places`) opens alone and seals every key of. `vault-kv` is on the
double, and `vault-kv-real` on the server that the environment names.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pytest
from databases import DatabaseServer
from protector_places import REMOTE, RemotePlace
from vault_clusters import SERVERS, VaultCluster, vault_cluster, vault_server

from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.keystore.open import open_keystore
from ringfence_agent.keystore.protector import FILE_ALONE, Protectors


def _file_alone() -> Protectors:
    return FILE_ALONE


class Place(Protocol):
    """One store, wherever it is."""

    def open(self) -> OpenStore: ...

    def stored_bytes(self) -> bytes: ...

    def close(self) -> None: ...


@dataclass
class SqlitePlace:
    """A store in a file."""

    directory: Path
    opened: list[OpenStore] = field(default_factory=list)
    protectors: Callable[[], Protectors] = _file_alone

    def open(self) -> OpenStore:
        protectors = self.protectors()
        init = not protectors.with_file
        store = open_keystore(f"sqlite:///{self.directory}/keys.db", None, init, protectors=protectors)
        self.opened.append(store)
        return store

    def stored_bytes(self) -> bytes:
        return b"".join(path.read_bytes() for path in sorted(self.directory.iterdir()))

    def close(self) -> None:
        for store in self.opened:
            store.close()


@dataclass
class ServerPlace:
    """A store in a database server, with its root key in a directory of its own."""

    server: DatabaseServer
    directory: Path
    opened: list[OpenStore] = field(default_factory=list)
    uri: str = ""
    protectors: Callable[[], Protectors] = _file_alone

    def open(self) -> OpenStore:
        self.uri = self.uri or self.server.new_database()
        store = open_keystore(self.uri, self.root_key, True, self.server.password_file, self.protectors())
        self.opened.append(store)
        return store

    @property
    def root_key(self) -> Path:
        return self.directory / "root.key"

    def stored_bytes(self) -> bytes:
        files = sorted(path for path in (self.server.directory / "data").rglob("*") if path.is_file())
        return b"".join(path.read_bytes() for path in files)

    def close(self) -> None:
        for store in self.opened:
            store.close()
        self.opened.clear()
        if self.uri:
            self.server.recycle(self.uri)
            self.uri = ""


@dataclass
class VaultKvPlace:
    """A store in the KV engine of a Vault, with its root key in a directory of its own."""

    cluster: VaultCluster
    directory: Path
    opened: list[OpenStore] = field(default_factory=list)
    protectors: Callable[[], Protectors] = _file_alone
    name: str = field(default_factory=lambda: secrets.token_hex(4))

    def open(self) -> OpenStore:
        store = open_keystore(self.uri, self.root_key, True, None, self.protectors(), self.cluster.settings())
        self.opened.append(store)
        return store

    @property
    def uri(self) -> str:
        return f"vault://{self.prefix}"

    @property
    def prefix(self) -> str:
        return f"ringfence/{self.cluster.name}/{self.name}"

    @property
    def root_key(self) -> Path:
        return self.directory / "root.key"

    def document(self, path: str, version: int | None = None) -> dict[str, str]:
        """One version of a document as Vault has it; the newest one when none is named."""
        wanted = "" if version is None else f"?version={version}"
        data = self.cluster.done("GET", f"{self.cluster.kv_mount}/data/{self.prefix}/{path}{wanted}").data
        return dict(data["data"])

    def paths(self, below: str = "") -> list[str]:
        """Every document."""
        folder = f"{self.cluster.kv_mount}/metadata/{self.prefix}/{below}?list=true"
        names = self.cluster.call("GET", folder).body.get("data", {}).get("keys", [])
        found = [each for name in names if name.endswith("/") for each in self.paths(below + name)]
        return found + [below + name for name in names if not name.endswith("/")]

    def stored_bytes(self) -> bytes:
        """Every version of every document, texts in Base64 decoded beside what holds them."""
        found = []
        for path in self.paths():
            metadata = self.cluster.done("GET", f"{self.cluster.kv_mount}/metadata/{self.prefix}/{path}").data
            for version in metadata["versions"]:
                body = self.document(path, int(version))["body"]
                found += [body.encode(), *_decoded(json.loads(body))]
        return b"".join(found)

    def close(self) -> None:
        for store in self.opened:
            store.close()


def _decoded(value: object) -> Iterator[bytes]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _decoded(each)
    elif isinstance(value, str):
        try:
            yield base64.b64decode(value, validate=True)
        except ValueError:
            return


@dataclass
class VaultStores:
    """A Vault where key servers share stores, as `databases.DatabaseServer` is a database server."""

    cluster: VaultCluster

    @property
    def port(self) -> int:
        port = urlsplit(self.cluster.addresses[0]).port
        assert port is not None
        return port

    def new_database(self) -> str:
        return f"vault://ringfence/{self.cluster.name}/{secrets.token_hex(4)}"

    def recycle(self, uri: str) -> None:
        """Stores go with their cluster."""

    def kms_yaml(self, port: int | None = None) -> str:
        """What a key server needs, which finds Vault at another port than its own."""
        (address,) = self.cluster.addresses
        block = {
            "addresses": [address.replace(f":{self.port}", f":{port or self.port}")],
            "cluster": self.cluster.name,
            "kv_mount": self.cluster.kv_mount,
            "token_file": str(self.cluster.settings().token_file),
            "auth": {"method": "token_file"},
        }
        return f"vault: {json.dumps(block)}\n"


def shared_stores(request: pytest.FixtureRequest, engine: str) -> DatabaseServer | VaultStores:
    """Where several key servers share stores: a database server by its name, or one of VAULT_KV."""
    if engine in VAULT_KV:
        return VaultStores(storing_cluster(request, engine))
    found = request.getfixturevalue(engine)
    assert isinstance(found, DatabaseServer)
    return found


VAULT_KV = ["vault-kv" if server == "double" else f"vault-kv-{server}" for server in SERVERS]

KINDS = [
    "sqlite",
    "postgresql",
    *(f"sqlite+{remote}" for remote in REMOTE),
    *(pytest.param(f"postgresql+{remote}", marks=pytest.mark.long) for remote in REMOTE),
    *(pytest.param(engine, marks=pytest.mark.long) for engine in VAULT_KV),
    *(pytest.param(f"{engine}+{remote}", marks=pytest.mark.long) for engine in VAULT_KV for remote in REMOTE),
    *(pytest.param(kind, marks=pytest.mark.long) for kind in ("mariadb", *(f"mariadb+{remote}" for remote in REMOTE))),
]


@pytest.fixture(scope="session")
def storing_cluster_on_double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultCluster]:
    """A Vault that keeps stores; the one that protects them may be sealed meanwhile."""
    with vault_server("double") as server, vault_cluster(server, tmp_path_factory.mktemp("vault")) as cluster:
        cluster.set_up_and_log_in()
        yield cluster


@pytest.fixture(scope="session")
def storing_cluster_on_real(vault_cluster_on_real: VaultCluster) -> VaultCluster:
    """The same on the server that the environment names."""
    return vault_cluster_on_real


def storing_cluster(request: pytest.FixtureRequest, engine: str) -> VaultCluster:
    """The Vault of one of VAULT_KV."""
    server = "real" if engine.endswith("-real") else "double"
    cluster = request.getfixturevalue(f"storing_cluster_on_{server}")
    assert isinstance(cluster, VaultCluster)
    return cluster


@pytest.fixture(params=KINDS)
def new_place(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    find_remote: Callable[[str], RemotePlace],
) -> Iterator[Callable[[], Place]]:
    """Makes places of one kind, each fresh."""
    made: list[Place] = []
    engine, _, remote = request.param.partition("+")
    place = find_remote(remote) if remote else None

    def protectors() -> Protectors:
        return FILE_ALONE if place is None else place.protectors

    def make() -> Place:
        directory = tmp_path_factory.mktemp("store")
        if engine == "sqlite":
            made.append(SqlitePlace(directory, protectors=protectors))
        elif engine in VAULT_KV:
            made.append(VaultKvPlace(storing_cluster(request, engine), directory, protectors=protectors))
        else:
            made.append(ServerPlace(request.getfixturevalue(engine), directory, protectors=protectors))
        return made[-1]

    yield make
    for place in made:
        place.close()


@pytest.fixture
def place(new_place: Callable[[], Place]) -> Place:
    """A fresh place."""
    return new_place()


@pytest.fixture
def store(place: Place) -> OpenStore:
    """A handle on a fresh store."""
    return place.open()
