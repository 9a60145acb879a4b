"""Ringfence against the real Java KMS and the real shell commands, in one run on this machine.

    packaging/scripts/bench [--quick] [--only kms|zones] [--output FILE]

Prints Markdown tables; progress goes to standard error. Ends with 1 when the measurement itself cannot be trusted (a
failed request, a request that was not audited, a zone that is not there) or a goal was missed. `--quick` shows in two
or three minutes that everything runs: its figures are not to be quoted, and it judges no goal.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from pathlib import Path

import throughput
import zone_creation
from kms_load import BenchError
from kms_servers import java_kms, ringfence_kms
from machine import describe_machine, load_average
from report import goals_of, render
from sandbox import Sandbox, sandbox

_STARTED = time.monotonic()


def main() -> int:
    """Measures, prints, judges."""
    options = _arguments()
    program = Path(sys.executable).with_name("ringfence")
    machine = [*describe_machine(), ("Load before", load_average())]
    # A short name: sandboxes hold Unix sockets.
    with contextlib.ExitStack() as running:
        scratch = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="rf-bench-")))
        try:
            stock = running.enter_context(sandbox(program, scratch / "stock", "stock"))
            kms = _measure_kms(program, stock, scratch, options.quick) if options.only != "zones" else None
            zones = None
            if options.only != "kms":
                ours = running.enter_context(sandbox(program, scratch / "ours", "ringfence"))
                effort = zone_creation.QUICK if options.quick else zone_creation.FULL
                zones = zone_creation.measure_zones(ours, stock, effort, scratch, _say)
        except BenchError as error:
            _say(f"failed: {error}")
            return 1
    goals = goals_of(kms, zones)
    text = render(machine, kms, zones, None if options.quick else goals)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    return 0 if options.quick or all(goal.met is not False for goal in goals) else 1


def _measure_kms(program: Path, stock: Sandbox, scratch: Path, quick: bool) -> throughput.KmsFigures:
    effort = throughput.QUICK if quick else throughput.FULL
    log4j = stock.directory / "conf" / "audit-log4j.properties"
    with (
        java_kms(stock.hadoop_home, log4j, scratch, stock.environment) as java,
        ringfence_kms(program, scratch) as ours,
    ):
        return throughput.measure_kms([ours, java], effort, generator="hdfs", reader="etl", say=_say)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="packaging/scripts/bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: figures not to be quoted")
    parser.add_argument("--only", choices=("kms", "zones"), help="measure just this; the rest prints `not measured`")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the tables there too")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed (apt-get install --yes wrk)")
    return options


def _say(text: str) -> None:
    print(f"bench {time.monotonic() - _STARTED:6.0f} s: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
