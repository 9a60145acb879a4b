"""The systemd units: what they promise, that their commands exist, and systemd's own opinion where it is installed."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ringfence_agent.kms.config import KmsFile
from ringfence_zones.cli.main import root

UNITS = Path(__file__).parents[3] / "packaging/systemd"
KMS, AGENT = UNITS / "ringfence-kms.service", UNITS / "ringfence-agent.service"
# Where the installed unit finds the command.
COMMAND = "/opt/ringfence/bin/ringfence"
# Of ten: what `systemd-analyze security` gives the KMS's unit, and a little room for another version's opinion.
MAX_EXPOSURE = 20


def directives(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, mark, value = line.partition("=")
        if mark and not line.startswith(("#", ";", "[")):
            found.setdefault(name.strip(), []).append(value.strip())
    return found


@pytest.mark.parametrize("unit", [KMS, AGENT], ids=lambda unit: unit.stem)
def test_a_unit_starts_a_command_that_exists_with_options_it_has(unit: Path) -> None:
    (start,) = directives(unit)["ExecStart"]
    program, *words = shlex.split(start)
    assert program == COMMAND
    command: click.Command | None = root
    context = click.Context(root)
    while words and isinstance(command, click.Group):
        command = command.get_command(context, words.pop(0))
    assert command is not None
    command.make_context("unit", list(words))


@pytest.mark.parametrize("unit", [KMS, AGENT], ids=lambda unit: unit.stem)
def test_a_unit_can_gain_nothing_and_leaves_no_core(unit: Path) -> None:
    wanted = {
        "NoNewPrivileges": ["true"],
        "CapabilityBoundingSet": [""],
        "ProtectSystem": ["strict"],
        "LimitCORE": ["0"],
        "RestrictNamespaces": ["true"],
    }
    found = directives(unit)
    assert {name: found.get(name) for name in wanted} == wanted
    assert found["User"] != ["root"]


def test_the_key_servers_unit_keeps_keys_from_disk_and_everybody_else() -> None:
    found = directives(KMS)
    assert found["MemorySwapMax"] == ["0"]
    assert found["MemoryDenyWriteExecute"] == ["true"]
    assert found["UMask"] == ["0077"]
    assert found["StateDirectoryMode"] == ["0700"]
    assert found["ExecReload"] == ["/bin/kill -HUP $MAINPID"]


def test_a_stop_waits_longer_than_the_server_drains() -> None:
    (stop_s,) = directives(KMS)["TimeoutStopSec"]
    assert int(stop_s) > KmsFile().drain


@pytest.mark.parametrize("unit", [KMS, AGENT], ids=lambda unit: unit.stem)
def test_systemd_understands_the_unit(unit: Path, tmp_path: Path) -> None:
    # Not a part of every machine that runs the tests; what it would say is parsed above as far as it matters.
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    here = tmp_path / unit.name
    # It looks for the program, which the installation brings.
    here.write_text(unit.read_text().replace(COMMAND, sys.executable))
    done = subprocess.run(
        [analyze, "verify", "--man=no", here], capture_output=True, text=True, timeout=60, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert complaints == []


def test_systemd_finds_the_key_servers_unit_hardly_exposed(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    command = [analyze, "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", "--no-pager", KMS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    # Older than 250 it looks at running services only.
    if "offline" not in done.stderr:
        assert done.returncode == 0, done.stdout[-600:]
