"""What was measured on: without it a figure means nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path


def describe_machine() -> list[tuple[str, str]]:
    """Facts in the order they are printed."""
    memory_kib = int(_field("/proc/meminfo", "MemTotal").split()[0])
    return [
        ("CPU", f"{_field('/proc/cpuinfo', 'model name')}, {len(os.sched_getaffinity(0))} usable of {os.cpu_count()}"),
        ("Memory", f"{memory_kib / 1024**2:.1f} GiB"),
        ("Kernel", f"{platform.system()} {platform.release()}"),
        ("Java", _java_version()),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("wrk", _first_line(["wrk", "-v"])),
        ("h2load", _first_line(["h2load", "--version"])),
    ]


def server_cpus() -> list[int]:
    """The one core that a server under test gets."""
    return sorted(os.sched_getaffinity(0))[:1]


def generator_cpus() -> list[int]:
    """The cores of the load generator: all others, the same one where there is no other."""
    return sorted(os.sched_getaffinity(0))[1:] or server_cpus()


def on_cpus(cpus: Sequence[int], argv: Sequence[str]) -> list[str]:
    """The command, bound to these cores."""
    return ["taskset", "--cpu-list", ",".join(map(str, cpus)), *argv]


def load_average() -> str:
    """The one-minute load before anything started: above one core, other work disturbed the figures."""
    return f"{os.getloadavg()[0]:.2f}"


def _field(file_name: str, name: str) -> str:
    for line in Path(file_name).read_text().splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    return "unknown"


def _java_version() -> str:
    java = Path(os.environ["JAVA_HOME"], "bin", "java") if os.environ.get("JAVA_HOME") else Path("java")
    return _first_line([str(java), "-version"])


def _first_line(argv: list[str]) -> str:
    # Both programs print their version on either stream, and wrk ends with 1 after it.
    finished = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    lines = (finished.stdout + finished.stderr).splitlines()
    return lines[0].strip() if lines else "unknown"
