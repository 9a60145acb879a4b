"""`apply` killed with SIGKILL at every boundary of its plan is finished by running it again.

The boundaries come from the plan itself; a boundary that is not reached fails the test. The killer is this process,
the victim the command's own code in another. Each boundary has paths and keys of its own, and what is left in the
end is compared with an uninterrupted run.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apply_until
import pytest
from cluster_commands import Cluster
from sandboxes import run_ringfence

from ringfence_zones.hdfs_child import HdfsChild
from ringfence_zones.kms_client import KmsClient
from ringfence_zones.model import ClusterState
from ringfence_zones.observe import observe_cluster
from ringfence_zones.plan import Plan, make_plan
from ringfence_zones.policy import load_policy, policy_digest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

POLICY = """\
version: 1
cluster: {name}
zones:
  - path: /{name}/pii
    owner: etl
    group: pii
    mode: "0750"
    readers: [analyst, "@pii-readers"]
    writers: [etl]
  - path: /{name}/pii/masked
    nested: true
    length_bits: 128
    owner: masker
    mode: "0700"
    readers: ["*"]
kms: {{namenode_users: [hdfs], admins: [hdfs]}}
"""
# Two keys, one revision, and four steps for each zone.
ACTIONS = 11
_REACH_TIMEOUT_S = 120


class Bench:
    """One cluster, and as many policies as there are boundaries."""

    def __init__(self, cluster: Cluster, gateway: HdfsChild, directory: Path) -> None:
        self.cluster = cluster
        self._gateway = gateway
        self._kms = KmsClient(cluster.environment["RINGFENCE_KMS_URI"], "hdfs")
        self._directory = directory

    def policy_file(self, name: str) -> Path:
        path = self._directory / f"{name}.yaml"
        path.write_text(POLICY.format(name=name))
        return path

    def observe(self, name: str) -> ClusterState:
        return observe_cluster(self._gateway, self._kms, load_policy(self.policy_file(name)))

    def plan(self, name: str) -> Plan:
        return make_plan(load_policy(self.policy_file(name)), self.observe(name))

    def apply(self, name: str) -> subprocess.CompletedProcess[str]:
        """The real command."""
        return run_ringfence(["apply", "-f", self.policy_file(name)], self.cluster.environ("hdfs"))

    def kill_at(self, name: str, boundary: str) -> None:
        """Starts an apply and kills it at the boundary; fails the test when the boundary is not reached."""
        victim = subprocess.Popen(
            [sys.executable, apply_until.__file__, self.cluster.hadoop_conf, self.policy_file(name), boundary],
            env=self.cluster.environ("hdfs"),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert victim.stdout is not None
            assert victim.stdout.readline().strip() == boundary, f"the run never came to '{boundary}'"
            assert victim.poll() is None
        finally:
            victim.kill()
            victim.communicate(timeout=_REACH_TIMEOUT_S)

    def outcome(self, name: str) -> Any:
        """Everything apply makes, with the name of the policy taken out.

        Not the number of versions: a key that a killed run left without its zone is rolled by the next.
        """
        state = self.observe(name)
        assert state.kms is not None
        policy = load_policy(self.policy_file(name))
        return {
            "zones": [
                (zone.path.replace(name, "NAME"), zone.key_name.replace(name, "NAME"))
                for zone in state.zones
                if policy.find_zone(zone.path)
            ],
            "keys": {
                zone.key.replace(name, "NAME"): (
                    found.length_bits,
                    found.cipher,
                    found.attributes.get("ringfence.custody"),
                )
                for zone in policy.zones
                if (found := state.kms.keys.get(zone.key))
            },
            "directories": {
                path.replace(name, "NAME"): (
                    found.owner,
                    found.group,
                    found.mode,
                    found.group_bits,
                    found.acl,
                    found.trash_mode,
                )
                for path, found in state.directories.items()
                if policy.find_zone(path)
            },
            "published": state.kms.revision_digest == policy_digest(policy),
        }


@pytest.fixture(scope="module")
def bench(ringfence_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    gateway = HdfsChild(ringfence_cluster.hadoop_conf, environ=ringfence_cluster.environ("hdfs"))
    yield Bench(ringfence_cluster, gateway, tmp_path_factory.mktemp("policies"))
    gateway.close()


@pytest.fixture(scope="module")
def uninterrupted(bench: Bench) -> Any:
    finished = bench.apply("crashnone")
    assert finished.returncode == 0, finished.stderr
    outcome = bench.outcome("crashnone")
    assert outcome["published"]
    assert len(outcome["zones"]) == len(outcome["keys"]) == len(outcome["directories"]) == 2
    return outcome


def boundaries_of(plan: Plan) -> list[str]:
    """Before the first step and after each: "before" any other one is the same point as "after" its predecessor."""
    return [f"before {plan.actions[0].id}", *(f"after {action.id}" for action in plan.actions)]


@pytest.mark.parametrize("number", range(ACTIONS + 1))
def test_a_run_killed_at_a_boundary_is_finished_by_the_next(bench: Bench, uninterrupted: Any, number: int) -> None:
    name = f"crash{number}"
    boundaries = boundaries_of(bench.plan(name))
    assert len(boundaries) == ACTIONS + 1, "the plan has other steps than this test goes through"
    bench.kill_at(name, boundaries[number])
    finished = bench.apply(name)
    assert finished.returncode == 0, finished.stderr
    assert bench.outcome(name) == uninterrupted
    assert bench.plan(name).is_empty


def test_a_step_killed_halfway_is_finished_by_the_next_run(bench: Bench, uninterrupted: Any) -> None:
    """The states between the calls of one step, made with Hadoop's own commands."""
    name = "crashhalf"
    run = bench.cluster.run
    run("hadoop", "key", "create", f"{name}-{name}-pii", "-size", "256", "-attr", "ringfence.custody=envelope")
    run("hdfs", "dfs", "-mkdir", "-p", f"/{name}/pii")
    run("hdfs", "dfs", "-chmod", "700", f"/{name}/pii")
    run("hdfs", "crypto", "-createZone", "-keyName", f"{name}-{name}-pii", "-path", f"/{name}/pii")
    run("hdfs", "dfs", "-chmod", "777", f"/{name}/pii/.Trash")  # made, its sticky bit not yet set
    run("hdfs", "dfs", "-chown", "etl", f"/{name}/pii")  # given away, its rights not yet set
    finished = bench.apply(name)
    assert finished.returncode == 0, finished.stderr
    assert bench.outcome(name) == uninterrupted
