"""Where backups go and come from: a file, a directory, or a prefix of an S3 bucket (`s3`).

    FILE                 that file, which must not be there
    DIR                  a file in that directory, named after the store, its change number and the time
    s3://BUCKET/PREFIX   an object under that prefix, named likewise

Nothing is ever written over. A file is whole or not there, whatever dies while it is written; what a killed process
left half-written is removed by the next backup to the same directory.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from ringfence_agent.keystore.backup.file_format import SUFFIX, BackupFile, Manifest, copy_bytes
from ringfence_agent.keystore.backup.high_water import Mark, find_mark, raise_mark
from ringfence_agent.keystore.local_files import directory_locked
from ringfence_zones.durable_file import install_durably, new_file, prepared_name
from ringfence_zones.errors import BackupError, InputError

S3_SCHEME = "s3://"
_NAME = re.compile(r"ringfence-(?P<store>[0-9a-f]{16})-(?P<change>\d{10})-\d{8}T\d{9}Z" + re.escape(SUFFIX))
_SHOWN_ID = 16
_MEMORY_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """What only S3 knows. `kms_key_id` seals objects with SSE-KMS; `lock_s` holds each under Object Lock so long."""

    kms_key_id: str | None = None
    lock_s: float | None = None


class BackupPlace(Protocol):
    """See the module."""

    @property
    def label(self) -> str:
        """As it was named."""

    def check(self) -> None:
        """Raises ConfigError, InputError or BackupError when backups could not go there."""

    def find_newest_change(self, store_id: str) -> int | None:
        """The highest change number of this store that is known there, None when nothing is. Raises BackupError."""

    def find_newest(self, store_id: str) -> str | None:
        """The newest backup of this store that is there, as `opened_backup` takes it. Raises BackupError."""

    def put(self, manifest: Manifest, content: BinaryIO) -> str:
        """Keeps all that is in a stream that can seek, durably, and says where. Raises BackupError; then nothing is
        there.
        """

    def is_beside(self, path: Path) -> bool:
        """Whether the file at `path` is on the same disk."""


def backup_name(manifest: Manifest) -> str:
    """Names sort by store, change number and time (UTC, to the millisecond)."""
    seconds, milliseconds = divmod(manifest.made_ms, 1000)
    made = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds)) + f"{milliseconds:03d}Z"
    return f"{name_prefix(manifest.store_id)}{manifest.change_number:010d}-{made}{SUFFIX}"


def name_prefix(store_id: str) -> str:
    """What the names of a store's backups begin with."""
    return f"ringfence-{store_id[:_SHOWN_ID]}-"


def change_number_of(name: str, store_id: str) -> int | None:
    """The change number in a backup's name, None for another store's and for what is no backup."""
    match = _NAME.fullmatch(name)
    return int(match["change"]) if match is not None and match["store"] == store_id[:_SHOWN_ID] else None


def newest_of(names: Iterable[str], store_id: str) -> str | None:
    """The name of the newest backup of a store among names."""
    return max((name for name in names if change_number_of(name, store_id) is not None), default=None)


def parse_place(text: str, options: S3Options) -> BackupPlace:
    """The place that a text names. Raises InputError, MissingExtraError without the extra `aws` for S3."""
    if text.startswith(S3_SCHEME):
        from ringfence_agent.keystore.backup.s3 import S3Place  # noqa: PLC0415 -- the extra `aws`

        return S3Place(text, options)
    if options != S3Options():
        raise InputError(f"{text} is no S3 prefix: it takes no SSE-KMS key and no Object Lock", hint="name s3://...")
    if "://" in text or not text:
        raise InputError(f"backups cannot go to {text!r}", hint="name a file, a directory or s3://BUCKET/PREFIX")
    path = Path(text).absolute()
    return DirectoryPlace(path) if path.is_dir() or text.endswith("/") else FilePlace(path)


@contextmanager
def opened_backup(text: str) -> Iterator[BackupFile]:
    """The backup in a file or an S3 object. Raises BackupError."""
    if text.startswith(S3_SCHEME):
        from ringfence_agent.keystore.backup.s3 import fetched_object  # noqa: PLC0415 -- the extra `aws`

        with fetched_object(text) as stream:
            yield BackupFile(stream, text)
        return
    backup = BackupFile.open(Path(text).absolute())
    try:
        yield backup
    finally:
        backup.close()


@contextmanager
def unnamed_file() -> Iterator[BinaryIO]:
    """A private file in memory, or on disk without a name when it is large; what goes there is sealed already.

    Raises BackupError where there is no room.
    """
    try:
        with tempfile.SpooledTemporaryFile(_MEMORY_BYTES) as stream:
            yield cast(BinaryIO, stream)
    except OSError as error:
        raise BackupError(
            f"there is no room for a backup in {tempfile.gettempdir()}: {error.strerror}",
            hint="make room, or name another directory with TMPDIR",
        ) from None


def find_change_beside(text: str, store_id: str) -> int | None:
    """The highest change number of the store known where the backup `text` is; None when nothing is."""
    if text.startswith(S3_SCHEME):
        from ringfence_agent.keystore.backup.s3 import S3Place  # noqa: PLC0415 -- the extra `aws`

        return S3Place(text.rpartition("/")[0] + "/", S3Options()).find_newest_change(store_id)
    return DirectoryPlace(Path(text).absolute().parent).find_newest_change(store_id)


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
        if _NAME.fullmatch(path.name.removeprefix(".").removesuffix(".new")):
            path.unlink(missing_ok=True)


def _are_on_one_disk(directory: Path, path: Path) -> bool:
    try:
        return directory.stat().st_dev == path.stat().st_dev
    except OSError:
        return False
