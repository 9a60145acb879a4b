"""The JVM inside a process, seen from outside: how that process ends."""

from __future__ import annotations

import subprocess
import sys

_LEAVES_WHILE_JAVA_COLLECTS = """
import os, sys
from pathlib import Path
from ringfence_zones.hadoop_home import HadoopHome, find_libjvm
from ringfence_zones.hdfs_jvm import start_jvm

start_jvm(HadoopHome(Path("hadoop"), (), find_libjvm(os.environ)))
import jpype
held = jpype.JClass("java.util.ArrayList")()
for _ in range(20_000):
    held.add(jpype.JProxy("java.lang.Runnable", dict={"run": print}))
held.clear()
jpype.JClass("java.lang.System").gc()
sys.exit(3)
"""


def test_a_process_ends_with_its_own_exit_code_while_java_still_frees_what_python_holds() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _LEAVES_WHILE_JAVA_COLLECTS], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (3, "")
