"""systemd, as far as a node's set-up needs it. Every call raises InstallError when systemd says no."""

from __future__ import annotations

from ringfence_bootstrap.takeover.services import run_command

_TIMEOUT_S = 300


def systemctl(*arguments: str) -> str:
    """What it printed."""
    return run_command(["systemctl", *arguments], timeout_s=_TIMEOUT_S)


def unit_property(unit: str, name: str) -> str:
    """`not-found`, `loaded`, `masked` for LoadState; `active`, `inactive`, `failed` for ActiveState."""
    return systemctl("show", f"--property={name}", "--value", unit).strip()


def is_known(unit: str) -> bool:
    """Whether there is such a unit, masked or not."""
    return unit_property(unit, "LoadState") in ("loaded", "masked")
