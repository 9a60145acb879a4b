"""Where the contract suites of key stores run: one place for each engine.

A place is where one store lives: `open()` gives a handle on it (as another process would get), `stored_bytes()`
everything it wrote, for the canary scan. A new engine joins by adding a place, and its name to KINDS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest
from databases import DatabaseServer

from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.keystore.open import open_keystore


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

    def open(self) -> OpenStore:
        store = open_keystore(f"sqlite:///{self.directory}/keys.db", None, init=False)
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

    def open(self) -> OpenStore:
        self.uri = self.uri or self.server.new_database()
        store = open_keystore(self.uri, self.root_key, init=True, password_file=self.server.password_file)
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


KINDS = ["sqlite", "postgresql", pytest.param("mariadb", marks=pytest.mark.long)]


@pytest.fixture(params=KINDS)
def new_place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Place]]:
    """Makes places of one kind, each fresh."""
    made: list[Place] = []

    def make() -> Place:
        directory = tmp_path_factory.mktemp("store")
        if request.param == "sqlite":
            made.append(SqlitePlace(directory))
        else:
            made.append(ServerPlace(request.getfixturevalue(request.param), directory))
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
