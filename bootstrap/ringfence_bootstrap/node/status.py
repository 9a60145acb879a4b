"""The status object: what became of a node's set-up, for whoever waits for it and has no shell on the node.

One JSON document, on the node for everybody to read and, when the configuration says so, in S3 below the cluster's and
the instance's id. The upload goes through the node's own `aws` command, which has the instance profile; that it failed
is part of the document on the node and stops nothing. The document holds sentences and names, never a secret.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ringfence_bootstrap.node.facts import NodeFacts
from ringfence_zones.cli.exits import error_json
from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import InstallError, RingfenceError

SCHEMA = 1
WAITING = "waiting"
WORKING = "working"
DONE = "done"
FAILED = "failed"
_UPLOAD_TIMEOUT_S = 60


class StatusFile:
    """`path` on the node; `target` an s3:// address, or None."""

    def __init__(self, path: Path, target: str | None) -> None:
        self._path = path
        self._target = target

    def write(self, state: str, facts: NodeFacts, **more: Any) -> None:
        """Writes it here, then there. Raises InstallError when it cannot be written here."""
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "state": state,
            "version": version("ringfence"),
            "updated": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "node": facts.to_json(),
            **more,
        }
        self._save(document)
        if self._target is not None:
            problem = _upload(self._path, object_address(self._target, facts))
            if problem is not None:
                self._save(document | {"upload": problem})

    def _save(self, document: Mapping[str, Any]) -> None:
        try:
            self._path.parent.mkdir(mode=0o755, exist_ok=True)
            replace_file(self._path, (json.dumps(document, indent=2) + "\n").encode(), 0o644)
        except OSError as error:
            raise InstallError(f"cannot write {self._path}: {error.strerror}") from error


def failure(error: RingfenceError) -> dict[str, Any]:
    """An error as the document has it."""
    return error_json(error)


def read_status(path: Path) -> Mapping[str, Any] | None:
    """The document on this node; None when there is none that can be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def object_address(target: str, facts: NodeFacts) -> str:
    """One object for each node: TARGET/CLUSTER/INSTANCE.json, or TARGET/key-servers/HOST.json off the cluster."""
    elsewhere = "key-servers" if facts.role == "key-server" else "unknown-cluster"
    cluster, instance = facts.cluster_id or elsewhere, facts.instance_id or facts.role or "unknown-instance"
    return f"{target.rstrip('/')}/{cluster}/{instance}.json"


def _upload(path: Path, address: str) -> str | None:
    """What went wrong."""
    program = shutil.which("aws")
    if program is None:
        return "the aws command is not on the PATH"
    try:
        done = subprocess.run(
            [program, "s3", "cp", "--only-show-errors", str(path), address],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_UPLOAD_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"aws s3 cp did not run: {error}"
    return f"aws s3 cp ended with {done.returncode}: {done.stderr.strip()[-300:]}" if done.returncode else None
