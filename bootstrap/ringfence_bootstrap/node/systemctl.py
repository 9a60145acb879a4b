"""systemd, as far as a node's set-up needs it. Every call raises InstallError when systemd says no."""

from __future__ import annotations

import shlex
import subprocess

from ringfence_zones.errors import InstallError

_TIMEOUT_S = 300
_LAST_CHARS = 500


def systemctl(*arguments: str) -> str:
    """What it printed."""
    command = ["systemctl", *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"'{shlex.join(command)}' did not run: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-_LAST_CHARS:]
        raise InstallError(f"'{shlex.join(command)}' ended with {done.returncode}: {said}")
    return done.stdout


def unit_property(unit: str, name: str) -> str:
    """`not-found`, `loaded`, `masked` for LoadState; `active`, `inactive`, `failed` for ActiveState."""
    return systemctl("show", f"--property={name}", "--value", unit).strip()


def is_known(unit: str) -> bool:
    """Whether there is such a unit, masked or not."""
    return unit_property(unit, "LoadState") in ("loaded", "masked")
