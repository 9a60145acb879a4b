"""The command line as files a person can read: `transcripts/*.txt`.

A transcript is a list of steps. `$ ringfence ...` is run (or `$ cat > FILE` with the lines that follow, up to an empty
one); what follows is its standard output, each line of standard error with `! ` before it, and last `? CODE` unless
the exit code is 0. Everything runs offline in an empty directory.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TRANSCRIPTS = Path(__file__).parent / "transcripts"
RINGFENCE = Path(sys.executable).with_name("ringfence")


def _steps(text: str) -> list[tuple[str, list[str]]]:
    steps: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("#") and (not steps or not steps[-1][1]):
            continue
        if line.startswith("$ "):
            steps.append((line[2:], []))
        elif steps:
            steps[-1][1].append(line)
    return [(command, _trimmed(lines)) for command, lines in steps]


def _trimmed(lines: list[str]) -> list[str]:
    """Without the comments and empty lines that stand before the next step."""
    while lines and (not lines[-1] or lines[-1].startswith("# ")):
        lines.pop()
    return lines


def _run(command: str, directory: Path) -> list[str]:
    environ = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "HADOOP_CONF_DIR": str(directory / "no-hadoop"),
        "RINGFENCE_AGENT_SOCKET": str(directory / "no-agent.sock"),
    }
    program, *arguments = shlex.split(command)
    assert program == "ringfence"
    done = subprocess.run(
        [RINGFENCE, *arguments], cwd=directory, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    out = done.stdout.splitlines() + [f"! {line}" for line in done.stderr.splitlines()]
    return out + ([f"? {done.returncode}"] if done.returncode else [])


@pytest.mark.parametrize("path", sorted(TRANSCRIPTS.glob("*.txt")), ids=lambda path: path.stem)
def test_the_command_line_behaves_as_the_transcript_says(path: Path, tmp_path: Path) -> None:
    steps = _steps(path.read_text(encoding="utf-8"))
    assert steps
    for command, expected in steps:
        if command.startswith("cat > "):
            (tmp_path / command.removeprefix("cat > ")).write_text("\n".join(expected) + "\n", encoding="utf-8")
            continue
        assert _run(command, tmp_path) == expected, f"$ {command}"
