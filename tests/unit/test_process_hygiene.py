"""What the kernel is told, seen from outside: through /proc, a real crash and a killed parent."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

_PROTECTED = """
import os, resource, sys
from ringfence_agent.process_hygiene import forbid_core_dumps
resource.setrlimit(resource.RLIMIT_CORE, (2**30, 2**30))
if sys.argv[1] == "protect":
    forbid_core_dumps()
print("ready", flush=True)
os.read(0, 1)
os.abort()
"""


def _run(tmp_path: Path, switch: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", _PROTECTED, switch],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def _crash(process: subprocess.Popen[bytes]) -> bool:
    """Lets it abort; returns whether the kernel says that a core was dumped."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"x")
    process.stdin.flush()
    _, status = os.waitpid(process.pid, 0)
    process.returncode = -signal.SIGABRT
    process.stdin.close()
    process.stdout.close()
    return os.WCOREDUMP(status)


def test_protected_process_leaves_no_core_although_the_limit_allowed_one(tmp_path: Path) -> None:
    assert _crash(_run(tmp_path, "protect")) is False
    assert list(tmp_path.iterdir()) == []


def test_unprotected_process_would_have_dumped_one(tmp_path: Path) -> None:
    """The positive control: without it the test above could pass on a machine that never dumps."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text(encoding="utf-8").strip()
    if pattern.startswith("|") or not pattern:
        pytest.skip("cores are piped to a program here")
    assert _crash(_run(tmp_path, "leave")) is True


def test_protected_process_has_no_room_for_a_core(tmp_path: Path) -> None:
    process = _run(tmp_path, "protect")
    limits = Path(f"/proc/{process.pid}/limits").read_text(encoding="utf-8")
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    assert _crash(process) is False


_PARENT = """
import os, time
from ringfence_agent.process_hygiene import die_with_parent
parent = os.getpid()
pid = os.fork()
if pid == 0:
    die_with_parent(parent)
    os.write(1, b"%d\\n" % os.getpid())
    while True:
        time.sleep(60)
os.waitpid(pid, 0)
"""


def test_child_dies_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = os.pidfd_open(int(parent.stdout.readline()))
    try:
        parent.kill()
        parent.wait(10)
        assert select.select([child], [], [], 10)[0], "the child outlived its parent"
    finally:
        os.close(child)
        parent.stdout.close()


def test_open_files_limit_is_raised_towards_the_hard_limit() -> None:
    program = (
        "import resource; from ringfence_agent.process_hygiene import raise_open_files_limit as r;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512)); print(r(), resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "512 (512, 512)"
