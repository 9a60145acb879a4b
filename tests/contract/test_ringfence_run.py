"""The launcher for machines without systemd does what a unit says, and refuses what it would pass over."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]
LAUNCHER = CHECKOUT / "packaging/launch/ringfence-run"
UNITS = sorted((CHECKOUT / "packaging/systemd").glob("*.service"))


def unit(directory: Path, *lines: str, program: str = "true") -> Path:
    path = directory / "trial.service"
    path.write_text("\n".join(["[Unit]", "Description=a trial", "[Service]", f"ExecStart={program}", *lines, ""]))
    return path


def script(directory: Path, text: str) -> str:
    path = directory / "program"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return str(path)


def launch(path: Path, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, LAUNCHER, path], capture_output=True, text=True, timeout=timeout_s, check=False
    )


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_itself_takes_our_units(path: Path, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    assert program is not None, "systemd-analyze is missing: packaging/scripts/setup installs systemd"
    copy = tmp_path / path.name
    # It wants the program to be there, which on this machine it is not.
    copy.write_text(path.read_text().replace("=/opt/ringfence/bin/ringfence", "=/bin/true"))
    done = subprocess.run([program, "verify", copy], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_every_directive_of_our_units_is_done_or_known_to_be_left_out(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name
    lines = path.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("ExecStart=", "User=", "Group=", "Restart="))]
    kept = [line for line in kept if "Directory" not in line]
    copy.write_text("\n".join([*kept, "[Service]", "ExecStart=true"]))
    done = launch(copy)
    assert done.returncode == 0, done.stderr
    assert "not done here: " in done.stderr and "WantedBy" in done.stderr


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["ExecStartPre=/bin/true"], "ExecStartPre= is neither done here nor known to be safe to leave out"),
        (["PermissionsStartOnly=true"], "PermissionsStartOnly= is neither"),
        (["Type=notify"], "Type=notify is not done here"),
        (["Restart=on-watchdog"], "Restart=on-watchdog is not done here"),
        (["User=nobody-of-that-name"], "there is no such user"),
        (["ExecStart=/bin/false"], "more than one ExecStart="),
        (["ExecStart="], "has no ExecStart="),
        (["TimeoutStopSec=soon"], "no time span"),
        (["nonsense"], "is no directive"),
    ],
)
def test_what_it_would_pass_over_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    done = launch(unit(tmp_path, *lines))
    assert done.returncode == 2 and message in done.stderr


def test_a_masked_unit_and_an_unknown_one_are_not_run(tmp_path: Path) -> None:
    (tmp_path / "masked.service").symlink_to("/dev/null")
    assert "is masked" in launch(tmp_path / "masked.service").stderr
    done = launch(Path("no-such-unit"))
    assert done.returncode == 2 and "there is no no-such-unit.service" in done.stderr


def test_environment_limits_and_umask_are_the_units(tmp_path: Path) -> None:
    (tmp_path / "more").write_text("# a comment\nB='two words'\n")
    program = script(
        tmp_path,
        "import os, resource\n"
        "print(os.environ['A'], os.environ['B'], oct(os.umask(0)), resource.getrlimit(resource.RLIMIT_NOFILE)[0],\n"
        "      resource.getrlimit(resource.RLIMIT_CORE), os.getcwd(), 'HOME_OF_CALLER' in os.environ, flush=True)\n",
    )
    lines = [f'Environment="A=a b" C=d\nEnvironmentFile={tmp_path}/more\nEnvironmentFile=-{tmp_path}/none']
    lines += ["UMask=0077", "LimitNOFILE=123", "LimitCORE=0", f"WorkingDirectory={tmp_path}", "NoNewPrivileges=true"]
    os.environ["HOME_OF_CALLER"] = "x"
    try:
        done = launch(unit(tmp_path, *lines, program=program))
    finally:
        del os.environ["HOME_OF_CALLER"]
    assert done.stdout == f"a b two words 0o77 123 (0, 0) {tmp_path} False\n", done.stderr


@pytest.mark.parametrize(
    ("restart", "code", "starts"), [("no", 3, 1), ("on-failure", 0, 1), ("on-failure", 3, 3), ("always", 0, 3)]
)
def test_it_starts_again_as_the_unit_says_and_gives_up_in_time(
    tmp_path: Path, restart: str, code: int, starts: int
) -> None:
    program = script(tmp_path, f"open({str(tmp_path / 'starts')!r}, 'a').write('x')\nraise SystemExit({code})\n")
    lines = [f"Restart={restart}", "RestartSec=10ms", "StartLimitIntervalSec=1min", "StartLimitBurst=3"]
    done = launch(unit(tmp_path, *lines, program=program))
    assert len((tmp_path / "starts").read_text()) == starts
    assert done.returncode == (1 if starts == 3 else code)


def test_codes_that_prevent_a_restart_do(tmp_path: Path) -> None:
    program = script(tmp_path, "raise SystemExit(5)\n")
    done = launch(unit(tmp_path, "Restart=always", "RestartPreventExitStatus=2 5", program=program))
    assert done.returncode == 5


def test_a_program_that_was_killed_is_started_again_and_what_it_left_is_ended(tmp_path: Path) -> None:
    program = script(
        tmp_path,
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pids')!r}, 'a').write(f'{{os.getpid()}} {{child.pid}}\\n')\n"
        "time.sleep(60)\n",
    )
    path = unit(tmp_path, "Restart=on-failure", "RestartSec=10ms", "KillMode=mixed", program=program)
    process = subprocess.Popen([sys.executable, LAUNCHER, path], stderr=subprocess.DEVNULL)
    pids = tmp_path / "pids"
    try:
        wait_for(lambda: pids.exists() and pids.read_text().count("\n") == 1)
        first, child = map(int, pids.read_text().split())
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: pids.read_text().count("\n") == 2)
        wait_for(lambda: not is_running(child))
        second = int(pids.read_text().splitlines()[1].split()[0])
        process.terminate()
        assert process.wait(20) == 0
        assert not is_running(second)
    finally:
        process.kill()
        process.wait()


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_sighup_runs_the_units_reload(tmp_path: Path) -> None:
    program = script(
        tmp_path,
        "import signal, time\n"
        f"signal.signal(signal.SIGHUP, lambda *_: open({str(tmp_path / 'reloaded')!r}, 'w').close())\n"
        f"open({str(tmp_path / 'ready')!r}, 'w').close()\n"
        "time.sleep(60)\n",
    )
    path = unit(tmp_path, "ExecReload=/bin/kill -HUP $MAINPID", program=program)
    process = subprocess.Popen([sys.executable, LAUNCHER, path], stderr=subprocess.DEVNULL)
    try:
        wait_for((tmp_path / "ready").exists)
        process.send_signal(signal.SIGHUP)
        wait_for((tmp_path / "reloaded").exists)
    finally:
        process.terminate()
        process.wait(20)


def test_drop_ins_come_last(tmp_path: Path) -> None:
    path = unit(tmp_path, "Environment=A=1")
    path.with_name("trial.service.d").mkdir()
    (path.with_name("trial.service.d") / "a.conf").write_text("[Service]\nExecStart=\nExecStart=/bin/sh -c 'exit 7'\n")
    assert launch(path).returncode == 7


def test_a_stop_that_comes_while_the_program_is_started_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal finds no process, or the one before it, which is over; a second one is not looked at."""
    loader = importlib.machinery.SourceFileLoader("ringfence_run", str(LAUNCHER))
    module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec("ringfence_run", loader))
    loader.exec_module(module)
    runner = module.Runner("trial", module.read_unit(unit(tmp_path, program="sleep 20")))
    popen = subprocess.Popen

    def start(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        runner.stop(signal.SIGTERM, None)
        return popen(*words, **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(signal, "setitimer", lambda *_: None)
    assert runner.once() == -signal.SIGTERM
