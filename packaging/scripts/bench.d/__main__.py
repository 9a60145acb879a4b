"""Ringfence against the real Java KMS and the real shell commands, in one run on this machine.

    packaging/scripts/bench [--quick] [--only PART]... [--output FILE]

Prints Markdown tables; progress goes to standard error. Ends with 1 when the measurement itself cannot be trusted (a
failed request, a request that was not audited, a zone that is not there) or a goal was missed. `--quick` shows in a
few minutes that everything runs: its figures are not to be quoted, and it judges no goal.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from pathlib import Path

import zone_creation
from goals import goals_of
from kms_figures import PARTS, KmsBench
from kms_load import BenchError
from machine import describe_machine, load_average
from move_checks import measure_move_checks
from report import render
from reverts import measure_reverts
from sandbox import sandbox
from transfers import measure_transfers

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
            kms = KmsBench(program, stock, scratch, quick=options.quick, say=_say).measure(options.only)
            zones = moves = reverts = transfers = None
            if {"zones", "moves", "reverts"} & set(options.only):
                ours = running.enter_context(sandbox(program, scratch / "ours", "ringfence"))
            if "moves" in options.only:  # before there are a thousand zones
                rounds, round_s = (1, 2) if options.quick else (7, 10)
                moves = measure_move_checks(ours, scratch, rounds=rounds, round_s=round_s, say=_say)
            if "reverts" in options.only:
                reverts = measure_reverts(ours, scratch, roots=2 if options.quick else 10, say=_say)
            if "transfers" in options.only:
                yarn = running.enter_context(sandbox(program, scratch / "yarn", "ringfence", "--yarn"))
                transfers = measure_transfers(yarn, scratch, rounds=1 if options.quick else 5, say=_say)
            if "zones" in options.only:
                effort = zone_creation.QUICK if options.quick else zone_creation.FULL
                zones = zone_creation.measure_zones(ours, stock, effort, scratch, _say)
        except BenchError as error:
            _say(f"failed: {error}")
            return 1
    goals = goals_of(kms, zones, moves, reverts, transfers)
    text = render(machine, kms, zones, moves, reverts, transfers, None if options.quick else goals)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    return 0 if options.quick or all(goal.met is not False for goal in goals) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="packaging/scripts/bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: figures not to be quoted")
    parser.add_argument(
        "--only",
        choices=(*PARTS, "moves", "reverts", "transfers", "zones"),
        action="append",
        help="measure just this, may be repeated; the rest prints `not measured`",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the tables there too")
    options = parser.parse_args()
    options.only = options.only or [*PARTS, "moves", "reverts", "transfers", "zones"]
    for program, package in (("wrk", "wrk"), ("h2load", "nghttp2-client"), ("taskset", "util-linux")):
        if shutil.which(program) is None:
            parser.error(f"{program} is not installed (apt-get install --yes {package})")
    return options


def _say(text: str) -> None:
    print(f"bench {time.monotonic() - _STARTED:6.0f} s: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
