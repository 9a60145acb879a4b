"""Changes of several steps that are undone when one of them fails, or the machine dies in the middle.

Rules:

1. How to undo a step is on disk before the step is begun.
2. A step that fails undoes itself and every step before it, the last first. Then RolledBackError says what failed.
3. Undoing is idempotent: it may find the step half done, done, or already undone.
4. A journal that says `running` when a command starts was left by a process that died. Whoever finds it rolls it
   back first, with the undo information in it; nothing else is known to be true.
5. A journal holds no secret. One command at a time holds its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import ConfigError, InstallError, NotRolledBackError, RingfenceError, RolledBackError

SCHEMA = 1
RUNNING = "running"
DONE = "done"
ROLLED_BACK = "rolled back"

Undo = Mapping[str, Any]
"""What a step's undo needs to know, as JSON."""


def _nothing() -> Undo:
    return {}


def _leave(_undo: Undo) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Step:
    """One change. `prepare` looks and changes nothing; its result is on disk before `do` is called.

    `undo` may give half a sentence about what people should know afterwards.
    """

    name: str
    title: str
    do: Callable[[], None]
    undo: Callable[[Undo], str | None] = _leave
    prepare: Callable[[], Undo] = _nothing


class Journal:
    """One file: what was asked for, and how far it came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content: dict[str, Any] = {}

    def find(self) -> tuple[str, dict[str, Any]] | None:
        """State and details of the last run; None before the first. Raises ConfigError for a file that is none."""
        try:
            content = json.loads(self.path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConfigError(f"the journal {self.path} cannot be read: {error}") from error
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise ConfigError(f"the journal {self.path} was written by another version of ringfence")
        self._content = content
        return str(content["state"]), dict(content["details"])

    def begin(self, details: Mapping[str, Any]) -> None:
        """A new run, which takes the place of the last. `details` are what its steps are made from again."""
        self._content = {"schema": SCHEMA, "state": RUNNING, "details": dict(details), "steps": []}
        self._save()

    def note(self, name: str, undo: Undo) -> None:
        """A step is about to begin."""
        self._content["steps"].append({"name": name, "undo": dict(undo)})
        self._save()

    def begun(self) -> list[tuple[str, Undo]]:
        """Steps that were begun and are not undone, the last first."""
        return [(step["name"], step["undo"]) for step in reversed(self._content["steps"])]

    def note_undone(self) -> None:
        """The last step that was begun is undone."""
        self._content["steps"].pop()
        self._save()

    def end(self, state: str) -> None:
        """The run is over; steps and details stay on record."""
        self._content["state"] = state
        self._save()

    def _save(self) -> None:
        try:
            replace_file(self.path, json.dumps(self._content, indent=2).encode())
        except OSError as error:
            raise InstallError(f"cannot write the journal {self.path}: {error.strerror}") from error


def run(journal: Journal, details: Mapping[str, Any], steps: Sequence[Step], say: Callable[[str], None]) -> None:
    """All the steps, or none. Raises RolledBackError, NotRolledBackError."""
    journal.begin(details)
    try:
        for step in steps:
            say(step.title)
            journal.note(step.name, step.prepare())
            step.do()
    except BaseException as error:
        why = error.message if isinstance(error, RingfenceError) else f"{type(error).__name__} ended it"
        told = roll_back(journal, steps, why, say)
        raise RolledBackError(
            f"{why}; everything is as it was before{told}",
            hint=error.hint if isinstance(error, RingfenceError) else None,
            command=error.command if isinstance(error, RingfenceError) else None,
        ) from error
    journal.end(DONE)


def roll_back(journal: Journal, steps: Sequence[Step], why: str, say: Callable[[str], None]) -> str:
    """Undoes what was begun, the last first; what the steps tell of it, each behind a semicolon.

    Raises NotRolledBackError; run again, it goes on where it stopped.
    """
    told = ""
    by_name = {step.name: step for step in steps}
    for name, undo in journal.begun():
        step = by_name[name]
        say(f"undoing: {step.title}")
        try:
            remark = step.undo(undo)
        except RingfenceError as error:
            raise NotRolledBackError(
                f"{why}; and it could not be undone: {error.message}",
                hint=f"{error.hint + '; ' if error.hint else ''}then run the same command again: the journal"
                f" {journal.path} knows what is left to undo",
                command=error.command,
            ) from error
        journal.note_undone()
        told += f"; {remark}" if remark else ""
    journal.end(ROLLED_BACK)
    return told


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One command at a time works with the journals of a directory, which is made. Raises InstallError.

    A journal holds commands, which an undo runs: a directory that somebody else could exchange is refused.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_owned(directory.resolve())
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InstallError(f"cannot use {directory}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InstallError(f"another command is at work in {directory}", hint="wait until it has ended") from None
        yield
    finally:
        os.close(descriptor)


def _check_owned(directory: Path) -> None:
    for place in (directory, *directory.parents):
        found = place.stat()
        shared = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
        if found.st_uid not in (0, os.geteuid()) or shared:
            raise InstallError(
                f"others could put a journal of theirs into {directory}: {place} belongs to uid {found.st_uid}"
                f" with mode {stat.S_IMODE(found.st_mode):04o}",
                hint="use a directory that is yours alone, from the root down",
            )
