"""A node's way from its bootstrap action to its uninstall: what the tests of several kinds of node do alike."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from emr_node import CHECKOUT, EmrNode

ACTION = CHECKOUT / "bootstrap/emr/bootstrap-action.sh"
CONFIG = "s3://artifacts/bootstrap.yaml"
OURS = Path("/opt/ringfence/bin/ringfence")


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What nodes are installed from, and its line of bootstrap.yaml; made as a user would, with an index at hand."""
    target = tmp_path_factory.mktemp("wheelhouse") / "wheelhouse"
    done = subprocess.run(
        [CHECKOUT / "packaging/scripts/wheelhouse", target], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    return target, done.stdout.strip()


def give_wheelhouse(node: EmrNode, wheelhouse: tuple[Path, str]) -> None:
    bucket = node.path("/srv/s3/artifacts")
    shutil.copytree(wheelhouse[0], bucket / "wheelhouse")
    (bucket / "bootstrap.yaml").write_text(
        f"wheelhouse: s3://artifacts/wheelhouse\n{wheelhouse[1]}\nmode: ringfence-kms\n"
        "kms: {prove_as: [etl]}\nstatus: s3://logs/ringfence\n"
    )


def bootstrap(node: EmrNode) -> str:
    """The bootstrap action to its end; what it says last."""
    return node.run("bash", ACTION, CONFIG).stdout.strip()


def check(node: EmrNode, expect: int) -> list[tuple[str, str]]:
    """The findings of `emr node check`: rule and path."""
    found = json.loads(node.run(OURS, "emr", "node", "check", "--json", expect=expect).stdout)
    return [(each["rule"], each["path"]) for each in found["findings"]]


def wait_until_done(node: EmrNode) -> None:
    node.wait_for("the waiter", lambda: node.status().get("state") == "done", timeout_s=400)


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    paths = sorted(one.keys() | other.keys())
    return [f"{path}: {one.get(path)} -> {other.get(path)}" for path in paths if one.get(path) != other.get(path)]
