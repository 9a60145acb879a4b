"""The suggested copy and comparison, run by a real shell against a stand-in for Hadoop's shell on local files.

`tests/cluster/test_zone_commands.py` runs it against the real one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence_zones.copy_command import copy_and_compare
from ringfence_zones.paths import HdfsPath

# As FsShell: sources and existing paths are globs (a backslash escapes), a missing target is taken literally, and a
# file listed in UNREADABLE cannot be read.
FAKE_HDFS = """\
import os, re, shutil, sys
plain = lambda text: re.sub(r"\\\\(.)", r"\\1", text)
verb, *args = sys.argv[2:]
if verb == "-cp":
    source, target = plain(args[0]), args[1]
    if re.search(r"[*?\\[\\]{}]", target) and not os.path.exists(target):
        sys.exit(1)
    target = os.path.join(target, os.path.basename(source)) if os.path.isdir(target) else target
    if os.path.exists(target):
        sys.exit(1)
    shutil.copytree(source, target) if os.path.isdir(source) else shutil.copyfile(source, target)
elif verb == "-cat":
    for name in map(plain, args):
        if name in os.environ.get("UNREADABLE", "").split(":"):
            sys.exit(1)
        with open(name, "rb") as stream:
            sys.stdout.buffer.write(stream.read())
elif verb == "-ls":
    top = plain(args[1])
    if not os.path.exists(top):
        sys.exit(1)
    found = [top] if os.path.isfile(top) else sorted(
        os.path.join(where, name) for where, dirs, files in os.walk(top) for name in dirs + files)
    for name in found:
        kind = "d" if os.path.isdir(name) else "-"
        print(f"{kind}rw-r--r--   1 hdfs supergroup {os.path.getsize(name):10} 2026-01-01 00:00 {name}")
"""

NAMES = ["plain", "two words", "st*r", "[1]{2,3}?", 'it\'s "$(x)"', "back\\slash", "donn\u00e9es", "-dash"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory for files, beside the stand-in's."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "fake.py").write_text(FAKE_HDFS, encoding="utf-8")
    program = tmp_path / "bin" / "hdfs"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/fake.py" "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "fs").mkdir()
    return tmp_path / "fs"


def _run(command: str | None, root: Path, **environ: str) -> int:
    assert command is not None
    path = f"{root.parent / 'bin'}:{os.environ['PATH']}"
    env = {"PATH": path, "LC_ALL": "C.UTF-8", **environ}
    return subprocess.run(["sh", "-c", command], env=env, capture_output=True, timeout=60, check=False).returncode


def _at(path: Path) -> HdfsPath:
    return HdfsPath.parse(str(path))


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_copied_and_found_equal(root: Path, name: str) -> None:
    (root / name).write_text("content")
    (root / "into").mkdir()
    assert _run(copy_and_compare(_at(root / name), _at(root / "into" / name), is_directory=False), root) == 0
    assert (root / "into" / name).read_text() == "content"


def test_a_tree_is_compared_with_every_name_and_byte(root: Path) -> None:
    (root / "a tree" / "sub").mkdir(parents=True)
    for name in NAMES:
        (root / "a tree" / "sub" / name).write_text(name)
    command = copy_and_compare(_at(root / "a tree"), _at(root / "copy"), is_directory=True)
    assert _run(command, root) == 0
    assert command is not None
    comparison = command.split(" && ", 1)[1]
    assert _run(comparison, root) == 0
    # The same bytes under another name, and the same names and bytes split differently, are no copy.
    (root / "copy" / "sub" / "plain").rename(root / "copy" / "sub" / "plane")
    assert _run(comparison, root) == 1
    (root / "copy" / "sub" / "plane").rename(root / "copy" / "sub" / "plain")
    (root / "copy" / "sub" / "plain").write_text("plaintwo ")
    (root / "copy" / "sub" / "two words").write_text("words")
    assert _run(comparison, root) == 1


@pytest.mark.parametrize("directory", ["source", "copy"])
def test_a_directory_taken_for_a_file_is_never_found_equal(root: Path, directory: str) -> None:
    (root / "d").mkdir()
    (root / "f").write_text("1")
    source, copy = ("d", "new") if directory == "source" else ("f", "d")
    assert _run(copy_and_compare(_at(root / source), _at(root / copy), is_directory=False), root) == 1


@pytest.mark.parametrize("known", [False, True])
def test_two_sides_that_cannot_be_read_are_never_equal(root: Path, known: bool) -> None:
    (root / "d").mkdir()
    (root / "d" / "f").write_text("1")
    source, copy = (root / "d" / "f", root / "g") if not known else (root / "d", root / "g")
    unreadable = f"{root}/d/f:{root}/g:{root}/g/f"
    assert _run(copy_and_compare(_at(source), _at(copy), is_directory=known), root, UNREADABLE=unreadable) == 1


def test_a_copy_that_fails_is_not_compared(root: Path) -> None:
    (root / "f").write_text("1")
    (root / "g").write_text("1")
    assert _run(copy_and_compare(_at(root / "f"), _at(root / "g"), is_directory=False), root) == 1


@pytest.mark.parametrize(("src", "dst"), [("/a", "/a/b"), ("/a", "/a"), ("/a", "/b*"), ("/a*", "/b*/a*")])
def test_where_no_command_works_there_is_none(src: str, dst: str) -> None:
    assert copy_and_compare(HdfsPath.parse(src), HdfsPath.parse(dst), is_directory=False) is None
