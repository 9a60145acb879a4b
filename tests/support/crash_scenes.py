"""A key store with what protects it, its kms.yaml and its backups in one directory that can be copied, and the commands
that are killed in it.

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
from typing import Any

from local_stores import material_of, new_key

from ringfence_agent.cli.keystore import keystore
from ringfence_agent.keystore.open import open_protected
from ringfence_agent.keystore.protector import Protector, Protectors
from ringfence_agent.keystore.sql.store import SqlKeyStore
from ringfence_agent.kms.config import Options, load_store_settings
from ringfence_zones.secret import Secret

KEYS = {"a": 2, "b": 1}
_STORE = "keys.db"


@dataclass(frozen=True)
class Scene:
    """`names` are the protectors of kms.yaml, `blocks` what sets the remote ones up, `remotes` opens them here."""

    directory: Path
    names: tuple[str, ...]
    blocks: Mapping[str, Any]
    remotes: Callable[[], tuple[Protector, ...]]

    @classmethod
    def make(
        cls,
        directory: Path,
        names: tuple[str, ...],
        blocks: Mapping[str, Any],
        remotes: Callable[[], tuple[Protector, ...]] = tuple,
    ) -> Scene:
        """With a store that has live keys and a deleted one; its newest slot is the first protector's."""
        directory.mkdir(mode=0o700)
        scene = cls(directory, names, blocks, remotes)
        for each in (scene.backups, scene.audit):
            each.mkdir(mode=0o700)
        scene._configure()
        # Once here, so that no child has to build what reads kms.yaml.
        load_store_settings(Options(config=scene.directory / "kms.yaml"))
        with scene.opened(init=True) as store:
            for name, versions in KEYS.items():
                store.create_key(new_key(name))
                for version in range(1, versions):
                    store.roll_key(name, material_of(name, version))
            store.create_key(new_key("gone"))
            store.delete_key("gone")
            store.publish_policy(0, b"{}", "root")
        return scene

    @property
    def store(self) -> Path:
        return self.directory / _STORE

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
        scene = replace(self, directory=directory)
        scene._configure()
        return scene

    @contextmanager
    def opened(self, *, init: bool = False) -> Iterator[SqlKeyStore]:
        """The store as another process would open it: all of it is verified."""
        protectors = Protectors("file" in self.names, self.remotes() if set(self.names) - {"file"} else ())
        root_key = self.root_key if protectors.with_file else None
        with closing(open_protected(f"sqlite:///{self.store}", root_key, init, None, protectors)) as store:
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
            "keystore": f"sqlite:///{self.store}",
            "protector": list(self.names),
            "admin": {"socket": str(self.directory / "no.sock")},
            "audit": {"directory": str(self.audit)},
            "backup": {"to": str(self.backups)},
            **self.blocks,
        }
        (self.directory / "kms.yaml").write_text(json.dumps(document))


def materials(store: SqlKeyStore) -> dict[str, list[Secret]]:
    """Of every live key, all of which must be what `material_of` says."""
    found = {}
    for metadata in store.list_metadata():
        key = store.find_key(metadata.name)
        assert key is not None
        found[metadata.name] = [version.material for version in key.versions]
        first = key.versions[0].version
        assert found[metadata.name] == [material_of(metadata.name, first + n) for n in range(len(key.versions))]
    return found


def left_directories() -> set[Path]:
    """Where backups were unpacked by processes that were killed: whoever lives holds the lock of his own."""
    return {path for path in Path("/dev/shm").glob("ringfence-backup-*") if _is_left(path)}


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
