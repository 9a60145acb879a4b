"""Step jobs on a real cluster: the shell and the Python example ask a running agent, on the node and from elsewhere.

One sandbox and one agent serve the module. The agent listens on its Unix socket and on TLS; whoever runs the tests is
an administrator there, and the jobs are etl's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Certificates
from cluster_commands import Cluster, wait_until
from sandboxes import RINGFENCE, new_sandbox, run_ringfence

import ringfence_agent.client as client_module
from ringfence_agent.client import AgentClient, AgentError

# Each step starts several JVMs; together with a sandbox that is long where the machine is busy.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

EXAMPLES = Path(__file__).parents[2] / "agent/examples"
_POLICY = """
version: 1
cluster: steps
zones:
  - {path: /steps/pii, owner: etl}
  - {path: /steps/masked, owner: etl}
flows: []
kms: {namenode_users: [hdfs], admins: [hdfs]}
agent: {mode: observe, pin: off}
"""
_ANSWERS_S = 120.0
_STEP_S = 600


class Steps:
    """A cluster with two zones and an agent that answers about them."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        self.socket = directory / "agent.sock"
        self.url = ""

    @property
    def admin(self) -> AgentClient:
        return AgentClient(str(self.socket), timeout_s=60)

    def run(self, *argv: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
        """A step, as etl."""
        known = self.cluster.environ("etl") | {"RINGFENCE_AGENT_SOCKET": str(self.socket)} | environ
        programs = (self.cluster.directory / "hadoop" / "bin", RINGFENCE.parent)
        path = os.pathsep.join((*map(str, programs), known["PATH"]))
        return subprocess.run(
            [str(word) for word in argv],
            env={**known, "PATH": path},
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=_STEP_S,
            check=False,
        )

    def text(self, path: str) -> str:
        return self.cluster.run("hdfs", "dfs", "-cat", path, user="etl").output

    def names(self, path: str) -> list[str]:
        listed = self.cluster.run("hdfs", "dfs", "-ls", "-C", path, user="etl").output
        return sorted(line.rpartition("/")[2] for line in listed.split() if line.startswith("/"))


@pytest.fixture(scope="module")
def steps(certificates: Certificates) -> Iterator[Steps]:
    with (
        new_sandbox("--kms", "ringfence") as described,
        tempfile.TemporaryDirectory(prefix="rfs-") as place,
    ):
        world = Steps(Cluster(described), Path(place))
        document = world.directory / "zones.yaml"
        document.write_text(_POLICY)
        applied = run_ringfence(["apply", "-f", document], world.cluster.environ("hdfs"))
        assert applied.returncode == 0, applied.stderr
        config = world.directory / "agent.yaml"
        config.write_text(
            f"hadoop_conf: {world.cluster.hadoop_conf}\nsocket: {world.socket}\nstate_dir: {place}/state\n"
            f"interval: 500ms\ncall_timeout: 60s\nstale_after: {_ANSWERS_S:.0f}s\nlisten: localhost:0\n"
            f"tls: {{cert: {certificates.server.certificate}, key: {certificates.server.key}}}\n"
        )
        argv = [RINGFENCE, "agent", "serve", "--config", config]
        with (
            (world.directory / "agent.log").open("ab") as log,
            subprocess.Popen(
                argv, env=world.cluster.environ("hdfs"), stdout=subprocess.PIPE, stderr=log, text=True
            ) as process,
        ):
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == f"ready unix:{world.socket}\n"
                world.url = process.stdout.readline().removeprefix("ready ").strip()
                wait_until(lambda: world.admin.health()["ready"] is True, timeout_s=_ANSWERS_S)
                yield world
                process.terminate()
                process.wait(30)
            finally:
                if process.poll() is None:
                    process.kill()


def _put(steps: Steps, path: str, text: str) -> None:
    local = steps.directory / "local"
    local.write_text(text)
    steps.cluster.run("hdfs", "dfs", "-mkdir", "-p", path.rpartition("/")[0], user="etl")
    steps.cluster.run("hdfs", "dfs", "-put", "-f", str(local), path, user="etl")


def test_the_shell_step_stages_in_the_zone_and_renames(steps: Steps) -> None:
    _put(steps, "/steps/pii/raw/a", "two\none\n")
    _put(steps, "/steps/pii/raw/b", "one\n")
    done = steps.run(EXAMPLES / "shell_step.sh", "/steps/pii/raw", "/steps/pii/raw.sorted")
    assert done.returncode == 0, done.stderr
    assert steps.text("/steps/pii/raw.sorted") == "one\ntwo\n"
    assert [name for name in steps.names("/steps/pii") if "staging" in name] == []


def test_the_python_step_renames_inside_a_zone_and_is_refused_between_two(steps: Steps) -> None:
    _put(steps, "/steps/pii/p/part-0", "x\n")
    moved = steps.run(sys.executable, EXAMPLES / "python_step.py", "/steps/pii/p/part-0", "/steps/pii/p/part-1")
    assert moved.returncode == 0, moved.stderr
    refused = steps.run(sys.executable, EXAMPLES / "python_step.py", "/steps/pii/p/part-1", "/steps/masked/part-1")
    assert refused.returncode == 1
    assert "refused (zone_to_zone)" in refused.stderr
    assert steps.names("/steps/pii/p") == ["part-1"]
    # And HDFS itself agrees with both answers.
    really = steps.cluster.run(
        "hdfs", "dfs", "-mv", "/steps/pii/p/part-1", "/steps/masked/part-1", user="etl", expect=1
    )
    assert "can't be moved" in really.output


def test_a_step_on_another_node_asks_with_one_file_and_a_token(steps: Steps, certificates: Certificates) -> None:
    _put(steps, "/steps/pii/far/part-0", "x\n")
    away = steps.directory / "container"
    away.mkdir()
    shutil.copy(EXAMPLES / "python_step.py", away)
    shutil.copy(client_module.__file__, away / "ringfence_client.py")  # as the release has it
    token = away / "agent.token"
    issue = ("agent", "token", "issue", "--user", "etl", "--for", "10m", "--out", str(token))
    issued = steps.run(RINGFENCE, *issue, "--path", "/steps/pii/far")
    assert issued.returncode == 0, issued.stderr
    environ = {
        "RINGFENCE_AGENT_SOCKET": "",
        "RINGFENCE_AGENT_URL": steps.url,
        "RINGFENCE_AGENT_TOKEN_FILE": str(token),
        "RINGFENCE_AGENT_CA_FILE": str(certificates.trusted),
    }
    python = next(path for path in ("/usr/bin/python3", sys.executable) if Path(path).exists())
    step = (python, "-E", away / "python_step.py")
    moved = steps.run(*step, "/steps/pii/far/part-0", "/steps/pii/far/part-1", **environ)
    assert moved.returncode == 0, moved.stderr
    outside = steps.run(*step, "/steps/pii/far/part-1", "/steps/pii/part-1", **environ)
    assert outside.returncode == 2
    assert "not good for /steps/pii/part-1" in outside.stderr
    steps.admin.revoke_token(steps.admin.tokens()[0].name)
    ended = steps.run(*step, "/steps/pii/far/part-1", "/steps/pii/far/part-2", **environ)
    assert ended.returncode == 2
    assert steps.names("/steps/pii/far") == ["part-1"]


def test_the_published_policy_is_the_one_that_is_told_and_tested(steps: Steps) -> None:
    policy = steps.admin.policy()
    assert policy is not None
    assert policy["cluster"] == "steps"
    cases = """
version: 1
cases:
  - {user: etl, from: /steps/pii/f, to: /steps/masked/f, expect: {rename: false, transfer: false}}
  - {user: etl, from: /steps/pii/f, to: /steps/pii/g, expect: {rename: false}}
"""
    (finding,) = steps.admin.test_policy(cases)
    assert "rename" in finding.message


def test_places_hold_what_a_job_of_that_zone_writes(steps: Steps) -> None:
    staging = steps.admin.places("/steps/masked/t", job="j").staging
    steps.cluster.run("hdfs", "dfs", "-mkdir", "-p", staging, user="etl")
    _put(steps, f"{staging}/part-0", "x\n")
    steps.cluster.run("hdfs", "dfs", "-mv", f"{staging}/part-0", "/steps/masked/t", user="etl")
    with pytest.raises(AgentError, match="nothing is written there"):
        steps.admin.places("/.reserved/raw/steps/masked/t")
