"""The process that copies: whose it is, and what becomes of an act when it dies, stands still or loses its agent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence_agent.transfer.hands_process import HandsProcess, hands_environment
from ringfence_zones.errors import HandsLostError
from ringfence_zones.kerberos import KerberosKeytab

_AGENTS = {
    "PATH": "/bin",
    "HADOOP_USER_NAME": "hdfs",
    "HADOOP_PROXY_USER": "hdfs",
    "HADOOP_TOKEN_FILE_LOCATION": "/run/tokens",
    "KRB5CCNAME": "FILE:/tmp/krb5cc_0",
    "KRB5_CLIENT_KTNAME": "/etc/hdfs.keytab",
}


def test_nothing_of_the_agents_identity_reaches_the_process_that_copies() -> None:
    simple = hands_environment(_AGENTS, Path("/conf"), "masker", None)
    assert simple == {"PATH": "/bin", "HADOOP_USER_NAME": "masker", "HADOOP_CONF_DIR": "/conf"}
    keytab = KerberosKeytab.model_validate({"principal": "m@X", "keytab": "/k"})
    secure = hands_environment(_AGENTS, Path("/conf"), "masker", keytab)
    assert secure == {"PATH": "/bin", "KRB5CCNAME": "MEMORY:ringfence-transfer", "HADOOP_CONF_DIR": "/conf"}


@pytest.fixture
def deaf(tmp_path: Path) -> object:
    """A NameNode that takes connections and never answers."""
    with socket.create_server(("localhost", 0)) as listening:
        port = listening.getsockname()[1]
        for name in ("core-site.xml", "hdfs-site.xml"):
            (tmp_path / name).write_text("<configuration/>")
        yield f"hdfs://localhost:{port}"


def test_an_act_that_stands_still_has_its_process_killed(deaf: str, tmp_path: Path) -> None:
    hands = HandsProcess(deaf, "masker", tmp_path, stall_s=6.0)
    with pytest.raises(HandsLostError, match="stood still for 6 s"):
        hands.list_tree("/a", 10)
    with pytest.raises(ProcessLookupError):
        os.kill(hands.pid, 0)
    with pytest.raises(HandsLostError):
        hands.delete("/a")


def test_a_file_in_the_directory_that_the_agent_was_started_in_is_not_run(
    deaf: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An administrator starts the agent in a directory where others may write: theirs must not become its modules.
    seen = tmp_path / "seen"
    (tmp_path / "hashlib.py").write_text(f"open({str(seen)!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    hands = HandsProcess(deaf, "masker", tmp_path, stall_s=6.0)
    with pytest.raises(HandsLostError, match="stood still"):
        hands.list_tree("/a", 10)
    assert not seen.exists()


def test_an_act_whose_process_is_killed_fails_at_once(deaf: str, tmp_path: Path) -> None:
    hands = HandsProcess(deaf, "masker", tmp_path, stall_s=120.0)
    os.kill(hands.pid, signal.SIGKILL)
    with pytest.raises(HandsLostError):
        hands.list_tree("/a", 10)
    hands.close()
    hands.close()


def test_it_never_outlives_the_agent(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "ringfence_agent.transfer.hands_main", "hdfs://localhost:1", "masker"]
    environ = {**os.environ, "HADOOP_CONF_DIR": str(tmp_path)}
    process = subprocess.Popen(argv, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    assert b'"user":"masker"' in process.stdout.readline()
    process.stdin.write(b'{"id":1,"method":"list_tree","arguments":["/a",10]}\n')
    process.stdin.flush()
    process.stdin.close()  # as when the agent is killed
    assert process.wait(60) == 0
    process.stdout.close()
