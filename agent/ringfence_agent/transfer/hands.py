"""What a transfer does to HDFS, whoever carries it out: the few acts of one user.

`native_hands.NativeHands` does them in its own process, `hands_process.HandsProcess` supervises one that does.
Everything that must be remembered or decided is elsewhere (`engine`): hands hold no state, so one that dies is simply
replaced, and each act is safe to be done again.

Paths are absolute and canonical; paths of entries are relative to the listed one, and empty for itself. Every method
may raise the `HdfsError` family, `KmsError` when a key is refused or the KMS is away, and `TransferError`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or directory as HDFS shows it to the user. `bytes` is 0 for a directory; times are epoch milliseconds."""

    path: str
    is_directory: bool
    bytes: int
    mode: int
    owner: str
    group: str
    modified_ms: int
    accessed_ms: int


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a copy is given; None is left as it is. A directory gets no times: what is put into it changes them."""

    mode: int | None = None
    owner: str | None = None
    group: str | None = None
    modified_ms: int | None = None
    accessed_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Copied:
    """A file that was copied and read back. Digests are SHA-256 (hex) of plain text."""

    bytes_read: int
    sha256_read: str
    bytes_back: int
    sha256_back: str


# Called with the number of bytes read since the last call, of the source and of the copy alike.
Progress = Callable[[int], None]


class Hands(Protocol):
    """See the module."""

    @property
    def user(self) -> str:
        """Who acts, by the short name that HDFS knows."""

    def list_tree(self, path: str, limit: int) -> list[Entry] | None:
        """What is at `path` and below, itself first; None for nothing. Raises TransferError beyond `limit` entries."""

    def make_directory(self, path: str, mode: int) -> None:
        """Makes one directory; there already is success. Its parent must exist."""

    def copy(self, source: str, target: str, progress: Progress) -> Copied:
        """Writes the content of one file to `target` (replaced when there, closed to others), and reads that back."""

    def read_whole(self, path: str, limit: int) -> bytes:
        """A small file. Raises TransferError when it has more than `limit` bytes."""

    def write_new(self, path: str, content: bytes) -> None:
        """A small file, closed to others; never replaces one."""

    def set_attributes(self, path: str, attributes: Attributes) -> None:
        """Gives a file or directory these attributes."""

    def rename(self, source: str, target: str) -> None:
        """Renames; never replaces anything."""

    def delete(self, path: str) -> None:
        """Removes a file or a whole tree, past the trash. Nothing there is success."""

    def close(self) -> None:
        """Lets go of everything."""
