"""What a demonstration prints: chapters, commands with their output, and claims that were checked."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

COMMAND_TIMEOUT_S = 300


class NotSoError(Exception):
    """Something that should hold does not."""


def chapter(title: str) -> None:
    print(f"\n== {title}", flush=True)


def check(claim: str, holds: object) -> None:
    """Prints `ok` and the claim, or ends the demonstration."""
    if not holds:
        raise NotSoError(claim)
    print(f"ok  {claim}", flush=True)


def run_both(
    *command: str,
    environment: Mapping[str, str],
    directory: Path,
    who: str = "",
    exit_code: int = 0,
    show: bool = True,
) -> tuple[bytes, str]:
    """Standard output as bytes, standard error as text. Any other exit code than the expected one ends it all."""
    print(f"$ {who}{shlex.join(command)}", flush=True)
    finished = subprocess.run(
        command, env=environment, cwd=directory, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False
    )
    error = finished.stderr.decode(errors="replace")
    if show or finished.returncode != exit_code:
        for line in (finished.stdout.decode(errors="replace") + error).splitlines():
            print(f"  {line}", flush=True)
    if finished.returncode != exit_code:
        raise NotSoError(f"{shlex.join(command)} ends with {exit_code}, not {finished.returncode}")
    return finished.stdout, error
