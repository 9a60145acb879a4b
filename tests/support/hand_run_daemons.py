"""A sandbox's NameNode and KMS as services of commands, for tests that change what `sandbox up` would wait for.

`START NAME` and `STOP NAME` behave as services do: each may find its work done already, stop returns when the process
has ended. Everything they started ends with the block.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from cluster_commands import Cluster

from ringfence_bootstrap.sandbox.daemons import describe_daemons
from ringfence_bootstrap.sandbox.state import Layout, find_state

_PROGRAM = """#!{python}
import json, os, signal, subprocess, sys, time
verb, name = sys.argv[1:]
here = {here!r}
pid_file = f"{{here}}/{{name}}.pid"
def running():
    try:
        pid = int(open(pid_file).read())
        return pid if open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[0] != "Z" else None
    except (FileNotFoundError, ProcessLookupError):
        return None
if verb == "start" and running() is None:
    daemon = json.load(open(f"{{here}}/{{name}}.json"))
    with open(daemon["log"], "ab") as log:
        process = subprocess.Popen(daemon["command"], env=daemon["environ"], stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=log, start_new_session=True)
    open(pid_file, "w").write(str(process.pid))
elif verb == "stop":
    pid = running()
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 30
        while running() is not None and time.monotonic() < deadline:
            time.sleep(0.05)
"""


class HandRunDaemons:
    """`start(name)` and `stop(name)` are command lines."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self._directory = directory
        self._program = directory / "daemon"
        self._program.write_text(_PROGRAM.format(python=sys.executable, here=str(directory)))
        self._program.chmod(self._program.stat().st_mode | stat.S_IXUSR)
        layout = Layout(cluster.directory)
        state = find_state(layout)
        assert state is not None
        for name, daemon in describe_daemons(layout, state, os.environ).items():
            described = {
                "command": list(daemon.command),
                "environ": dict(daemon.environ),
                "log": str(layout.log(name)),
            }
            (directory / f"{name}.json").write_text(json.dumps(described))
            (directory / f"{name}.pid").write_text(str(cluster.pids[name]))

    def start(self, name: str) -> str:
        return f"{self._program} start {name}"

    def stop(self, name: str) -> str:
        return f"{self._program} stop {name}"

    def end(self) -> None:
        """Kills what was started, and is not the sandbox's own process any more."""
        for path in self._directory.glob("*.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.read_text()), signal.SIGKILL)


@contextlib.contextmanager
def run_by_hand(cluster: Cluster, directory: Path, *names: str) -> Iterator[HandRunDaemons]:
    """The daemons of a running sandbox; those of `names` are ended with the block."""
    daemons = HandRunDaemons(cluster, directory)
    for path in directory.glob("*.pid"):
        if path.stem not in names:
            path.unlink()
    try:
        yield daemons
    finally:
        daemons.end()
