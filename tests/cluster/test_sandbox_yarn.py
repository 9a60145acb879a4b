"""`ringfence sandbox up --yarn`: real jobs in real containers, in a zone, as the user who submitted them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from cluster_commands import Cluster, Finished
from sandboxes import new_sandbox, run_ringfence, start_stopped

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1800)]

_ZONE = "/jobs/pii"
_POLICY = f"""
version: 1
cluster: jobs-test
zones:
  - {{path: {_ZONE}, owner: etl}}
kms: {{namenode_users: [hdfs], admins: [hdfs]}}
"""
_LINES = 2000
_JOB_TIMEOUT_S = 600


class Jobs:
    """A sandbox with YARN, a zone of etl's and a file in it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def run(self, program: str, *arguments: str, expect: int = 0) -> Finished:
        """A command that submits a job as etl and waits for it."""
        return self.cluster.run(program, *arguments, user="etl", expect=expect, timeout_s=_JOB_TIMEOUT_S)

    def count_lines(self) -> None:
        """A streaming job with one reducer, from the file in the zone into the zone."""
        name = ["-D", "mapreduce.job.name=count", "-D", "mapreduce.job.reduces=1"]
        paths = ["-input", f"{_ZONE}/words.txt", "-output", f"{_ZONE}/out"]
        self.run("mapred", "streaming", *name, *paths, "-mapper", "cat", "-reducer", "wc -l")

    def said_in_containers(self, words: str) -> bool:
        """Whether a container's log has these words."""
        logs = (self.cluster.directory / "yarn/logs").glob("*/*/syslog")
        return any(words in log.read_text(errors="replace") for log in logs)

    def finished(self) -> dict[str, str]:
        """State of every application by its name, from the ResourceManager."""
        url = f"http://localhost:{self.cluster.ports['resourcemanager_http']}/ws/v1/cluster/apps"
        apps = (requests.get(url, headers={"Accept": "application/json"}, timeout=30).json()["apps"] or {})["app"]
        return {f"{app['user']} {app['name']}": app["finalStatus"] for app in apps}


@contextmanager
def jobs_in(directory: Path, *options: str) -> Iterator[Jobs]:
    """A new sandbox for jobs, with a file in its zone; `directory` is for the test's own files."""
    with new_sandbox("--yarn", *options) as described:
        cluster = Cluster(described)
        (directory / "zones.yaml").write_text(_POLICY)
        applied = run_ringfence(
            ["apply", "-f", directory / "zones.yaml"], cluster.environ("hdfs"), timeout_s=_JOB_TIMEOUT_S
        )
        assert applied.returncode == 0, applied.stderr
        words = directory / "words.txt"
        words.write_text("".join(f"line {number}\n" for number in range(_LINES)))
        cluster.run("hdfs", "dfs", "-put", str(words), f"{_ZONE}/words.txt", user="etl")
        yield Jobs(cluster)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with jobs_in(tmp_path_factory.mktemp("jobs")) as made:
        yield made


def test_yarn_s_daemons_are_shown_and_a_node_is_there(jobs: Jobs) -> None:
    shown = run_ringfence(["sandbox", "status", "--json", "--dir", jobs.cluster.directory])
    assert shown.returncode == 0, shown.stderr
    described = json.loads(shown.stdout)
    assert list(described["pids"]) == ["kms", "namenode", "datanode", "resourcemanager", "nodemanager", "historyserver"]
    listed = jobs.cluster.run("yarn", "node", "-list").output
    assert f"localhost:{jobs.cluster.ports['nodemanager']}" in listed


def test_a_streaming_job_reads_and_writes_in_the_zone(jobs: Jobs) -> None:
    jobs.count_lines()
    assert jobs.finished()["etl count"] == "SUCCEEDED"
    counted = jobs.cluster.run("hdfs", "dfs", "-cat", f"{_ZONE}/out/part-00000", user="etl").stdout
    assert counted.split() == [str(_LINES).encode()]
    # Written by a container, and sealed like everything in the zone.
    assert str(_LINES).encode() not in jobs.cluster.read_raw(f"{_ZONE}/out/part-00000")


def test_distcp_copies_within_the_zone_and_its_own_comparison_fails_on_ciphertext(jobs: Jobs) -> None:
    quick = ["-D", "mapreduce.map.maxattempts=1", "-D", "mapreduce.job.name=copy"]
    source = f"{_ZONE}/words.txt"
    failed = jobs.run("hadoop", "distcp", *quick, source, f"{_ZONE}/compared.txt", expect=25).output
    assert "DistCp failure: Job" in failed
    assert jobs.said_in_containers("Checksum mismatch")
    assert jobs.cluster.ask_webhdfs("GET", "GETFILESTATUS", f"{_ZONE}/compared.txt").status_code == 404
    jobs.run("hadoop", "distcp", *quick, "-update", "-skipcrccheck", source, f"{_ZONE}/copied.txt")
    assert jobs.cluster.status_of(f"{_ZONE}/copied.txt")["length"] == jobs.cluster.status_of(source)["length"]


def test_a_stopped_yarn_comes_back_on_its_ports(jobs: Jobs) -> None:
    down = run_ringfence(["sandbox", "down", "--dir", jobs.cluster.directory], timeout_s=_JOB_TIMEOUT_S)
    assert down.returncode == 0, down.stderr
    again = start_stopped(Path(jobs.cluster.directory))
    assert again["ports"] == jobs.cluster.ports
    assert all(again["pids"].values())


def test_a_job_runs_on_two_namenodes_with_the_kms_over_tls(tmp_path: Path) -> None:
    with jobs_in(tmp_path, "--ha", "--tls") as jobs:
        jobs.count_lines()
        assert jobs.finished()["etl count"] == "SUCCEEDED"
