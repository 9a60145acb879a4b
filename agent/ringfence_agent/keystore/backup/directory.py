"""Backups in files: a directory with a high-water mark, or one file.

A file is whole or not there, whatever dies while it is written; what a killed process left half-written is removed by
the next backup to the same directory.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ringfence_agent.keystore.backup.file_format import SUFFIX, Manifest, copy_bytes
from ringfence_agent.keystore.backup.high_water import Mark, find_mark, raise_mark
from ringfence_agent.keystore.backup.names import backup_name, change_number_of, is_backup_name, newest_of
from ringfence_agent.keystore.local_files import directory_locked
from ringfence_zones.durable_file import install_durably, new_file, prepared_name
from ringfence_zones.errors import BackupError, InputError


class DirectoryPlace:
    """Files in a directory, and a high-water mark."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.label = str(directory)

    def check(self) -> None:
        """See BackupPlace."""
        if not self._directory.is_dir():
            raise InputError(
                f"there is no directory {self._directory} for backups",
                hint="make it, for the user that the key server runs as",
                command=f"install -d -m 700 {self._directory}",
            )
        if not os.access(self._directory, os.W_OK | os.X_OK):
            raise BackupError(f"uid {os.geteuid()} cannot write backups to {self._directory}")

    def find_newest_change(self, store_id: str) -> int | None:
        """See BackupPlace. By the mark, and by the names of the backups that are there."""
        mark = find_mark(self._directory, store_id)
        numbers = [] if mark is None else [mark.change_number]
        numbers += [number for name in self._list() if (number := change_number_of(name, store_id)) is not None]
        return max(numbers, default=None)

    def find_newest(self, store_id: str) -> str | None:
        """See BackupPlace."""
        newest = newest_of(self._list(), store_id)
        return None if newest is None else str(self._directory / newest)

    def _list(self) -> list[str]:
        try:
            return [path.name for path in self._directory.iterdir()]
        except OSError as error:
            raise BackupError(f"the backups in {self._directory} cannot be listed: {error.strerror}") from None

    def put(self, manifest: Manifest, content: BinaryIO) -> str:
        """See BackupPlace."""
        self.check()
        target = self._directory / backup_name(manifest)
        _write_whole(target, manifest, content)
        return str(target)

    def is_beside(self, path: Path) -> bool:
        """See BackupPlace."""
        return _are_on_one_disk(self._directory, path)


class FilePlace:
    """One file, which must not be there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.label = str(path)

    def check(self) -> None:
        """See BackupPlace."""
        if os.path.lexists(self._path):
            raise InputError(f"{self._path} is there already, and no backup is ever written over", hint="name another")
        DirectoryPlace(self._path.parent).check()

    def find_newest_change(self, store_id: str) -> int | None:
        """See BackupPlace."""
        return DirectoryPlace(self._path.parent).find_newest_change(store_id)

    def find_newest(self, store_id: str) -> str | None:
        """See BackupPlace."""
        return DirectoryPlace(self._path.parent).find_newest(store_id)

    def put(self, manifest: Manifest, content: BinaryIO) -> str:
        """See BackupPlace."""
        self.check()
        _write_whole(self._path, manifest, content)
        return str(self._path)

    def is_beside(self, path: Path) -> bool:
        """See BackupPlace."""
        return _are_on_one_disk(self._path.parent, path)


def _write_whole(target: Path, manifest: Manifest, content: BinaryIO) -> None:
    """The file, then the directory's mark, which may be missing: other backups' names say the same."""
    draft = prepared_name(target)
    try:
        with directory_locked(target.parent):
            _remove_drafts(target.parent)
            draft.unlink(missing_ok=True)
            try:
                with new_file(draft) as stream:
                    content.seek(0)
                    copy_bytes(content, stream.write)
                install_durably(draft, target)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
            with suppress(OSError):
                raise_mark(target.parent, manifest.store_id, Mark(manifest.change_number, manifest.made_ms))
    except FileExistsError:
        raise BackupError(f"{target} is there already, and no backup is ever written over") from None
    except OSError as error:
        raise BackupError(
            f"the backup {target} cannot be written: {error.strerror}",
            hint=f"see to space and permissions in {target.parent}; nothing was left half-written",
        ) from None


def _remove_drafts(directory: Path) -> None:
    """Of processes that died: whoever writes one now holds the directory's lock."""
    for path in directory.glob(f".ringfence-*{SUFFIX}.new"):
        if is_backup_name(path.name.removeprefix(".").removesuffix(".new")):
            path.unlink(missing_ok=True)


def _are_on_one_disk(directory: Path, path: Path) -> bool:
    try:
        return directory.stat().st_dev == path.stat().st_dev
    except OSError:
        return False
