"""The task that a job ships, run as a node runs it: with a stand-in for Hadoop's `hdfs`, and nothing else of ours."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from ringfence_agent.transfer import copy_task

_TASK = Path(copy_task.__file__)
_AWKWARD = "a,b {x} [1] *? ü\u2028\U0001f980 %20\\z 'q' \"d\"\nline"
# `hdfs dfs` over a directory: patterns are undone, writing never replaces, and each call is noted.
_HDFS = r"""#!{python}
import os, pathlib, re, shutil, sys
root = pathlib.Path({root!r})
words = sys.argv[1:]
assert words[:2] == ["dfs", "-Dfs.permissions.umask-mode=077"], words
action, paths = words[2], [each for each in words[3:] if not each.startswith("-") or each == "-"]
with open(root / "calls", "a") as calls:
    calls.write(action + "\n")
bare = [each for each in paths if re.search(r"(?<!\\)(?:\\\\)*[*?\[\]{{}}]", each)]
assert not bare, bare
local = lambda path: root / re.sub(r"\\(.)", r"\1", path).lstrip("/")
print("2026-11-22 23:59:59,123 WARN util.NativeCodeLoader: noise", file=sys.stderr)
def fail(sentence):
    print(sentence, file=sys.stderr)
    sys.exit(1)
if (root / "broken").exists() and action in (root / "broken").read_text():
    fail(action[1:] + ": it is broken: " + paths[-1])
if action == "-cat":
    if not local(paths[0]).is_file():
        fail("cat: `" + paths[0] + "': No such file or directory")
    sys.stdout.buffer.write(local(paths[0]).read_bytes())
elif action == "-put":
    assert "-d" in words and "-f" not in words and paths[0] == "-"
    if local(paths[1]).exists():
        fail("put: `" + paths[1] + "': File exists")
    with open(local(paths[1]), "wb") as stream:
        shutil.copyfileobj(sys.stdin.buffer, stream)
elif action == "-rm":
    for path in paths:
        local(path).unlink(missing_ok=True)
else:
    fail("unknown")
"""


class Node:
    """A node with HDFS in a directory, where the task runs in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "hdfs"
        self.home = directory / "hadoop"
        (self.home / "bin").mkdir(parents=True)
        (self.root / "z/copies").mkdir(parents=True)
        hdfs = self.home / "bin" / "hdfs"
        hdfs.write_text(_HDFS.format(python=sys.executable, root=str(self.root)))
        hdfs.chmod(0o755)

    def write(self, path: str, content: bytes) -> None:
        self.root.joinpath(path).parent.mkdir(parents=True, exist_ok=True)
        self.root.joinpath(path).write_bytes(content)

    def run(self, *files: dict[str, Any], attempt: int = 0, **environ: str) -> subprocess.CompletedProcess[str]:
        own = {
            "PATH": "/usr/bin:/bin",
            "HADOOP_HOME": str(self.home),
            "mapreduce_task_attempt_id": f"attempt_1700000000000_0042_m_000003_{attempt}",
            "mapreduce_map_maxattempts": "3",
        }
        return subprocess.run(
            [sys.executable, "-I", "-S", str(_TASK), quote("/s rc"), quote("/z/copies")],
            input=json.dumps(files) + "\n",
            env={**own, **environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def records(self, *files: dict[str, Any], attempt: int = 0) -> list[dict[str, Any]]:
        ran = self.run(*files, attempt=attempt)
        assert ran.returncode == 0, ran.stderr
        return [json.loads(line) for line in ran.stdout.splitlines()]

    def copies(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.root / "z/copies").iterdir()}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def wanted(number: int, path: str, content: bytes = b"") -> dict[str, Any]:
    return {"number": number, "path": path, "bytes": len(content)}


def record(path: str, copy: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    read = {"bytes_read": len(content), "sha256_read": digest, "bytes_back": len(content), "sha256_back": digest}
    return {"path": path, "copy": copy, **read}


def test_files_are_copied_read_back_and_told_whatever_their_names(node: Node) -> None:
    files = {"large": os.urandom(3 * copy_task.CHUNK_BYTES + 1), "empty": b"", f"sub/{_AWKWARD}": b"x"}
    for path, content in files.items():
        node.write(f"s rc/{path}", content)
    told = node.records(*(wanted(number, path) for number, path in enumerate(files)))
    names = [f"{number}.m_000003_0" for number in range(3)]
    assert told == [record(path, name, content) for name, (path, content) in zip(names, files.items(), strict=True)]
    assert node.copies() == dict(zip(names, files.values(), strict=True))


def test_a_record_is_one_line_of_ascii_and_the_node_s_log_has_no_name_of_a_file(node: Node) -> None:
    node.write(f"s rc/{_AWKWARD}", b"x")
    ran = node.run(wanted(0, _AWKWARD))
    assert ran.stdout.isascii()
    assert len(ran.stdout.splitlines()) == 1
    failed = node.run(wanted(0, _AWKWARD + "2"))
    assert failed.returncode == 1
    for said in (ran.stderr, failed.stderr):
        assert "{x}" not in said
        assert said.startswith(("reporter:counter:Ringfence,bytes read,", "a file could not be copied"))


def test_the_source_itself_may_be_the_file(node: Node) -> None:
    node.write("s rc", b"alone")
    assert node.records(wanted(0, "")) == [record("", "0.m_000003_0", b"alone")]


def test_a_later_attempt_writes_beside_what_earlier_ones_left_and_removes_that(node: Node) -> None:
    node.write("s rc/a", b"whole")
    node.write("z/copies/7.m_000003_0", b"half")
    node.write("z/copies/7.m_000003_1", b"ha")
    node.write("z/copies/8.m_000004_0", b"another task's")
    assert node.records(wanted(7, "a"), attempt=2) == [record("a", "7.m_000003_2", b"whole")]
    assert node.copies() == {"7.m_000003_2": b"whole", "8.m_000004_0": b"another task's"}


def test_what_is_there_under_its_own_name_is_never_replaced(node: Node) -> None:
    node.write("s rc/a", b"whole")
    node.write("z/copies/7.m_000003_0", b"somebody's")
    ran = node.run(wanted(7, "a"))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert node.copies() == {"7.m_000003_0": b"somebody's"}


@pytest.mark.parametrize("action", ["-cat", "-put"])
def test_a_failure_is_left_to_the_next_attempt_and_told_by_the_last(node: Node, action: str) -> None:
    node.write("s rc/a", b"1" * 5_000_000)
    node.write("s rc/b", b"2")
    node.write("broken", action.encode())
    first = node.run(wanted(0, "a"), wanted(1, "b"))
    assert (first.returncode, first.stdout) == (1, "")
    told = node.records(wanted(0, "a"), wanted(1, "b"), attempt=2)
    assert [each["path"] for each in told] == ["a", "b"]
    assert all(each["error"].startswith(f"{action[1:]}: it is broken: /") for each in told)


def test_a_file_that_is_not_there_is_told_in_the_shell_s_own_words(node: Node) -> None:
    node.write("s rc/b", b"2")
    gone, copied = node.records(wanted(0, "a"), wanted(1, "b"), attempt=2)
    assert gone == {"path": "a", "error": "cat: `/s rc/a': No such file or directory"}
    assert copied == record("b", "1.m_000003_2", b"2")


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a//b", "./a"])
def test_a_path_outside_the_source_is_not_read(node: Node, path: str) -> None:
    node.write("x", b"secret")
    assert node.records(wanted(0, path), attempt=2) == [{"path": path, "error": "this is no path below the source"}]
    assert not (node.root / "calls").exists()


def test_without_an_attempt_s_number_or_an_hdfs_command_it_says_so(node: Node) -> None:
    assert "mapreduce_task_attempt_id is not set" in node.run(mapreduce_task_attempt_id="").stderr
    (node.home / "bin" / "hdfs").unlink()
    ran = node.run(wanted(0, "a"), attempt=2)
    assert "there is no hdfs command on this node" in json.loads(ran.stdout)["error"]


def test_the_command_of_the_path_comes_before_those_of_homes(tmp_path: Path) -> None:
    for name in ("path/hdfs", "home/bin/hdfs"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    environ = {"PATH": str(tmp_path / "path"), "HADOOP_HDFS_HOME": str(tmp_path / "home")}
    assert copy_task.find_hdfs(environ) == str(tmp_path / "path/hdfs")
    assert copy_task.find_hdfs({**environ, "PATH": "/nowhere"}) == str(tmp_path / "home/bin/hdfs")


@pytest.mark.parametrize(
    ("environ", "locale"),
    [({}, "C.UTF-8"), ({"LANG": "de_DE.utf8"}, None), ({"LC_ALL": "C", "LANG": "en_US.UTF-8"}, "C.UTF-8")],
)
def test_names_are_in_utf_8_for_java(environ: dict[str, str], locale: str | None) -> None:
    assert copy_task.shell_environment(environ).get("LC_ALL") == locale
