"""`ringfence sandbox` with its real daemons: repeated, killed, blocked, and taken down."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sandboxes import new_sandbox, run_ringfence

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def sandbox() -> Iterator[dict[str, Any]]:
    """A sandbox of this module's own, because its daemons get killed."""
    with new_sandbox("--kms", "stock") as described:
        yield described


def run(sandbox: dict[str, Any], *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command, *rest = arguments
    return run_ringfence(["sandbox", command, "--dir", sandbox["directory"], *rest], {**os.environ, **environ})


def status(sandbox: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(run(sandbox, "status", "--json").stdout)
    return described


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "not so within 30 s"
        time.sleep(0.05)


def ended(pid: int) -> bool:
    """Gone, or waiting to be buried by an init that takes its time."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def kill(sandbox: dict[str, Any], name: str) -> int:
    """SIGKILL to a daemon; returns the pid it had once it is gone."""
    pid: int = status(sandbox)["pids"][name]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: status(sandbox)["pids"][name] is None)
    return pid


def test_up_again_says_that_it_runs_and_prints_only_export_lines(sandbox: dict[str, Any]) -> None:
    again = run(sandbox, "up")
    assert again.returncode == 0
    assert "is running" in again.stderr
    lines = again.stdout.splitlines()
    assert all(line.startswith("export ") for line in lines)
    names = {line.removeprefix("export ").partition("=")[0] for line in lines}
    assert names == {
        "HADOOP_CONF_DIR",
        "HADOOP_HOME",
        "HADOOP_USER_NAME",
        "JAVA_HOME",
        "RINGFENCE_AGENT_SOCKET",
        "RINGFENCE_KMS_URI",
    }
    assert run(sandbox, "env").stdout == again.stdout


def test_a_shell_that_evaluates_the_lines_has_a_working_hadoop(sandbox: dict[str, Any], tmp_path: Path) -> None:
    lines = run(sandbox, "env").stdout
    script = f'{lines}\n"$HADOOP_HOME/bin/hdfs" dfs -ls -d /tmp'
    shown = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path)
    assert "drwxrwxrwt   - hdfs hdfs" in shown.stdout


def test_status_shows_every_daemon_with_pid_and_ports(sandbox: dict[str, Any]) -> None:
    described = status(sandbox)
    assert described["pids"] == sandbox["pids"]
    assert set(described["pids"]) == {"kms", "namenode", "datanode"}
    assert all(described["pids"].values())
    assert f"kms://http@localhost:{described['ports']['kms']}/kms" == described["environment"]["RINGFENCE_KMS_URI"]


def test_status_in_words_shows_each_log_whole_however_narrow_the_terminal(sandbox: dict[str, Any]) -> None:
    shown = run(sandbox, "status").stdout
    for daemon, log in status(sandbox)["logs"].items():
        assert any(line.startswith(daemon) and line.endswith(log) for line in shown.splitlines()), shown


def test_hadoop_commands_pass_arguments_output_and_exit_code_through(sandbox: dict[str, Any]) -> None:
    assert run(sandbox, "hdfs", "dfs", "-test", "-d", "/tmp").returncode == 0
    missing = run(sandbox, "hdfs", "dfs", "-ls", "/no such place")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "`/no such place': No such file or directory" in missing.stderr
    assert run(sandbox, "hadoop", "version").stdout.startswith("Hadoop 3.4.2\n")


def test_a_command_runs_as_the_user_given(sandbox: dict[str, Any]) -> None:
    made = run_ringfence(
        ["--as", "etl", "sandbox", "hdfs", "--dir", sandbox["directory"], "dfs", "-touchz", "/user/etl/mine"]
    )
    assert made.returncode == 0, made.stderr
    assert " etl etl " in run(sandbox, "hdfs", "dfs", "-ls", "/user/etl").stdout
    refused = run(sandbox, "hdfs", "dfs", "-touchz", "/user/etl/other", HADOOP_USER_NAME="analyst")
    assert refused.returncode == 1
    assert "Permission denied: user=analyst" in refused.stderr


def test_the_callers_own_hadoop_settings_do_not_reach_the_sandbox(sandbox: dict[str, Any]) -> None:
    shown = run(sandbox, "hdfs", "getconf", "-confKey", "fs.defaultFS", HADOOP_CONF_DIR="/etc/hadoop/conf.other")
    assert shown.stdout == f"hdfs://localhost:{sandbox['ports']['namenode']}\n"


def test_a_killed_daemon_is_told_and_started_again_on_its_ports(sandbox: dict[str, Any]) -> None:
    run(sandbox, "hdfs", "dfs", "-touchz", "/tmp/kept")
    killed = kill(sandbox, "namenode")
    assert run(sandbox, "status").returncode == 1
    told = run(sandbox, "hdfs", "dfs", "-ls", "/")
    assert told.returncode == 1
    assert "the sandbox's NameNode does not run" in told.stderr
    assert f"ringfence sandbox up --dir {sandbox['directory']}" in told.stderr
    again = json.loads(run(sandbox, "up", "--json").stdout)
    assert again["ports"] == sandbox["ports"]
    assert again["pids"]["namenode"] not in (None, killed)
    assert again["pids"]["kms"] == sandbox["pids"]["kms"], "what ran was left alone"
    assert run(sandbox, "hdfs", "dfs", "-test", "-e", "/tmp/kept").returncode == 0


def takes(squatter: socket.socket, port: int) -> bool:
    try:
        squatter.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def test_a_taken_port_is_named_with_its_daemon(sandbox: dict[str, Any]) -> None:
    kill(sandbox, "datanode")
    port = sandbox["ports"]["datanode_http"]
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wait_for(lambda: takes(squatter, port))  # what was killed may hold it for a moment more
        squatter.listen()
        refused = run(sandbox, "up")
    assert refused.returncode == 1
    assert f"port {port} of this sandbox's datanode is taken by another process" in refused.stderr
    assert run(sandbox, "up").returncode == 0


def test_a_daemon_that_cannot_start_is_quoted_from_its_log(sandbox: dict[str, Any]) -> None:
    kill(sandbox, "kms")
    broken = Path(sandbox["directory"]) / "kms-conf/kms-site.xml"
    good = broken.read_text()
    try:
        broken.write_text(good.replace("jceks://file@", "nonsense://file@"))
        refused = run(sandbox, "up")
    finally:
        broken.write_text(good)
    assert refused.returncode == 1
    assert "the kms ended while starting: " in refused.stderr
    assert str(Path(sandbox["directory"]) / "logs/kms.log") in refused.stderr
    assert status(sandbox)["pids"]["namenode"], "what ran before is not stopped with what failed"
    assert run(sandbox, "up").returncode == 0


def test_the_other_kind_of_kms_is_refused_because_the_keys_are_in_this_one(sandbox: dict[str, Any]) -> None:
    refused = run(sandbox, "up", "--kms", "ringfence")
    assert refused.returncode == 1
    assert "has the stock KMS, and its zones' keys are in there" in refused.stderr
    assert status(sandbox)["kms"] == "stock"


def test_down_stops_this_sandbox_only_and_keeps_its_files(sandbox: dict[str, Any]) -> None:
    pids = status(sandbox)["pids"].values()
    assert not any(ended(pid) for pid in pids)
    with subprocess.Popen(["sleep", "600"]) as bystander:
        try:
            down = run(sandbox, "down")
            assert down.returncode == 0, down.stderr
            assert bystander.poll() is None
        finally:
            bystander.kill()
    assert all(ended(pid) for pid in pids)
    assert (Path(sandbox["directory"]) / "name/current/VERSION").exists()
    assert "nothing of this sandbox is running" in run(sandbox, "down").stderr
    refused = run(sandbox, "hdfs", "dfs", "-ls", "/")
    assert "NameNode does not run" in refused.stderr


def test_no_sandbox_is_told_with_the_command_that_makes_one(tmp_path: Path) -> None:
    for command in ("status", "env", "hdfs", "hadoop"):
        told = run({"directory": str(tmp_path)}, command)
        assert told.returncode == 1
        assert f"there is no sandbox in {tmp_path}" in told.stderr
        assert f"ringfence sandbox up --dir {tmp_path}" in told.stderr
    assert run({"directory": str(tmp_path)}, "down").returncode == 0


def test_a_directory_with_other_files_is_left_alone_by_up_and_down(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/thesis.txt").write_text("mine")
    for arguments in (["up"], ["down", "--delete"]):
        refused = run({"directory": str(tmp_path / "s")}, *arguments)
        assert refused.returncode == 1
        assert "holds files but no sandbox" in refused.stderr
    assert (tmp_path / "s/thesis.txt").read_text() == "mine"
