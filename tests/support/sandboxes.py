"""Sandboxes for tests: made by the `ringfence` command as a user would, in directories of their own.

Jars come from the user's cache, because they are verified and never change; everything else lives in a temporary
directory, so the user's own sandbox is neither seen nor touched. A sandbox is made when the first test asks for it,
shared by the session, and taken down at its end; a test names its paths and keys so that others do not meet them.
A missing Java or Maven fails the test: nothing here skips.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

RINGFENCE = Path(sys.executable).with_name("ringfence")
_UP_TIMEOUT_S = 900  # The very first one may have to fetch Hadoop's jars.
_DOWN_TIMEOUT_S = 120


def run_ringfence(
    arguments: Sequence[str | Path], environ: Mapping[str, str] | None = None, *, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Runs the installed command; standard output and error as text."""
    return subprocess.run(
        [RINGFENCE, *arguments], env=environ, capture_output=True, text=True, timeout=timeout_s, check=False
    )


@contextmanager
def sandbox_in(directory: Path, *options: str) -> Iterator[dict[str, Any]]:
    """A running sandbox as `ringfence sandbox up --json` describes it; deleted at the end, whatever happened."""
    try:
        up = run_ringfence(["sandbox", "up", "--json", "--dir", directory, *options], timeout_s=_UP_TIMEOUT_S)
        if up.returncode:
            pytest.fail(f"the sandbox did not come up:\n{up.stderr}")
        yield json.loads(up.stdout)
    finally:
        down = run_ringfence(["sandbox", "down", "--delete", "--dir", directory], timeout_s=_DOWN_TIMEOUT_S)
        assert down.returncode == 0, down.stderr


def start_stopped(directory: Path) -> dict[str, Any]:
    """Starts what ended of a sandbox that is there; how it is described then."""
    up = run_ringfence(["sandbox", "up", "--json", "--dir", directory], timeout_s=_UP_TIMEOUT_S)
    assert up.returncode == 0, up.stderr
    described: dict[str, Any] = json.loads(up.stdout)
    return described


@contextmanager
def new_sandbox(*options: str) -> Iterator[dict[str, Any]]:
    """A sandbox of a test's own."""
    # Not pytest's tmp_path: its directories are too long for a Unix socket.
    with tempfile.TemporaryDirectory(prefix="rf-") as parent, sandbox_in(Path(parent) / "s", *options) as described:
        yield described


def environment_of(described: Mapping[str, Any], user: str = "hdfs") -> dict[str, str]:
    """The environment of a program that uses this sandbox as `user`: nothing of the caller's Hadoop is left in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HADOOP_", "RINGFENCE_"))}
    return {**kept, **described["environment"], "HADOOP_USER_NAME": user}


@pytest.fixture(scope="session")
def ringfence_sandbox() -> Iterator[dict[str, Any]]:
    """The session's sandbox with our KMS."""
    with new_sandbox("--kms", "ringfence") as described:
        yield described


@pytest.fixture(scope="session")
def stock_sandbox() -> Iterator[dict[str, Any]]:
    """The session's sandbox with Hadoop's own KMS."""
    with new_sandbox("--kms", "stock") as described:
        yield described
