"""Changes of a node's files as steps of a journal: each knows how to find its place as it was.

Rules:

1. What a file held before goes into a copy beside the journal, with its owner and mode, before the step begins; the
   journal itself holds only names and digests, for a Hadoop file may hold a password.
2. A file is put back byte for byte while it is as we left it. Where somebody else changed it since, a Hadoop file loses
   our values alone, and any other file is left as they made it, which the undo says.
3. A directory goes again only when it was made here; what others put into it stays, and the directory with it, unless
   it was made for our own service.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringfence_bootstrap.journal import Step, Undo
from ringfence_zones.durable_file import prepared_name, replace_file, sync, write_new_file
from ringfence_zones.errors import InstallError
from ringfence_zones.hadoop_xml import (
    read_document,
    read_properties,
    remove_properties,
    replace_document,
    set_properties,
)

_EMPTY = b'<?xml version="1.0"?>\n<configuration>\n</configuration>\n'


@dataclass(frozen=True, slots=True)
class Backups:
    """Where copies of files are kept that a step changes; private to root."""

    directory: Path

    def keep(self, name: str, path: Path) -> Undo:
        """A copy of a file for the undo; `{"previous": None}` when there is none. Raises InstallError."""
        try:
            content, found = path.read_bytes(), path.stat()
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self.directory / name, content)
        except FileNotFoundError:
            return {"previous": None}
        except OSError as error:
            raise InstallError(f"cannot keep a copy of {path}: {error.strerror}") from error
        return {
            "previous": str(self.directory / name),
            "mode": stat.S_IMODE(found.st_mode),
            "uid": found.st_uid,
            "gid": found.st_gid,
        }


def directory_step(name: str, path: Path, mode: int, owner: str | None = None, *, private: bool = False) -> Step:
    """A directory. `private`: it is our service's own, and goes with all that it holds."""

    def make() -> None:
        try:
            path.mkdir(mode=mode, exist_ok=True)
            if was_made_here():
                path.chmod(mode)
                if owner is not None:
                    _give(path, owner)
        except OSError as error:
            raise InstallError(f"cannot make {path}: {error.strerror}") from error

    made: list[bool] = []

    def was_made_here() -> bool:
        return bool(made and made[-1])

    def prepare() -> Undo:
        made.append(not path.exists())
        return {"made": made[-1]}

    def undo(found: Undo) -> str | None:
        if not found["made"]:
            return None
        try:
            if private:
                shutil.rmtree(path)
            else:
                path.rmdir()
        except FileNotFoundError:
            return None
        except OSError:
            return f"{path} stays, for it holds what others put there"
        return None

    return Step(name, f"making {path}", make, undo, prepare)


def file_step(
    name: str,
    path: Path,
    content: Callable[[], bytes],
    backups: Backups,
    *,
    mode: int = 0o644,
    owner: str | None = None,
    then: Callable[[], object] = lambda: None,
) -> Step:
    """A file with this content; `then` is called when it was written, and when it was put back."""
    written: list[bytes] = []

    def prepare() -> Undo:
        written.append(content())
        return {**backups.keep(name, path), "digest": _digest(written[-1])}

    def do() -> None:
        write_owned(path, written[-1], mode, owner)
        then()

    def undo(found: Undo) -> str | None:
        prepared_name(path).unlink(missing_ok=True)
        remark = _put_back(path, found)
        then()
        return remark

    return Step(name, f"writing {path}", do, undo, prepare)


def hadoop_step(name: str, path: Path, values: Callable[[], Mapping[str, str]], backups: Backups) -> Step:
    """Properties of one of Hadoop's files, all else byte for byte as it is; a file that is not there is made."""
    wanted: list[Mapping[str, str]] = []

    def prepare() -> Undo:
        wanted.append(dict(values()))
        before = read_document(path) if path.exists() else _EMPTY
        known = read_properties(before)
        return {
            **backups.keep(name, path),
            "digest": _digest(set_properties(before, wanted[-1])),
            "values": wanted[-1],
            "former": {each: known[each].value if each in known else None for each in wanted[-1]},
        }

    def do() -> None:
        if path.exists():
            before = read_document(path)
            replace_document(path, set_properties(before, wanted[-1]), expected=before)
        else:
            write_owned(path, set_properties(_EMPTY, wanted[-1]), 0o644, None)

    def undo(found: Undo) -> str | None:
        if not path.exists() or _digest(path.read_bytes()) == found["digest"]:
            return _put_back(path, found)
        return _take_out(path, found)

    return Step(name, f"editing {path}", do, undo, prepare)


def write_owned(path: Path, content: bytes, mode: int, owner: str | None) -> None:
    """A file whole or not at all, under its final name only when it is its owner's. Raises InstallError."""
    draft = prepared_name(path)
    try:
        draft.unlink(missing_ok=True)
        write_new_file(draft, content)
        if owner is not None:
            _give(draft, owner)
        draft.chmod(mode)
        draft.replace(path)
        sync(path.parent)
    except OSError as error:
        raise InstallError(f"cannot write {path}: {error.strerror}") from error


def _take_out(path: Path, found: Undo) -> str | None:
    """Our values alone out of a Hadoop file that somebody changed since."""
    before = read_document(path)
    known = read_properties(before)
    ours = [each for each, value in found["values"].items() if each in known and known[each].value == value]
    former: Mapping[str, str | None] = found["former"]
    after = set_properties(before, {each: value for each in ours if (value := former[each]) is not None})
    after = remove_properties(after, [each for each in ours if former[each] is None])
    if after != before:
        replace_document(path, after, expected=before)
    return f"{path} was changed since: only what was ours went out of it"


def _put_back(path: Path, found: Undo) -> str | None:
    try:
        if path.exists() and _digest(path.read_bytes()) != found["digest"]:
            previous = found["previous"]
            is_untouched = previous is not None and path.read_bytes() == Path(previous).read_bytes()
            return None if is_untouched else f"{path} stays, for somebody changed it since"
        if found["previous"] is None:
            path.unlink(missing_ok=True)
            return None
        _replace_with_copy(path, found)
    except OSError as error:
        raise InstallError(f"cannot put {path} back: {error.strerror}") from error
    return None


def _replace_with_copy(path: Path, found: Undo) -> None:
    content, target = Path(found["previous"]).read_bytes(), path.resolve()
    if target.exists():
        # Keeps what a copy does not have: extended attributes.
        replace_document(target, content, expected=target.read_bytes())
    else:
        replace_file(target, content)
    os.chown(target, found["uid"], found["gid"])
    target.chmod(found["mode"])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _give(path: Path, owner: str) -> None:
    try:
        found = pwd.getpwnam(owner)
    except KeyError:
        raise InstallError(f"{path} is to belong to {owner}, and this node has no such user") from None
    os.chown(path, found.pw_uid, found.pw_gid)


def forget(paths: Sequence[Path]) -> None:
    """Removes what a finished set-up left of itself. Raises InstallError."""
    for path in paths:
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise InstallError(f"cannot remove {path}: {error.strerror}") from error
