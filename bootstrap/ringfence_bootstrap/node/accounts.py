"""The key server's own system user, made and removed so that the node's account files are as they were.

The shadow tools keep copies of those files (`/etc/passwd-` and the others) and so does the undo: `userdel` takes the
user's lines out again, and the copies, which by then hold them, are exchanged for what they were.
"""

from __future__ import annotations

import grp
import pwd
import shlex
import subprocess
from pathlib import Path

from ringfence_bootstrap.journal import Step, Undo
from ringfence_bootstrap.node.changes import Backups
from ringfence_zones.errors import InstallError

_ETC = Path("/etc")
_COPIES = ("passwd-", "group-", "shadow-", "gshadow-")
_LOCK = _ETC / ".pwd.lock"
_TIMEOUT_S = 60


def account_step(user: str, home: Path, backups: Backups) -> Step:
    """A system user with a group of its name and no way to log in."""

    def prepare() -> Undo:
        if _has_user(user):
            return {"made": False}
        copies = {each: dict(backups.keep(f"account-{each}", _ETC / each)) for each in _COPIES}
        return {"made": True, "copies": copies, "lock": _LOCK.exists()}

    def do() -> None:
        if not _has_user(user):
            if _has_group(user):  # of a run that died
                _run("groupdel", user)
            options = ("--system", "--user-group", "--no-create-home", "--home-dir", str(home))
            _run("useradd", *options, "--shell", "/sbin/nologin", user)

    def undo(found: Undo) -> None:
        if not found["made"]:
            return
        if _has_user(user):
            _run("userdel", user)
        if _has_group(user):
            _run("groupdel", user)
        for name, copy in found["copies"].items():
            _restore(_ETC / name, copy)
        if not found["lock"]:
            _LOCK.unlink(missing_ok=True)

    return Step("account", f"making the user {user}", do, undo, prepare)


def _restore(path: Path, copy: Undo) -> None:
    try:
        if copy["previous"] is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(Path(copy["previous"]).read_bytes())
    except OSError as error:
        raise InstallError(f"cannot put {path} back: {error.strerror}") from error


def _has_user(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _has_group(group: str) -> bool:
    try:
        grp.getgrnam(group)
    except KeyError:
        return False
    return True


def _run(*command: str) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"'{shlex.join(command)}' did not run: {error}") from error
    if done.returncode:
        raise InstallError(f"'{shlex.join(command)}' ended with {done.returncode}: {done.stderr.strip()}")
