"""What a place for backups does (`places` says which there are), and what all of them need."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from ringfence_agent.keystore.backup.file_format import Manifest
from ringfence_zones.errors import BackupError

_MEMORY_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """What only S3 knows. `kms_key_id` seals objects with SSE-KMS; `lock_s` holds each under Object Lock so long."""

    kms_key_id: str | None = None
    lock_s: float | None = None


class BackupPlace(Protocol):
    """Where backups go, and come from. Nothing there is ever written over."""

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
