"""`ringfence apply` that stops dead at one boundary of its plan, for a test to kill.

    python apply_until.py HADOOP_CONF POLICY BOUNDARY

Runs the command's own code; at BOUNDARY (`after create_zone:/data/pii`) it prints the boundary and waits to be
killed. Nothing else of the run is changed: other zones' threads go on. Ends with 3 when the boundary was not met.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ringfence_zones.apply import Boundary, OnStep
from ringfence_zones.cli.apply import run_apply
from ringfence_zones.cli.context import default_context
from ringfence_zones.plan import Plan

BOUNDARY_NOT_MET = 3


def main(hadoop_conf: str, policy: str, boundary: str) -> int:
    """Applies until the boundary."""

    def on_step(reached: Boundary) -> None:
        if f"{reached.moment.value} {reached.action.id}" == boundary:
            os.write(1, boundary.encode() + b"\n")
            threading.Event().wait()

    @contextmanager
    def watch(_plan: Plan) -> Iterator[OnStep]:
        yield on_step

    context = replace(default_context(os.environ), hadoop_conf=Path(hadoop_conf))
    run_apply(context, Path(policy), watch)
    return BOUNDARY_NOT_MET


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
