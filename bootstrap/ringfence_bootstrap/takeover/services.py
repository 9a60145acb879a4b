"""The two services a takeover exchanges: started, stopped, and kept from starting by themselves.

A systemd unit where there is systemd. Elsewhere a pair of commands, run without a shell: the one that starts returns
when the service is on its way, the one that stops when it has ended; each may find its work done already.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ringfence_zones.errors import ConfigError, InstallError

_TIMEOUT_S = 120
# What a command that hangs may have said.
_LAST_CHARS = 500
_STOCK_UNITS = ("hadoop-kms.service", "hadoop-kms-server.service", "kms.service")
# Where administrators' units are, and EMR's too. `systemctl mask` refuses a unit whose file is itself in there.
_UNITS = Path("/etc/systemd/system")
_ASIDE = ".ringfence-masked"
_NOWHERE = Path("/dev/null")


class Service(Protocol):
    """A service that can be exchanged."""

    def start(self) -> None:
        """Starts it, now and at each boot. Raises InstallError."""

    def stop(self) -> None:
        """Stops it, and keeps it from starting until `start`. Raises InstallError."""

    def describe(self) -> str:
        """How a plan names it."""

    def to_json(self) -> dict[str, Any]:
        """What `service_from_json` makes it from again."""


@dataclass(frozen=True, slots=True)
class SystemdUnit:
    """A unit. `masked` is how a foreign unit is kept from starting: whoever asks for it is refused, not only boots."""

    unit: str
    masked: bool

    def start(self) -> None:
        """See Service."""
        if self.masked:
            _unmask(self.unit)
        else:
            run_command(["systemctl", "enable", self.unit])
        run_command(["systemctl", "start", self.unit])

    def stop(self) -> None:
        """See Service."""
        run_command(["systemctl", "stop", self.unit])
        if self.masked:
            _mask(self.unit)
        else:
            run_command(["systemctl", "disable", self.unit])

    def describe(self) -> str:
        """See Service."""
        return self.unit

    def to_json(self) -> dict[str, Any]:
        """See Service."""
        return {"unit": self.unit, "masked": self.masked}


def is_masked(unit: str) -> bool:
    """Whether the unit's name leads nowhere, so that nobody can start it."""
    return (_UNITS / unit).is_symlink() and (_UNITS / unit).resolve() == _NOWHERE


def _mask(unit: str) -> None:
    """As `systemctl mask`; a unit whose own file is where masks go is put aside first, under a name that is no unit."""
    place = _UNITS / unit
    try:
        if place.is_file() and not place.is_symlink():
            aside, mask = place.with_name(unit + _ASIDE), place.with_name(f".{unit}.new")
            aside.unlink(missing_ok=True)
            os.link(place, aside)  # the unit is never missing, whatever dies in between
            mask.unlink(missing_ok=True)
            mask.symlink_to(_NOWHERE)
            mask.replace(place)
            run_command(["systemctl", "daemon-reload"])
        elif not is_masked(unit):
            run_command(["systemctl", "mask", unit])
    except OSError as error:
        raise InstallError(f"cannot mask {unit}: {error.strerror}") from error


def _unmask(unit: str) -> None:
    place = _UNITS / unit
    aside = place.with_name(unit + _ASIDE)
    try:
        place.with_name(f".{unit}.new").unlink(missing_ok=True)
        if not aside.exists():
            run_command(["systemctl", "unmask", unit])
            return
        if place.is_file() and not place.is_symlink():
            aside.unlink()  # it died before the mask was there, or somebody gave the unit a new file
        else:
            aside.replace(place)
        run_command(["systemctl", "daemon-reload"])
    except OSError as error:
        raise InstallError(f"cannot unmask {unit}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Commands:
    """A pair of commands."""

    start_command: str
    stop_command: str

    def start(self) -> None:
        """See Service."""
        run_command(shlex.split(self.start_command))

    def stop(self) -> None:
        """See Service."""
        run_command(shlex.split(self.stop_command))

    def describe(self) -> str:
        """See Service."""
        return f"'{self.stop_command}' and '{self.start_command}'"

    def to_json(self) -> dict[str, Any]:
        """See Service."""
        return {"start_command": self.start_command, "stop_command": self.stop_command}


def service_from_json(found: Mapping[str, Any]) -> Service:
    """A service as a journal remembers it."""
    if "unit" in found:
        return SystemdUnit(str(found["unit"]), bool(found["masked"]))
    return Commands(str(found["start_command"]), str(found["stop_command"]))


def choose_service(
    what: str, unit: str | None, start_command: str | None, stop_command: str | None, *, masked: bool
) -> Service:
    """What the options name. `what` is `stock` or `our`. Raises ConfigError."""
    if start_command and stop_command:
        return Commands(start_command, stop_command)
    if start_command or stop_command:
        prefix = "--stock-" if what == "stock" else "--"
        raise ConfigError(
            f"the commands that start and stop the {what} KMS go together: give both",
            hint=f"{prefix}start-command CMD and {prefix}stop-command CMD",
        )
    if shutil.which("systemctl") is None or not Path("/run/systemd/system").exists():
        raise ConfigError(
            f"there is no systemd on this machine to stop and start the {what} KMS with",
            hint="give --stock-start-command and --stock-stop-command, --start-command and --stop-command",
        )
    return SystemdUnit(unit or find_stock_unit(), masked)


def find_stock_unit() -> str:
    """The unit of this machine's stock KMS. Raises ConfigError when systemd knows none."""
    for unit in _STOCK_UNITS:
        shown = run_command(["systemctl", "show", "--property=LoadState", "--value", unit])
        if shown.strip() == "loaded":
            return unit
    raise ConfigError(
        f"systemd knows none of {', '.join(_STOCK_UNITS)}", hint="name the stock KMS's unit with --stock-unit"
    )


@dataclass(frozen=True, slots=True)
class Account:
    """The user a program runs as."""

    name: str

    def options(self) -> dict[str, Any]:
        """For `subprocess`; nothing when this process is that user already."""
        found = pwd.getpwnam(self.name)
        if os.geteuid() == found.pw_uid:
            return {}
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": os.getgrouplist(self.name, found.pw_gid)}


def find_account(keystore: str) -> Account:
    """Whoever owns the directory of an SQLite store; with a store elsewhere, this process's user.

    Raises ConfigError when there is no such directory.
    """
    is_file, _, path = keystore.partition("sqlite:///")
    try:
        uid = os.geteuid() if is_file or not path else Path(path).parent.stat().st_uid
        return Account(pwd.getpwuid(uid).pw_name)
    except (OSError, KeyError) as error:
        raise ConfigError(
            f"the directory for the key store {keystore} does not exist, or belongs to no user",
            hint="make it first, private to the service's user",
            command=f"install -d -m 700 {Path(path).parent}",
        ) from error


def run_command(command: Sequence[str], *, timeout_s: float = _TIMEOUT_S) -> str:
    """What a command printed on standard output. Raises InstallError when it does not run, or fails."""
    try:
        finished = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"'{shlex.join(command)}' did not run: {error}") from error
    if finished.returncode:
        said = (finished.stderr or finished.stdout).strip()[-_LAST_CHARS:]
        raise InstallError(f"'{shlex.join(command)}' ended with {finished.returncode}: {said}")
    return finished.stdout
