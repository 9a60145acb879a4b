"""systemd units that back the stock KMS's key store up: at each change of the file, and once an hour.

Hadoop replaces the file when a key is made or rolled, which a path unit sees at once; the timer is for what happened
while nothing watched. A change that comes during a backup starts the next one when it has ended.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from ringfence_bootstrap.stock_kms.file_changes import Owner, put
from ringfence_bootstrap.takeover.services import run_command

DIRECTORY = Path("/etc/systemd/system")
_RUNNING = Path("/run/systemd/system")

SERVICE, PATH, TIMER = (f"ringfence-stock-kms-backup.{kind}" for kind in ("service", "path", "timer"))


def unit_files(command: str, state: Path, key_store: Path) -> dict[str, str]:
    """By name, the text of each unit. `command` is this installation's `ringfence`."""
    start = shlex.join([command, "kms", "harden", "backup", "--state-dir", str(state)])
    return {
        SERVICE: (
            "[Unit]\n"
            "Description=Backup of the Hadoop KMS's key store, off this node\n"
            "Wants=network-online.target\n"
            "After=network-online.target\n"
            "\n"
            "[Service]\n"
            "Type=oneshot\n"
            f"ExecStart={start}\n"
            "PrivateTmp=yes\n"
            "ProtectHome=yes\n"
            "NoNewPrivileges=yes\n"
            "LimitCORE=0\n"
        ),
        PATH: (
            "[Unit]\n"
            "Description=Changes of the Hadoop KMS's key store\n"
            "\n"
            "[Path]\n"
            f"PathChanged={key_store}\n"
            "\n"
            "[Install]\n"
            "WantedBy=multi-user.target\n"
        ),
        TIMER: (
            "[Unit]\n"
            "Description=Hourly backup of the Hadoop KMS's key store\n"
            "\n"
            "[Timer]\n"
            "OnBootSec=5min\n"
            "OnUnitActiveSec=1h\n"
            "\n"
            "[Install]\n"
            "WantedBy=timers.target\n"
        ),
    }


def has_systemd() -> bool:
    """Whether systemd runs this machine."""
    return shutil.which("systemctl") is not None and _RUNNING.exists()


def install_units(texts: Mapping[str, str], directory: Path = DIRECTORY) -> None:
    """Puts the units in place and starts what watches. Raises InstallError."""
    for name, text in texts.items():
        put(directory / name, text.encode(), 0o644, Owner.of(directory))
    run_command(["systemctl", "daemon-reload"])
    run_command(["systemctl", "enable", "--now", PATH, TIMER])


def remove_units(directory: Path = DIRECTORY) -> None:
    """Stops what watches and removes the units, if they are there. Raises InstallError."""
    there = [directory / name for name in (SERVICE, PATH, TIMER) if (directory / name).exists()]
    if not there:
        return
    run_command(["systemctl", "disable", "--now", PATH, TIMER])
    for path in there:
        path.unlink(missing_ok=True)
    run_command(["systemctl", "daemon-reload"])
