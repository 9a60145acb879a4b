"""`ringfence agent serve` that stops dead at one step, for a test to kill it or to let it go on.

    python agent_until.py CONFIG HADOOP_CONF STEP [ARMED]

Runs the command's own code. At STEP (a value of RevertStep, PinStep or PolicyStep) the thread that reached it prints it
and waits; the rest of the agent goes on. With ARMED it stops there only once a file of that name exists. A line "go on"
on standard input lets it go on, and it never stops again; without one it waits to be killed.
"""

from __future__ import annotations

import enum
import os
import sys
import threading
from pathlib import Path

from ringfence_agent.config import load_config
from ringfence_agent.serve import serve


class Stop:
    """Stops once, at one step."""

    def __init__(self, step: str, armed: Path | None) -> None:
        self._step = step
        self._armed = armed
        self._is_over = False

    def __call__(self, step: enum.StrEnum) -> None:
        """What `serve` tells of its steps."""
        if step.value != self._step or self._is_over or not (self._armed is None or self._armed.exists()):
            return
        self._is_over = True
        os.write(1, f"reached {step.value}\n".encode())
        if sys.stdin.readline() != "go on\n":
            threading.Event().wait()


def main(config: str, hadoop_conf: str, step: str, armed: str | None = None) -> None:
    """Serves until the step."""
    serve(
        load_config(Path(config)),
        Path(hadoop_conf),
        lambda address: os.write(1, f"ready {address}\n".encode()) and None,
        Stop(step, Path(armed) if armed is not None else None),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
