"""Runs the zones step in this process until a boundary of its plan, says so and waits to be killed.

    python zones_step_until.py HADOOP_CONF POLICY KMS BOUNDARY

Everything but the output is the command's own code. The boundary is printed when it is reached.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ringfence_bootstrap.zones_step.expected_kms import parse_expected_kms
from ringfence_bootstrap.zones_step.step import ZonesStep, run_zones_step
from ringfence_zones.apply import Boundary, OnStep
from ringfence_zones.cli.context import default_context
from ringfence_zones.plan import Plan

BOUNDARY_NOT_MET = 3


def main(hadoop_conf: str, policy: str, kms: str, boundary: str) -> int:
    """Runs until the boundary."""

    def on_step(reached: Boundary) -> None:
        if f"{reached.moment.value} {reached.action.id}" == boundary:
            os.write(1, boundary.encode() + b"\n")
            threading.Event().wait()

    @contextmanager
    def watch(_plan: Plan) -> Iterator[OnStep]:
        yield on_step

    context = replace(default_context(os.environ), hadoop_conf=Path(hadoop_conf))
    step = ZonesStep(policy, None, parse_expected_kms(kms, tls=False), 60.0)
    run_zones_step(context, step, lambda text: print(text, file=sys.stderr), watch=watch)
    return BOUNDARY_NOT_MET


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
