"""A sandbox as the benchmark uses it: brought up and down by the command, its Hadoop commands run as `hdfs`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kms_load import BenchError

_UP_TIMEOUT_S = 900  # The first one fetches Hadoop's jars.


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running sandbox. `kms` is `ringfence` or `stock`; `environment` is for commands run on it."""

    kms: str
    directory: Path
    program: Path
    environment: dict[str, str]

    @property
    def hadoop_home(self) -> Path:
        """Where `bin/hadoop` and `bin/hdfs` are."""
        return self.directory / "hadoop"

    def run(self, argv: list[str]) -> str:
        """Standard output of a command on this sandbox. Raises BenchError when it fails."""
        finished = subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=120, check=False)
        if finished.returncode != 0:
            raise BenchError(f"{' '.join(argv)} failed with {finished.returncode}: {finished.stderr.strip()}")
        return finished.stdout

    def count_keys(self) -> int:
        """How many keys the KMS holds, as Hadoop's own command lists them."""
        listed = self.run(["hadoop", "key", "list"]).splitlines()
        return sum(1 for line in listed if line and not line.startswith("Listing keys for "))


@contextmanager
def sandbox(program: Path, directory: Path, kms: str, *options: str) -> Iterator[Sandbox]:
    """Brings a new sandbox up; takes it down and deletes it afterwards, whatever happened."""
    argv = [str(program), "sandbox"]
    try:
        up = subprocess.run(
            [*argv, "up", "--dir", str(directory), "--kms", kms, "--json", *options],
            stdout=subprocess.PIPE,
            text=True,
            timeout=_UP_TIMEOUT_S,
            check=False,
        )
        if up.returncode != 0:
            raise BenchError(f"the sandbox with the {kms} KMS did not come up")
        described = json.loads(up.stdout)
        yield Sandbox(kms, directory, program, _environment(directory, described["environment"]))
    finally:
        subprocess.run(
            [*argv, "down", "--dir", str(directory), "--delete"], capture_output=True, timeout=120, check=False
        )


def _environment(directory: Path, exported: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HADOOP_", "RINGFENCE_"))}
    path = os.pathsep.join((str(directory / "hadoop" / "bin"), os.environ["PATH"]))
    return kept | exported | {"PATH": path}
