"""Files that are there whole or not at all, whatever dies while they are written.

Every function raises OSError. A file is made beside its final name and only then given it. A draft is never written
through a link, and never over a file that somebody else put there in between: in a directory that others can write to,
that fails instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def prepared_name(path: Path) -> Path:
    """The name of a file while it is being made."""
    return path.with_name(f".{path.name}.new")


def write_new_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Creates a file that was not there, with its content on disk when this returns."""
    with new_file(path, mode) as stream:
        stream.write(content)


@contextmanager
def new_file(path: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A file that was not there, to write to; its content is on disk when the block ends. When that fails, what was
    written stays under its name for the caller to remove."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        yield stream
        stream.flush()
        os.fchmod(descriptor, mode)  # whatever the umask
        os.fsync(descriptor)


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Gives a file this content in one step, or creates it; on disk when this returns. One process at a time."""
    draft = prepared_name(path)
    draft.unlink(missing_ok=True)  # of a process that died
    try:
        write_new_file(draft, content, mode)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync(path.parent)


def install_durably(source: Path, target: Path) -> None:
    """Gives a finished file its final name, on disk when this returns. Never replaces: FileExistsError instead."""
    os.link(source, target, follow_symlinks=False)
    sync(target.parent)
    source.unlink()
    sync(source.parent)


def sync(path: Path) -> None:
    """Puts a file's content, or a directory's entries, on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
