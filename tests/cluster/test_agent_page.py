"""The page of a real agent on a real HDFS, in a real browser: real zones, real findings, live.

Zones are made by Hadoop's own shell, hostile names among them: whoever may make a directory chooses what the page has
to show.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from agent_page import open_door
from browser import Browser
from cluster_commands import Cluster, wait_until
from prometheus_client.parser import text_string_to_metric_families
from sandboxes import RINGFENCE, new_sandbox, run_ringfence

from ringfence_agent.client import AgentClient
from ringfence_zones.unix_http import UnixHTTPConnection

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

PLAIN, MASKED = "/page/pii", "/page/masked"
HOSTILE = {
    "script": "/page/<script>alert(1)<",
    "attribute": "/page/\"'><img src=x onerror=alert(2)>",
    "right_to_left": "/page/a\u202efdp.exe",
    "long": "/page/" + "/".join(["y" * 250] * 16),
}
_POLICY = f"""
version: 1
cluster: page-test
zones:
  - {{path: {PLAIN}, owner: etl, readers: [masker]}}
  - {{path: {MASKED}, owner: masker}}
flows:
  - {{from: {PLAIN}, to: {MASKED}, who: [masker]}}
kms: {{namenode_users: [hdfs], admins: [hdfs]}}
agent: {{mode: observe, pin: apply}}
"""


class Shown:
    """A sandbox, its agent, and where the agent's page is."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        self.socket = directory / "agent.sock"

    def prepare(self) -> None:
        """Two zones by policy, the others by hand."""
        (self.directory / "zones.yaml").write_text(_POLICY)
        (self.directory / "agent.yaml").write_text(
            f"hadoop_conf: {self.cluster.hadoop_conf}\nsocket: {self.socket}\nstate_dir: {self.directory}/state\n"
            "interval: 200ms\ncall_timeout: 30s\nstale_after: 60s\n"
            # So few that a transfer takes longer than the page takes to ask again.
            "transfers: {streams: 8}\n"
        )
        applied = run_ringfence(
            ["apply", "-f", self.directory / "zones.yaml"], self.cluster.environ("hdfs"), timeout_s=300
        )
        assert applied.returncode == 0, applied.stderr
        for name, path in HOSTILE.items():
            self.make_zone(path, f"hostile-{name}")

    def make_zone(self, path: str, key: str) -> None:
        """By Hadoop's own command; the key is made without starting another JVM."""
        body = {"name": key, "length": 128}
        made = requests.post(f"{self.cluster.kms_url}/v1/keys", json=body, params={"user.name": "hdfs"}, timeout=60)
        assert made.status_code == 201, made.text
        self.cluster.make_directory(path)
        self.cluster.run("hdfs", "crypto", "-createZone", "-keyName", key, "-path", path)

    @contextmanager
    def agent(self) -> Iterator[AgentClient]:
        """A real agent that has seen the cluster."""
        with (
            (self.directory / "agent.log").open("ab") as log,
            subprocess.Popen(
                [RINGFENCE, "agent", "serve", "--config", self.directory / "agent.yaml"],
                env=self.cluster.environ("hdfs"),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            ) as process,
        ):
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == f"ready unix:{self.socket}\n", self.last_lines()
                yield AgentClient(str(self.socket))
            finally:
                process.terminate()
                process.wait(30)

    def last_lines(self) -> str:
        return (self.directory / "agent.log").read_text()[-2000:]

    def metrics(self) -> dict[str, float]:
        """Every sample by name and label values."""
        connection = UnixHTTPConnection(self.socket, 30.0)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {" ".join([each.name, *map(str, each.labels.values())]): each.value for each in samples}


@pytest.fixture(scope="module")
def shown() -> Iterator[Shown]:
    with new_sandbox("--kms", "ringfence") as described, tempfile.TemporaryDirectory(prefix="rfp") as directory:
        world = Shown(Cluster(described), Path(directory))
        world.prepare()
        yield world


def zones_on(browser: Browser) -> list[str]:
    """The paths in the table, whole, with what cannot be seen written out."""
    return list(
        browser.run(
            "return [...document.querySelectorAll('#zones-rows th')]"
            ".map(th => (th.querySelector('.whole') ?? th).textContent)"
        )
    )


def test_the_page_shows_the_clusters_zones_and_findings_and_follows_them(shown: Shown, browser: Browser) -> None:
    with shown.agent() as client, open_door(shown.socket) as address:
        browser.open(address)
        expected = {PLAIN, MASKED, *HOSTILE.values()} - {HOSTILE["right_to_left"]} | {"/page/aU+202Efdp.exe"}
        browser.await_(lambda: set(zones_on(browser)) == expected, timeout_s=120)
        assert {each.path for each in client.zones()} == {PLAIN, MASKED, *HOSTILE.values()}
        rows = json.loads(
            browser.run(
                "return JSON.stringify([...document.querySelectorAll('#zones-rows tr')]"
                ".map(row => [...row.cells].map(cell => cell.textContent)))"
            )
        )
        [row] = [row for row in rows if row[0] == PLAIN]
        assert row[1:] == ["page-test-page-pii", "page-test-page-pii@0", "256 bits", "envelope", "yes", "no"]
        rules = {finding.rule for finding in client.findings()}
        assert "zone_outside_policy" in rules
        browser.await_(lambda: rules <= set(browser.texts("#findings-list .muted")))
        assert browser.run("return document.querySelectorAll('#flows-graph .edge').length") == 1

        shown.make_zone("/page/later", "made-later")
        browser.await_(lambda: "/page/later" in zones_on(browser), timeout_s=120)
        assert not client.check_move(f"{PLAIN}/a", f"{MASKED}/a").rename
        browser.await_(lambda: f"{PLAIN}/a" in browser.text("#refused-rows"))
        rolled = f"{shown.cluster.kms_url}/v1/key/made-later"
        assert requests.post(rolled, json={}, params={"user.name": "hdfs"}, timeout=60).status_code == 200
        browser.await_(lambda: "made-later@1" in browser.text("#zones-rows"), timeout_s=120)

        assert browser.run("return document.scripts.length") == 1
        assert browser.run("return document.images.length") == 1
        assert browser.complaints() == []


def transfer_rows(browser: Browser) -> list[str]:
    return list(browser.run("return [...document.querySelectorAll('#transfers-rows tr')].map(row => row.textContent)"))


def test_a_transfer_is_followed_while_it_runs(shown: Shown, browser: Browser, tmp_path: Path) -> None:
    local = tmp_path / "made"
    local.mkdir()
    for number in range(60):
        (local / f"part-{number}").write_bytes(bytes([number]) * 100_000)
    shown.cluster.run("hdfs", "dfs", "-put", str(local), f"{PLAIN}/made", user="etl")
    with shown.agent() as client, open_door(shown.socket) as address:
        browser.open(address)
        browser.await_(lambda: browser.text("#transfers-note") == "No transfer was asked for yet.", timeout_s=120)
        wait_until(lambda: bool(client.health()["ready"]), timeout_s=120)
        # What the page shows in between, oldest first: it asks every two seconds.
        browser.run(
            "window.shares = []; new MutationObserver(() => {"
            " const bar = document.querySelector('#transfers-rows progress');"
            " if (bar) window.shares.push(bar.value / bar.max);"
            "}).observe(document.querySelector('#transfers-rows'), {childList: true})"
        )
        made = client.submit_transfer(f"{PLAIN}/made", f"{MASKED}/made", user="masker")
        browser.await_(lambda: any("60 of 60 files" in row for row in transfer_rows(browser)), timeout_s=240)
        assert client.wait_for_transfer(made.id, 240.0).state == "done", shown.last_lines()
        browser.await_(lambda: any("done" in row for row in transfer_rows(browser)))
        [row] = transfer_rows(browser)
        assert row.startswith(f"{PLAIN}/made{MASKED}/mademasker")
        shares = browser.run("return window.shares")
        assert shares == sorted(shares)
        assert any(0 < share < 1 for share in shares), "it was never seen under way"
        assert browser.complaints() == []
        assert shown.metrics()["ringfence_agent_transfers_ended_total done"] == 1


def counts_java(told: dict[str, float]) -> bool:
    return told["ringfence_agent_memory_bytes"] > told["process_resident_memory_bytes"]


def test_prometheus_is_told_of_the_real_loop(shown: Shown, browser: Browser) -> None:
    with shown.agent() as client, open_door(shown.socket) as address:
        browser.open(address)
        browser.await_(lambda: len(zones_on(browser)) >= 6, timeout_s=120)
        client.check_move(f"{PLAIN}/a", f"{MASKED}/a")
        # Measured at the end of a cycle: with Java only once its process has grown.
        wait_until(lambda: counts_java(shown.metrics()), timeout_s=120)
        told = shown.metrics()
        assert told["ringfence_agent_cycles_total"] >= 1
        assert told["ringfence_agent_zones"] == len(client.zones())
        assert told["ringfence_agent_live"] == told["ringfence_agent_ready"] == told["ringfence_agent_kms_answers"] == 1
        assert told["ringfence_agent_policy_revision"] == 1
        assert told["ringfence_agent_mode observe"] == 1
        assert told["ringfence_agent_moves_refused_total zone_to_zone"] == 1
        assert told["ringfence_agent_acts"] == 1
        assert told["ringfence_agent_events_age_seconds"] < 60
        by_rule = {name: value for name, value in told.items() if name.startswith("ringfence_agent_findings ")}
        assert sum(by_rule.values()) == len(client.findings()) > 0
