"""CloudFormation's own schemas on what `launch-config --format cloudformation` writes, read by cfn-lint.

It runs in an environment of its own in the cache, made from packaging/constraints/cfn-lint.txt. A template that is
wrong on purpose shows that it looks.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from emr_launch import CHECKOUT, Site

from ringfence_bootstrap.launch.cloudformation import cloudformation_template
from ringfence_bootstrap.sandbox.artifacts import cache_directory

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

PINNED = CHECKOUT / "packaging" / "constraints" / "cfn-lint.txt"


@pytest.fixture(scope="module")
def cfn_lint() -> Path:
    """The program, installed once for each list of pins."""
    pins = hashlib.sha256(PINNED.read_bytes()).hexdigest()[:16]
    home = cache_directory(os.environ) / f"cfn-lint-{pins}"
    if not (home / "complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True, timeout=300)
        install = [home / "bin" / "pip", "install", "--quiet", "--require-hashes", "--requirement", PINNED]
        subprocess.run(install, check=True, timeout=900)
        (home / "complete").touch()
    return home / "bin" / "cfn-lint"


def complaints(cfn_lint: Path, directory: Path, template: dict[str, Any]) -> list[str]:
    path = directory / "template.json"
    path.write_text(json.dumps(template))
    command = [cfn_lint, "--format", "parseable", "--non-zero-exit-code", "none", path]
    environ = {"PATH": os.environ["PATH"], "HOME": str(directory)}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=300, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("document", ["small", "every-field"])
def test_cloudformation_takes_the_template(cfn_lint: Path, tmp_path: Path, document: str) -> None:
    assert complaints(cfn_lint, tmp_path, cloudformation_template(Site(tmp_path, document).read())) == []


def rename_properties(properties: dict[str, Any]) -> None:
    """The API's name, which is the easiest mistake."""
    block = properties["Configurations"][0]
    block["Properties"] = block.pop("ConfigurationProperties")


def drop_role(properties: dict[str, Any]) -> None:
    del properties["JobFlowRole"]


def give_text(properties: dict[str, Any]) -> None:
    properties["Instances"]["MasterInstanceGroup"]["InstanceCount"] = "one"


@pytest.mark.parametrize(
    ("change", "word"), [(rename_properties, "Properties"), (drop_role, "JobFlowRole"), (give_text, "'one'")]
)
def test_a_template_that_is_wrong_is_complained_of(
    cfn_lint: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], word: str
) -> None:
    template = cloudformation_template(Site(tmp_path).read())
    change(template["Resources"]["Cluster"]["Properties"])
    assert any(word in line for line in complaints(cfn_lint, tmp_path, template))
