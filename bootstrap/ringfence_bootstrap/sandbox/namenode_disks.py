"""The disks of the NameNodes: formatted once, and in a pair both from one image.

Rules: a disk with an image on it is never formatted. Of a pair, the disk that has none gets a copy of the other one's,
which is what `hdfs namenode -bootstrapStandby` does with a running NameNode and another JVM; the edits since then are
the JournalNode's.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from ringfence_bootstrap.sandbox import daemons, processes
from ringfence_bootstrap.sandbox.state import Layout, State
from ringfence_zones.errors import SandboxError

_FORMAT_TIMEOUT_S = 180.0
_POLL_S = 0.1


def is_formatted(layout: Layout, state: State) -> bool:
    """Whether there is a file system; where not, there is nothing that could be lost."""
    return any(_has_image(layout.directory / namenode.disk) for namenode in state.namenodes)


def prepare_disks(layout: Layout, state: State, caller: Mapping[str, str]) -> None:
    """Gives every NameNode its image; none of them runs, and the JournalNode of a pair does.

    Raises SandboxError with the NameNode's own words.
    """
    if not is_formatted(layout, state):
        _format(layout, state, caller)
    disks = [layout.directory / namenode.disk for namenode in state.namenodes]
    whole = next(disk for disk in disks if _has_image(disk))
    for disk in disks:
        if not _has_image(disk):
            _copy(whole, disk)


def _has_image(disk: Path) -> bool:
    # The image is what formatting writes last.
    return any((disk / "current").glob("fsimage_*"))


def _copy(source: Path, target: Path) -> None:
    draft = target.with_name(f"{target.name}.new")
    for remains in (draft, target):
        shutil.rmtree(remains, ignore_errors=True)
    # Edits come from the JournalNode, the lock is its holder's.
    shutil.copytree(source, draft, ignore=shutil.ignore_patterns("edits_*", "in_use.lock"))
    draft.rename(target)


def _format(layout: Layout, state: State, caller: Mapping[str, str]) -> None:
    disk = layout.directory / state.namenodes[0].disk
    shutil.rmtree(disk, ignore_errors=True)  # An attempt that was cut off.
    environ = daemons.java_environment(layout, state, caller, "-XX:TieredStopAtLevel=1")
    log = layout.log("namenode-format")
    process = processes.start(daemons.format_command(layout, state), environ, layout.directory, log)
    deadline = time.monotonic() + _FORMAT_TIMEOUT_S
    while processes.is_alive(process):
        if time.monotonic() > deadline:
            processes.kill(process)
            break
        time.sleep(_POLL_S)
    if not _has_image(disk):
        raise SandboxError(f"the NameNode's disk was not formatted: {processes.last_words(log)}", hint=f"see {log}")
