"""Where EMR keeps what a step prints, so that a step can say it.

EMR runs a step in a directory with the step's id, sends its output to files in another, and copies those to the log
URI minutes later, when the cluster has one.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

_STEP_ID = re.compile(r"s-[0-9A-Z]{8,32}")
LOG_DIRECTORY = Path("/mnt/var/log/hadoop/steps")


@dataclass(frozen=True, slots=True)
class LogPlace:
    """`directory` is on this node; `uri` in S3, None without a log URI or outside a step."""

    step_id: str | None
    directory: Path
    uri: str | None

    def __str__(self) -> str:
        return f"{self.directory}" + (f", and minutes later {self.uri}" if self.uri is not None else "")


def find_log_place(log_uri: str | None, cluster_id: str | None, working_directory: Path, output: int = 1) -> LogPlace:
    """From the step's working directory and, when that is a file, from where its output (a descriptor) goes."""
    step_id = next((part for part in reversed(working_directory.parts) if _STEP_ID.fullmatch(part)), None)
    directory = _file_of(output)
    if directory is None:
        directory = LOG_DIRECTORY / step_id if step_id is not None else LOG_DIRECTORY
    else:
        step_id = step_id or (directory.name if _STEP_ID.fullmatch(directory.name) else None)
    uri = None
    if log_uri is not None and cluster_id is not None and step_id is not None:
        uri = f"{log_uri.rstrip('/')}/{cluster_id}/steps/{step_id}/"
    return LogPlace(step_id, directory, uri)


def _file_of(descriptor: int) -> Path | None:
    """The directory of the file that a descriptor writes to; None for a pipe or a terminal."""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return Path(f"/proc/self/fd/{descriptor}").readlink().parent
    except OSError:
        return None
