"""`ringfence apply` with a key for each zone against the administrator's shell loop, on the same cluster.

The loop is what Hadoop's documentation says to do for one zone, three commands and so three JVMs:
`hadoop key create`, `hdfs dfs -mkdir`, `hdfs crypto -createZone`. It is sampled, not run 1,000 times; every sample
says how many keys the KMS held, because the Java KMS gets slower with each. Nothing is extrapolated.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kms_load import BenchError
from sandbox import Sandbox

_SHELL_LOOP = """\
set -e
for number in $(seq 1 "$1"); do
  hadoop key create "$2-$number" -size 256
  hdfs dfs -mkdir -p "/$2/$number"
  hdfs crypto -createZone -keyName "$2-$number" -path "/$2/$number"
done
"""


@dataclass(frozen=True, slots=True)
class ShellSample:
    """One run of the shell loop on one cluster."""

    kms: str
    zones: int
    keys_before: int
    seconds_per_zone: float


@dataclass(frozen=True, slots=True)
class ApplySample:
    """One `ringfence apply` of new zones on one cluster, from the start of the command to its end."""

    kms: str
    zones: int
    keys_before: int
    seconds_per_zone: float


@dataclass(slots=True)
class ZoneFigures:
    """Everything measured about making zones, in the order it happened."""

    shell: list[ShellSample] = field(default_factory=list)
    apply: list[ApplySample] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ZoneEffort:
    """Sizes of the applies in the order they run, a shell sample before each; and what the stock KMS gets."""

    sizes: Sequence[int]
    shell_zones: int
    stock_apply_zones: int


FULL = ZoneEffort(sizes=(100, 200, 1000, 200, 100), shell_zones=4, stock_apply_zones=10)
QUICK = ZoneEffort(sizes=(5, 10), shell_zones=1, stock_apply_zones=3)


def measure_zones(
    ringfence: Sandbox, stock: Sandbox | None, effort: ZoneEffort, scratch: Path, say: Callable[[str], None]
) -> ZoneFigures:
    """Interleaves applies and shell samples. Raises BenchError when a command fails or a zone is not there after."""
    figures = ZoneFigures()
    for turn, size in enumerate(effort.sizes):
        for sandbox in filter(None, (ringfence, stock if turn < 2 else None)):
            say(f"shell loop, {effort.shell_zones} zones on the {sandbox.kms} KMS")
            figures.shell.append(_shell_loop(sandbox, f"loop{turn}", effort.shell_zones))
        say(f"ringfence apply, {size} zones")
        figures.apply.append(_apply(ringfence, f"apply{turn}", size, scratch))
    if stock is not None:
        say(f"ringfence apply, {effort.stock_apply_zones} zones on the stock KMS")
        figures.apply.append(_apply(stock, "apply", effort.stock_apply_zones, scratch))
    return figures


def _shell_loop(sandbox: Sandbox, prefix: str, zones: int) -> ShellSample:
    keys = sandbox.count_keys()
    seconds = _timed(["bash", "-c", _SHELL_LOOP, "loop", str(zones), prefix], sandbox)
    _check_zones(sandbox, prefix, zones)
    return ShellSample(sandbox.kms, zones, keys, seconds / zones)


def _apply(sandbox: Sandbox, prefix: str, zones: int, scratch: Path) -> ApplySample:
    policy = scratch / f"{sandbox.kms}-{prefix}.yaml"
    policy.write_text(_policy(prefix, zones))
    keys = sandbox.count_keys()
    seconds = _timed([str(sandbox.program), "apply", "-f", str(policy)], sandbox)
    _check_zones(sandbox, prefix, zones)
    return ApplySample(sandbox.kms, zones, keys, seconds / zones)


def _policy(prefix: str, zones: int) -> str:
    head = "version: 1\ncluster: bench\ndefaults: {length_bits: 256}\n"
    return f"{head}kms: {{namenode_users: [hdfs], admins: [hdfs]}}\nzones:\n" + "".join(
        f"  - {{path: /{prefix}/{number}, owner: etl, group: etl, mode: '0750', writers: [etl]}}\n"
        for number in range(1, zones + 1)
    )


def _timed(argv: list[str], sandbox: Sandbox) -> float:
    started = time.monotonic()
    finished = subprocess.run(argv, env=sandbox.environment, capture_output=True, text=True, timeout=1800, check=False)
    seconds = time.monotonic() - started
    if finished.returncode != 0:
        tail = "\n".join((finished.stdout + finished.stderr).splitlines()[-15:])
        raise BenchError(f"{' '.join(argv[:2])} failed with {finished.returncode}:\n{tail}")
    return seconds


def _check_zones(sandbox: Sandbox, prefix: str, zones: int) -> None:
    """Asks Hadoop's own command, not ours: every zone is there and no two share a key."""
    listed = [
        line.split() for line in sandbox.run(["hdfs", "crypto", "-listZones"]).splitlines() if line.startswith("/")
    ]
    keys = {key for path, key in listed if path.startswith(f"/{prefix}/")}
    if len(keys) != zones:
        raise BenchError(f"{len(keys)} zones with a key of their own under /{prefix}, not {zones}")
