"""A store on disk with several protectors, which need not be those that it is opened with next time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lockbox import Lockbox, LockboxProtector

from ringfence_agent.keystore.open import open_protected
from ringfence_agent.keystore.protector import Protectors
from ringfence_agent.keystore.sql.store import SqlKeyStore


@dataclass
class ProtectedStore:
    """An SQLite store, its root key file, and lockboxes."""

    directory: Path
    boxes: list[Lockbox] = field(default_factory=list)
    with_file: bool = True
    root_key_name: str = "keys.db.root-key"

    @property
    def path(self) -> Path:
        return self.directory / "keys.db"

    @property
    def root_key(self) -> Path:
        return self.directory / self.root_key_name

    @property
    def protectors(self) -> Protectors:
        return Protectors(self.with_file, tuple(LockboxProtector(box) for box in self.boxes))

    def open(self) -> SqlKeyStore:
        return open_protected(f"sqlite:///{self.path}", self.root_key, False, None, self.protectors)
