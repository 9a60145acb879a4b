"""`ringfence emr step zones` on the real sandbox: what it waits for, what it refuses, and that it may be killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zones_step_until
from cluster_commands import Cluster
from sandboxes import RINGFENCE, run_ringfence
from secure_clusters import SecureCluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

POLICY = """\
version: 1
cluster: {name}
zones:
  - {{path: /{name}/pii, owner: etl, mode: "0750", writers: [etl]}}
  - {{path: /{name}/masked, owner: masker, readers: ["*"], writers: [masker]}}
kms: {{namenode_users: [hdfs], admins: [hdfs]}}
"""
# Two keys, a revision, and four steps for each zone.
MIDDLE = "after create_zone:/{name}/masked"
_REACH_TIMEOUT_S = 120


class Bench:
    """One cluster and a policy for each test."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        self.uri = cluster.environment["RINGFENCE_KMS_URI"]

    def policy(self, name: str) -> Path:
        path = self.directory / f"{name}.yaml"
        path.write_text(POLICY.format(name=name))
        return path

    def step(self, name: str, *options: str, conf: Path | None = None) -> tuple[int, dict[str, Any], str]:
        """The real command: exit code, status object, standard error."""
        arguments = ["emr", "step", "zones", "--json", "--policy", self.policy(name), *options]
        environ = self.cluster.environ("hdfs")
        if conf is not None:
            environ["HADOOP_CONF_DIR"] = str(conf)
        finished = run_ringfence(arguments, environ)
        return finished.returncode, json.loads(finished.stdout), finished.stderr

    def zones(self, name: str) -> list[str]:
        """As Hadoop's own command lists them."""
        listed = self.cluster.run("hdfs", "crypto", "-listZones").stdout.decode()
        return sorted(line.split()[0] for line in listed.splitlines() if line.startswith(f"/{name}/"))


@pytest.fixture(scope="module")
def bench(ringfence_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(ringfence_cluster, tmp_path_factory.mktemp("steps"))


def test_zones_are_made_and_a_second_run_has_nothing_to_do(bench: Bench) -> None:
    code, status, told = bench.step("stepnew", "--kms", bench.uri, "--wait", "60s")
    assert (code, status["state"]) == (0, "applied"), told
    assert bench.zones("stepnew") == ["/stepnew/masked", "/stepnew/pii"]
    assert status["kms"] == {"expected": bench.uri, "found": bench.uri}
    assert status["policy"]["zones"] == 2
    assert status["apply"]["failed"] == []
    assert "its log is in " in told
    code, status, told = bench.step("stepnew", "--kms", "ringfence", "--wait", "60s")
    assert (code, status["state"], status["apply"]["done"]) == (0, "unchanged", []), told


@pytest.mark.long
def test_another_key_provider_than_the_expected_is_refused_and_nothing_is_made(bench: Bench) -> None:
    other = "kms://http@localhost:1/kms"
    code, status, told = bench.step("stepother", "--kms", other, "--wait", "4s")
    assert (code, status["state"]) == (1, "refused"), told
    assert status["error"]["rule"] == "node_provider"
    assert bench.uri in status["error"]["message"]
    assert bench.zones("stepother") == []
    assert "stepother" not in bench.cluster.run("hadoop", "key", "list").stdout.decode()


def test_what_the_namenode_itself_names_counts_and_not_a_file_of_this_machine(bench: Bench) -> None:
    conf = bench.directory / "conf"
    shutil.copytree(bench.cluster.hadoop_conf, conf)
    site = conf / "core-site.xml"
    other = "kms://http@localhost:1/kms"
    assert bench.uri in site.read_text()
    site.write_text(site.read_text().replace(bench.uri, other))
    code, status, told = bench.step("stepfile", "--kms", other, "--wait", "1s", conf=conf)
    assert (code, status["state"]) == (1, "refused"), told
    assert bench.zones("stepfile") == []


@pytest.mark.long
def test_plain_http_is_refused_when_https_is_expected(bench: Bench) -> None:
    code, status, told = bench.step("stepplain", "--kms", "ringfence", "--tls", "--wait", "1s")
    assert (code, status["state"]) == (1, "refused"), told
    assert "plain http" in status["error"]["message"]
    assert bench.zones("stepplain") == []


@pytest.mark.long
def test_a_stock_kms_is_not_ringfences(stock_cluster: Cluster, tmp_path: Path) -> None:
    bench = Bench(stock_cluster, tmp_path)
    code, status, told = bench.step("stepstock", "--kms", "ringfence", "--wait", "1s")
    assert (code, status["state"]) == (1, "refused"), told
    assert "not Ringfence's" in status["error"]["message"]
    assert bench.zones("stepstock") == []


@pytest.mark.long
def test_a_namenode_in_safe_mode_is_waited_for(bench: Bench) -> None:
    run = bench.cluster.run
    run("hdfs", "dfsadmin", "-safemode", "enter")
    try:
        code, status, told = bench.step("stepsafe", "--kms", bench.uri, "--wait", "1s")
        assert (code, status["state"]) == (1, "failed"), told
        assert "safe mode" in status["error"]["message"]
        waiting = subprocess.Popen(
            [RINGFENCE, "emr", "step", "zones", "--policy", bench.policy("stepsafe"), "--kms", bench.uri],
            env=bench.cluster.environ("hdfs"),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None
        # It says what it waits for before it waits.
        assert any("safe mode" in line for line in iter(waiting.stderr.readline, ""))
    finally:
        run("hdfs", "dfsadmin", "-safemode", "leave")
    output, errors = waiting.communicate(timeout=_REACH_TIMEOUT_S)
    assert waiting.returncode == 0, errors
    assert "2 zones created" in output
    assert bench.zones("stepsafe") == ["/stepsafe/masked", "/stepsafe/pii"]


@pytest.mark.long
def test_a_namenode_that_does_not_answer_is_a_failure_that_names_it(bench: Bench) -> None:
    conf = bench.directory / "nobody"
    shutil.copytree(bench.cluster.hadoop_conf, conf)
    site = conf / "core-site.xml"
    port = str(bench.cluster.ports["namenode"])
    site.write_text(site.read_text().replace(f"localhost:{port}", "localhost:1"))
    code, status, told = bench.step("stepdown", "--kms", bench.uri, "--wait", "1s", conf=conf)
    assert (code, status["state"]) == (1, "failed"), told
    assert "localhost:1" in status["error"]["message"]


@pytest.mark.long
def test_a_step_killed_in_the_middle_is_finished_by_the_next(bench: Bench) -> None:
    boundary = MIDDLE.format(name="stepkill")
    victim = subprocess.Popen(
        [
            sys.executable,
            zones_step_until.__file__,
            bench.cluster.hadoop_conf,
            bench.policy("stepkill"),
            bench.uri,
            boundary,
        ],
        env=bench.cluster.environ("hdfs"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert victim.stdout is not None
        assert victim.stdout.readline().strip() == boundary
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.communicate(timeout=_REACH_TIMEOUT_S)
    code, status, told = bench.step("stepkill", "--kms", bench.uri)
    assert (code, status["state"]) == (0, "applied"), told
    assert bench.zones("stepkill") == ["/stepkill/masked", "/stepkill/pii"]
    assert bench.step("stepkill", "--kms", bench.uri)[1]["state"] == "unchanged"


@pytest.mark.long
def test_a_policy_that_stands_in_its_own_way_is_refused_with_its_problems(bench: Bench) -> None:
    bench.cluster.run("hdfs", "dfs", "-mkdir", "-p", "/stepfull/pii/there")
    code, status, told = bench.step("stepfull", "--kms", bench.uri)
    assert (code, status["state"]) == (1, "refused"), told
    assert [problem["rule"] for problem in status["apply"]["problems"]] == ["directory_not_empty"]
    assert bench.zones("stepfull") == []


@pytest.mark.long
def test_with_kerberos_and_tls_a_keytab_does_and_no_ticket_does_not(
    secure_cluster: SecureCluster, tmp_path: Path
) -> None:
    policy = tmp_path / "zones.yaml"
    policy.write_text(POLICY.format(name="stepsecure"))
    uri = secure_cluster.environment["RINGFENCE_KMS_URI"]
    arguments = ["emr", "step", "zones", "--json", "--policy", policy, "--kms", uri, "--tls", "--wait", "60s"]
    finished = run_ringfence(arguments, secure_cluster.environ_of_keytab("hdfs"))
    status = json.loads(finished.stdout)
    assert (finished.returncode, status["state"]) == (0, "applied"), finished.stderr
    assert status["kms"]["found"].startswith("kms://https@")
    nobody = run_ringfence(arguments, secure_cluster.environ_without_ticket())
    assert nobody.returncode == 1
    assert json.loads(nobody.stdout)["state"] == "failed"
