"""The example steps: what an old Python can run, and that the PySpark one asks, stages and renames in this order.

The shell and the Python step run on a real cluster in tests/cluster/test_step_jobs.py; Spark and Hive are not there.
"""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ringfence_agent.client as client_module
from ringfence_agent.client import MoveAnswer, Places

EXAMPLES = Path(__file__).parents[3] / "agent/examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_it_is_valid_for_python_3_7(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 7))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.sh")), ids=lambda path: path.name)
def test_the_shell_can_read_it(path: Path) -> None:
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", path], check=True)


class _Spark:
    """As much of Spark as a rename takes; remembers what was done."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.renames = True
        self.sparkContext = self
        self.applicationId = "application_1_0001"
        self._jvm = self.org = self.apache = self.hadoop = self.fs = self._jsc = self.write = self

    def Path(self, name: str) -> Any:  # noqa: N802 - Hadoop's name
        return _Path(self, name)

    def hadoopConfiguration(self) -> None:  # noqa: N802
        return None

    def parquet(self, path: str) -> None:
        self.done.append(f"write {path}")

    def mkdirs(self, path: Any) -> None:
        self.done.append(f"mkdirs {path.name}")

    def rename(self, source: Any, target: Any) -> bool:
        self.done.append(f"rename {source.name} {target.name}")
        return self.renames

    def delete(self, path: Any, recursive: bool) -> None:
        self.done.append(f"delete {path.name} {recursive}")


class _Path:
    def __init__(self, spark: _Spark, name: str) -> None:
        self.spark, self.name = spark, name

    def getFileSystem(self, _: None) -> _Spark:  # noqa: N802
        return self.spark

    def getParent(self) -> _Path:  # noqa: N802
        return _Path(self.spark, self.name.rpartition("/")[0])


class _Agent:
    def __init__(self, *, allows: bool) -> None:
        self.allows = allows

    def places(self, path: str, job: str | None = None) -> Places:
        return Places(path, "/z", f"/z/.staging-etl-{job}", f"/z/.scratch-etl-{job}", "why")

    def check_move(self, src: str, dst: str) -> MoveAnswer:
        return MoveAnswer(self.allows, self.allows, self.allows, "it may not", "zone_to_zone", "distcp")


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(sys.modules, "ringfence_client", client_module)  # as --py-files brings it
    return _loaded("pyspark_step")


def _loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pyspark_step_stages_in_the_zone_and_renames_once(step: ModuleType) -> None:
    spark = _Spark()
    step.publish(spark, _Agent(allows=True), spark, "/z/t/dt=1")
    staging = "/z/.staging-etl-application_1_0001"
    assert spark.done == [
        f"write {staging}/result",
        "mkdirs /z/t",
        f"rename {staging}/result /z/t/dt=1",
        f"delete {staging} True",
    ]


def test_the_pyspark_step_writes_nothing_that_it_could_not_rename(step: ModuleType) -> None:
    spark = _Spark()
    with pytest.raises(SystemExit, match="it may not; instead: distcp"):
        step.publish(spark, _Agent(allows=False), spark, "/z/t")
    assert spark.done == []


def test_the_pyspark_step_leaves_nothing_behind_when_the_rename_fails(step: ModuleType) -> None:
    spark = _Spark()
    spark.renames = False
    with pytest.raises(SystemExit, match="is it there already"):
        step.publish(spark, _Agent(allows=True), spark, "/z/t")
    assert spark.done[-1].startswith("delete ")


def test_the_python_step_ends_with_1_and_no_traceback_when_hdfs_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hdfs = tmp_path / "hdfs"
    hdfs.write_text("#!/bin/sh\necho mv: there is a file in the way >&2\nexit 1\n")
    hdfs.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    python_step = _loaded("python_step")
    monkeypatch.setattr(python_step, "AgentClient", lambda: _Agent(allows=True))
    assert python_step.main("/z/a", "/z/b") == 1
    told = capfd.readouterr()
    assert told.err == "mv: there is a file in the way\n"
    assert told.out == ""
