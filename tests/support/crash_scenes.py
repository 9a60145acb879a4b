"""A key store with what protects it, its kms.yaml and its backups in one directory that can be copied, and the commands
that are killed in it. The store may be in a database, which is copied with the directory.

Commands run in this process, as `ringfence keystore` does: call them in a child.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from databases import DatabaseServer
from local_stores import material_of, new_key

from ringfence_agent.cli.keystore import keystore
from ringfence_agent.keystore.backup import unpacked
from ringfence_agent.keystore.held import HeldKey, TransitVersion
from ringfence_agent.keystore.interface import NewKey
from ringfence_agent.keystore.open import open_protected
from ringfence_agent.keystore.protector import Protector, Protectors
from ringfence_agent.keystore.sql.store import SqlKeyStore
from ringfence_agent.kms.config import Options, load_store_settings
from ringfence_zones.keys import DEFAULT_CIPHER
from ringfence_zones.secret import Secret

KEYS = {"a": 2, "b": 1, "held": 2}
"""The live keys of a scene `with_held`, and how many versions each has."""
HELD = [TransitVersion("z-" + "a" * 26, number) for number in (1, 3, 5)]
"""Where Vault has `held`, the first two of them from the start."""
_STORE = "keys.db"
_MEMORY = unpacked._IN_MEMORY


@dataclass(frozen=True)
class Scene:
    """`names` are the protectors of kms.yaml, `blocks` what sets the remote ones up, `remotes` opens them here."""

    directory: Path
    names: tuple[str, ...]
    blocks: Mapping[str, Any]
    remotes: Callable[[], tuple[Protector, ...]]
    server: DatabaseServer | None = None
    database: str = ""

    @classmethod
    def make(
        cls,
        directory: Path,
        names: tuple[str, ...],
        blocks: Mapping[str, Any],
        remotes: Callable[[], tuple[Protector, ...]] = tuple,
        *,
        server: DatabaseServer | None = None,
        with_held: bool = False,
    ) -> Scene:
        """With a store that has live keys and a deleted one; its newest slot is the first protector's. In a file, or
        in a new database of `server`. `with_held`: and a key that Vault holds, as far as the store knows.
        """
        directory.mkdir(mode=0o700)
        scene = cls(directory, names, blocks, remotes, server, "" if server is None else server.new_database())
        for each in (scene.backups, scene.audit):
            each.mkdir(mode=0o700)
        scene._configure()
        # Once here, so that no child has to build what reads kms.yaml.
        load_store_settings(Options(config=scene.directory / "kms.yaml"))
        with scene.opened(init=True) as store:
            for name, versions in (("a", 2), ("b", 1)):
                store.create_key(new_key(name))
                for version in range(1, versions):
                    store.roll_key(name, material_of(name, version))
            if with_held:
                store.create_key(NewKey("held", DEFAULT_CIPHER, 256, HELD[0], None, {"ringfence.custody": "transit"}))
                store.roll_key("held", HELD[1])
            store.create_key(new_key("gone"))
            store.delete_key("gone")
            store.publish_policy(0, b"{}", "root")
        return scene

    @property
    def store(self) -> Path:
        return self.directory / _STORE

    @property
    def uri(self) -> str:
        return self.database or f"sqlite:///{self.store}"

    @property
    def root_key(self) -> Path:
        """The file's slot is of this one, of the newest when there are two."""
        second = self.directory / "second.key"
        return second if second.exists() else self.directory / f"{_STORE}.root-key"

    @property
    def backups(self) -> Path:
        return self.directory / "backups"

    @property
    def audit(self) -> Path:
        return self.directory / "audit"

    def named(self, *names: str) -> Scene:
        """With other protectors in kms.yaml."""
        scene = replace(self, names=names)
        scene._configure()
        return scene

    def copied(self, directory: Path) -> Scene:
        shutil.copytree(self.directory, directory)
        database = "" if self.server is None else self.server.copy(self.database)
        scene = replace(self, directory=directory, database=database)
        scene._configure()
        return scene

    def drop(self) -> None:
        """Lets go of its database."""
        if self.server is not None:
            self.server.drop(self.database)

    @contextmanager
    def opened(self, *, init: bool = False) -> Iterator[SqlKeyStore]:
        """The store as another process would open it: all of it is verified."""
        protectors = Protectors("file" in self.names, self.remotes() if set(self.names) - {"file"} else ())
        root_key = self.root_key if protectors.with_file else None
        password = None if self.server is None else self.server.password_file
        with closing(open_protected(self.uri, root_key, init, password, protectors)) as store:
            yield store

    def run(self, *words: str) -> None:
        """`ringfence keystore WORDS`, which must do what it is asked. Raises what the command raises."""
        code = keystore.main([*words, *self.options(), "--json"], standalone_mode=False)
        assert not code, (words, code)

    def options(self) -> list[str]:
        """What a command is told of the store."""
        options = ["--config", str(self.directory / "kms.yaml")]
        return [*options, "--root-key", str(self.root_key)] if "file" in self.names else options

    def files(self) -> set[str]:
        """What is beside the store, but for what SQLite keeps there while it is open and after a kill."""
        passing = {f"{_STORE}{suffix}" for suffix in ("-wal", "-shm", "-owners")}
        kept = {self.root_key.name, f"{_STORE}.root-key", "kms.yaml", "backups", "audit", _STORE}
        return {path.name for path in self.directory.iterdir()} - passing - kept

    def restores_on_record(self) -> int:
        lines = [line for path in self.audit.glob("*.jsonl") for line in path.read_text().splitlines()]
        return [json.loads(line)["op"] for line in lines].count("RESTORE_KEYSTORE")

    def _configure(self) -> None:
        document = {
            "keystore": self.uri,
            "protector": list(self.names),
            "admin": {"socket": str(self.directory / "no.sock")},
            "audit": {"directory": str(self.audit)},
            "backup": {"to": str(self.backups)},
            **self.blocks,
        }
        if self.server is not None:
            document["keystore_password_file"] = str(self.server.password_file)
        (self.directory / "kms.yaml").write_text(json.dumps(document))


def materials(store: SqlKeyStore) -> dict[str, list[Secret]]:
    """Of every live key, all of which must be what `material_of` says. What is held has none, and is where it was."""
    found: dict[str, list[Secret]] = {}
    for metadata in store.list_metadata():
        key = store.find_key(metadata.name)
        assert key is not None
        if isinstance(key, HeldKey):
            places = [(version.version, version.place) for version in key.versions]
            assert places == list(enumerate(HELD[: len(places)]))
            found[metadata.name] = [Secret(b"")] * len(places)
            continue
        found[metadata.name] = [version.material for version in key.versions]
        first = key.versions[0].version
        assert found[metadata.name] == [material_of(metadata.name, first + n) for n in range(len(key.versions))]
    return found


def state_of(scene: Scene) -> dict[str, object]:
    """All of a store that is not made anew each time, and what is beside it."""
    with scene.opened() as store, store.snapshot() as snapshot:
        return {
            "change": store.change_number(),
            "policy": snapshot.facts.policy_revision,
            "slots": slots_of(store),
            "sealed": [(each.key_name, each.version) for each in snapshot.versions],
            "held": list(snapshot.held),
            "live": [(key.name, key.versions, key.attributes) for key in store.list_metadata()],
            "deleted": [key.metadata.name for key in store.list_deleted()],
            "files": scene.files(),
        }


def slots_of(store: SqlKeyStore) -> list[tuple[int, bool, int]]:
    return [(use.slot.id, use.is_active, use.versions) for use in store.slots.describe()]


@contextmanager
def own_memory() -> Iterator[None]:
    """Backups are unpacked in a directory of this run's own: a restore removes what a killed one left, and what a run
    beside this one has just left would be steps that its rehearsal did not have.
    """
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(prefix="ringfence-test-", dir=_MEMORY) as directory:
        patch.setattr(unpacked, "_IN_MEMORY", Path(directory))
        yield


def left_directories() -> set[Path]:
    """Where backups were unpacked by processes that were killed: whoever lives holds the lock of his own."""
    return {path for path in unpacked._IN_MEMORY.glob("ringfence-backup-*") if _is_left(path)}


def _is_left(directory: Path) -> bool:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False  # gone meanwhile, or another user's
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
