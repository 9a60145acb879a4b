"""A store in a database server as one host sees it: for tests of how it comes into being and survives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from databases import DatabaseServer, database_of

from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.keystore.open import open_keystore


@dataclass
class SharedStore:
    """A database and, on one host, where its root key is."""

    server: DatabaseServer
    uri: str
    directory: Path

    @property
    def root_key(self) -> Path:
        return self.directory / "root.key"

    def open(self, *, init: bool = False) -> OpenStore:
        return open_keystore(self.uri, self.root_key, init, self.server.password_file)

    def on_another_host(self, name: str) -> SharedStore:
        directory = self.directory / name
        directory.mkdir(mode=0o700)
        return SharedStore(self.server, self.uri, directory)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())

    def sql(self, statement: str) -> None:
        """As someone with rights on the database who is not Ringfence."""
        prefix = "SET search_path = ringfence; " if self.server.kind == "postgresql" else ""
        self.server.sql(prefix + statement, database_of(self.uri))
