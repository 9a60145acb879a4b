"""A directory that stands in for HDFS in the engine's unit tests: names, inode numbers, renames that replace nothing.

Two things are HDFS's and not a file system's, and are kept: a tree is removed in one step, and a rename of what is open
goes on being written to. Real HDFS is in `tests/cluster/test_transfer.py`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ringfence_agent.transfer.hands import Attributes, Copied, Entry, Progress
from ringfence_agent.transfer.record import STAGING_PREFIX
from ringfence_zones.errors import HdfsNotFoundError, TransferError
from ringfence_zones.model import TreeNode

_INODES = "/.reserved/.inodes/"
ZONES = {"/data/pii": "k-pii@0", "/data/masked": "k-masked@3"}


class LocalHdfs:
    """Hands and trees of one user over `directory`. A hook is called with a file's path before it is copied, and may
    change what it likes; `open_files` are those somebody writes to, `strangers` the inodes that another user made in a
    staging place."""

    user = "masker"

    def __init__(self, directory: Path) -> None:
        self.root = directory / "hdfs"
        self.graveyard = directory / "graveyard"
        self.graveyard.mkdir(exist_ok=True, parents=True)
        for zone in ZONES:
            self.local(zone).mkdir(parents=True, exist_ok=True)
        self.before_copy: Callable[[str], None] = lambda _path: None
        self.after_read: Callable[[bytes], bytes] = lambda content: content
        self.open_files: set[str] = set()
        self.strangers: set[int] = set()

    def local(self, path: str) -> Path:
        """Where a path is on this machine."""
        return self.root / path.lstrip("/")

    def write(self, path: str, content: bytes) -> None:
        """A file, its directories made."""
        self.local(path).parent.mkdir(parents=True, exist_ok=True)
        self.local(path).write_bytes(content)

    def content(self, path: str) -> dict[str, bytes]:
        """Every file at and below a path."""
        base = self.local(path)
        files = [base] if base.is_file() else sorted(each for each in base.rglob("*") if each.is_file())
        return {_relative(each, base): each.read_bytes() for each in files}

    # Hands

    def list_tree(self, path: str, limit: int) -> list[Entry] | None:
        base = self.local(path)
        if not base.exists():
            return None
        found = []
        for each in (base, *base.rglob("*")):
            status = each.stat()
            size = 0 if each.is_dir() else status.st_size
            times = status.st_mtime_ns // 1_000_000, status.st_atime_ns // 1_000_000
            mode = status.st_mode & 0o1777
            is_own = STAGING_PREFIX in path and status.st_ino not in self.strangers
            owner = self.user if is_own else "etl"
            found.append(Entry(_relative(each, base), each.is_dir(), size, mode, owner, "etl", *times))
        if len(found) > limit:
            raise TransferError("too many")
        return sorted(found, key=lambda entry: entry.path)

    def make_directory(self, path: str, mode: int) -> None:
        if not self.local(path).is_dir():
            self.local(path).mkdir(mode)

    def copy(self, source: str, target: str, progress: Progress) -> Copied:
        self.before_copy(source)
        if not self.local(source).is_file():
            raise HdfsNotFoundError(f"File does not exist: {source}")
        content = self.local(source).read_bytes()
        descriptor = os.open(self.local(target), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        back = self.after_read(self.local(target).read_bytes())
        progress(2 * len(content))
        return Copied(len(content), _sha256(content), len(back), _sha256(back))

    def read_whole(self, path: str, limit: int) -> bytes:
        content = self.local(path).read_bytes()
        if len(content) > limit:
            raise TransferError("too large")
        return content

    def write_new(self, path: str, content: bytes) -> None:
        with self.local(path).open("xb") as stream:
            stream.write(content)

    def set_attributes(self, path: str, attributes: Attributes) -> None:
        if attributes.mode is not None:
            self.local(path).chmod(attributes.mode)
        if attributes.modified_ms is not None and attributes.accessed_ms is not None:
            os.utime(self.local(path), ns=(attributes.accessed_ms * 1_000_000, attributes.modified_ms * 1_000_000))

    def rename(self, source: str, target: str) -> None:
        if self.local(target).exists():
            raise TransferError(f"something is there already: {target}")
        self.local(source).rename(self.local(target))

    def delete(self, path: str) -> None:
        if self.local(path).exists():
            self.local(path).rename(self.graveyard / str(len(list(self.graveyard.iterdir()))))

    def close(self) -> None:
        pass

    # The agent's look

    def read_tree(self, path: str, limit: int) -> tuple[TreeNode, ...]:
        if path.startswith(_INODES):
            path = self._named(int(path.removeprefix(_INODES)))
        base, version = self.local(path), next((v for zone, v in ZONES.items() if path.startswith(zone)), None)
        return tuple(
            TreeNode(
                path=entry.path,
                is_directory=entry.is_directory,
                bytes=entry.bytes,
                modified_ms=entry.modified_ms,
                file_id=(base / entry.path).stat().st_ino,
                key_version=None if entry.is_directory else version,
                is_open=f"{path}/{entry.path}".rstrip("/") in self.open_files,
                has_acl=False,
            )
            for entry in self.list_tree(path, limit) or ()
        )

    def _named(self, inode: int) -> str:
        found = next((each for each in self.root.rglob("*") if each.stat().st_ino == inode), None)
        if found is None:
            raise HdfsNotFoundError("File for given inode path does not exist")
        return f"/{found.relative_to(self.root)}"

    def clear(self) -> None:
        """Nothing in it any more."""
        shutil.rmtree(self.root)


def _relative(path: Path, base: Path) -> str:
    return "" if path == base else str(path.relative_to(base))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
