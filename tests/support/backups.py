"""Backups of stores on disk, for tests: making them, changing them as a thief would, and reading what is in them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from local_stores import LocalStore, new_key

from ringfence_agent.keystore.backup.file_format import PURPOSE, BackupFile, BodyDigest, write_file, write_records
from ringfence_agent.keystore.backup.make import BackupMade, make_backup
from ringfence_agent.keystore.backup.place import S3Options, unnamed_file
from ringfence_agent.keystore.backup.places import parse_place
from ringfence_agent.keystore.backup.records import Record
from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.keystore.protectors.file import FileProtector
from ringfence_zones.errors import RevisionConflictError


@dataclass
class BackupScene:
    """A store with a bit of everything, and a directory for its backups."""

    store: LocalStore
    backups: Path

    @classmethod
    def make(cls, directory: Path) -> BackupScene:
        for name in ("store", "backups"):
            (directory / name).mkdir(mode=0o700)
        scene = cls(LocalStore(directory / "store"), directory / "backups")
        with closing(scene.store.open()) as store:
            fill(store)
        return scene

    @property
    def protectors(self) -> list[FileProtector]:
        return [FileProtector.from_file(self.store.root_key)]

    def back_up(self, to: Path | None = None) -> BackupMade:
        with closing(self.store.open()) as store:
            return make_backup(store, parse_place(str(to or self.backups), S3Options()))

    def resigned(self, source: Path, change: Callable[[list[Record]], list[Record]]) -> Path:
        """A backup whose records somebody changed who could sign it: what only the rows' own seals can find."""
        target = source.with_name("changed.rfbackup")
        with closing(BackupFile.open(source)) as backup, closing(self.store.open()) as store, unnamed_file() as body:
            digest = BodyDigest()
            write_records(body, change(list(backup.records())), digest)
            numbers = {"rows": digest.rows, "body_bytes": digest.body_bytes, "sha256": digest.sha256}
            with target.open("wb") as stream:
                write_file(stream, backup.manifest.model_copy(update=numbers), store.derive_secret(PURPOSE), body)
        return target


def fill(store: OpenStore) -> None:
    """Live keys, a rolled one, a deleted one, one that was made again, a policy, tokens."""
    for name in ("plain", "rolled", "gone", "again"):
        store.create_key(new_key(name))
    store.roll_key("rolled", None)
    store.delete_key("gone")
    store.delete_key("again")
    store.create_key(new_key("again", 1))
    try:
        store.publish_policy(0, b'{"version":1}', "root")
    except RevisionConflictError:
        pass
    store.next_sequence()
