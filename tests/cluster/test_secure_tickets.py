"""Past the life of a ticket: everything that stays must renew itself, everything that does not must be refused.

Tickets of this cluster end after two minutes, those of its daemons included. What happens before is done once by the
fixture, which then waits until every ticket of that time is over, the clock skew too.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster_commands import wait_until
from sandboxes import RINGFENCE
from secure_clusters import SecureCluster

from ringfence_bootstrap.sandbox.kdc import DEFAULT_CLOCK_SKEW_S
from ringfence_zones.agent_client import AgentClient

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(600)]

LIFETIME_S = 120
RENEW_S = 40
PLAIN = "written when every ticket was young"
POLICY = """\
version: 1
cluster: tickets
kms: {{namenode_users: [hdfs], admins: [hdfs]}}
agent: {{mode: enforce, pin: apply}}
zones:
{zones}
"""
ZONE = '  - {{path: {path}, owner: etl, group: pii, mode: "0750", readers: [analyst], writers: [etl]}}\n'


@dataclass(frozen=True)
class Aged:
    """A cluster past one lifetime, and what was got before it."""

    cluster: SecureCluster
    old_ticket: dict[str, str]
    tokens: Path
    policy: Path
    cached_agent: AgentClient


def write_policy(path: Path, *zones: str) -> Path:
    path.write_text(POLICY.format(zones="".join(ZONE.format(path=zone) for zone in zones)))
    return path


@pytest.fixture(scope="module")
def aged(brief_cluster: SecureCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aged]:
    cluster, scratch = brief_cluster, tmp_path_factory.mktemp("tickets")
    policy = write_policy(scratch / "zones.yaml", "/old")
    cluster.ringfence("apply", "-f", policy, environ=cluster.environ("hdfs"))
    (scratch / "f").write_text(PLAIN)
    cluster.run("hdfs", "dfs", "-put", str(scratch / "f"), "/old/f", user="etl")
    tokens = scratch / "tokens"
    assert "result" in cluster.job("fetch", tokens, cluster.keytabs["etl"], "etl", "hdfs")
    began_s = time.monotonic()
    old_ticket = cluster.kinit("hdfs")
    with agent_of_ticket_cache(cluster) as (socket, renew):
        while time.monotonic() - began_s < LIFETIME_S + DEFAULT_CLOCK_SKEW_S + 5:
            renew()
            time.sleep(RENEW_S)  # What is waited for is time itself.
        yield Aged(cluster, old_ticket, tokens, policy, AgentClient(socket))


@contextmanager
def agent_of_ticket_cache(cluster: SecureCluster) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A second agent, without a keytab: it lives on a cache that somebody else (cron, k5start) renews.

    Gives its socket, and what renews the cache.
    """
    directory = cluster.directory / "agent-2"
    directory.mkdir(mode=0o700)
    socket, cache, config = directory / "a.sock", directory / "tickets", directory / "agent.yaml"
    config.write_text(
        f"hadoop_conf: {cluster.hadoop_conf}\nnamenode_conf_dir: {cluster.hadoop_conf}\n"
        f"socket: {socket}\nstate_dir: {directory}\ninterval: 1s\n"
    )

    def renew() -> None:
        cluster.realm.kinit("hdfs", cluster.keytabs["hdfs"], cache)

    renew()
    environ = {**cluster.environ_without_ticket(), "KRB5CCNAME": f"FILE:{cache}"}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([RINGFENCE, "agent", "serve", f"--config={config}"], env=environ, stderr=log)
    try:
        yield socket, renew
    finally:
        process.terminate()
        process.wait(30)


def test_an_expired_ticket_is_refused_with_the_way_to_a_new_one(aged: Aged) -> None:
    environ = {**aged.cluster.environ_without_ticket(), **aged.old_ticket}
    refused = aged.cluster.run_as(environ, "hdfs", "dfs", "-ls", "/old", expect=1)
    assert "Client cannot authenticate via:[TOKEN, KERBEROS]" in refused.output
    said = aged.cluster.ringfence("zone", "list", "--agent-socket", "/nonexistent", environ=environ, expect=1)
    assert "there is no valid ticket here" in said
    assert "run:  kinit" in said


def test_daemons_serve_on_after_their_own_tickets_have_ended(aged: Aged) -> None:
    environ = {**aged.cluster.environ_without_ticket(), **aged.cluster.kinit("etl")}
    assert aged.cluster.run_as(environ, "hdfs", "dfs", "-cat", "/old/f").stdout.decode() == PLAIN
    aged.cluster.run_as(environ, "hdfs", "dfs", "-cp", "/old/f", "/old/g")


def test_tokens_outlive_the_ticket_that_they_were_got_with(aged: Aged) -> None:
    assert aged.cluster.job("read", "/old/f", token_file=aged.tokens) == {"result": PLAIN}
    renewed = aged.cluster.job("renew", aged.tokens, aged.cluster.keytabs["hdfs"], "hdfs")
    assert set(renewed["result"]) == {"HDFS_DELEGATION_TOKEN", "kms-dt"}


def test_both_agents_see_what_is_made_now_and_the_enforcing_one_pins_it(aged: Aged) -> None:
    cluster = aged.cluster
    environ = {**cluster.environ_of_keytab("hdfs")}
    write_policy(aged.policy, "/old", "/new")
    cluster.ringfence("apply", "-f", aged.policy, environ=environ)
    agents = (AgentClient(Path(cluster.environment["RINGFENCE_AGENT_SOCKET"])), aged.cached_agent)
    for agent in agents:
        wait_until(lambda agent=agent: {"/old", "/new"} <= seen_by(agent), timeout_s=30)
    wait_until(lambda: "/new" in cluster.live_value("namenode_http", "fs.protected.directories"), timeout_s=30)


def test_every_command_works_from_a_keytab(aged: Aged) -> None:
    cluster, environ = aged.cluster, aged.cluster.environ_of_keytab("hdfs")
    without_agent = ("--agent-socket", "/nonexistent")
    plan = json.loads(cluster.ringfence("--json", "plan", "-f", aged.policy, environ=environ))
    assert plan["problems"] == []
    status = json.loads(cluster.ringfence("--json", *without_agent, "status", environ=environ))
    assert "/old" in {zone["path"] for zone in status["zones"]}
    assert status["kms"]["ringfence"] is not None
    listed = json.loads(cluster.ringfence("--json", *without_agent, "zone", "list", environ=environ))
    assert "/old" in {zone["path"] for zone in listed["zones"]}
    cluster.ringfence("zone", "show", "/old", environ=environ)
    cluster.ringfence("zone", "of", "/old/f", environ=environ)
    cluster.ringfence("mv", "/old/f", "/old/h", environ=cluster.environ_of_keytab("etl"))
    cluster.ringfence("mv", "/old/h", "/old/f", environ=cluster.environ_of_keytab("etl"))
    refused = cluster.ringfence("mv", "/old/f", "/tmp/f", environ=cluster.environ_of_keytab("etl"), expect=1)
    assert "zone" in refused


def seen_by(agent: AgentClient) -> set[str]:
    return {zone["path"] for zone in agent.list_zones()}
