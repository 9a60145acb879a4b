"""A real stock KMS is taken over by ours on its own address and gets it back, with a real Java client at work.

The machine that runs tests has no systemd, so the services are pairs of commands, as the sandbox starts and stops them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from cluster_commands import Cluster
from sandboxes import RINGFENCE, run_ringfence
from zone_loop import loop_in

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

_WORDS = b"what was written stays readable\n"
_DEADLINE_S = 120
_STOP_STOCK = """
import json, os, signal, sys, time
pid = json.load(open(sys.argv[1]))["processes"]["kms"]["pid"]
deadline = time.monotonic() + 30
try:
    os.kill(pid, signal.SIGTERM)
    while open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
except (ProcessLookupError, FileNotFoundError):
    pass
"""


@dataclass
class Exchange:
    """One place to take over from and return to: the options of both commands, and Hadoop's clients."""

    cluster: Cluster
    directory: Path
    key: str
    zone: str
    options: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, cluster: Cluster, directory: Path, name: str) -> Exchange:
        made = cls(cluster, directory, f"{name}-key", f"/{name}")
        (directory / "keys").mkdir(mode=0o700)
        (directory / "stop-stock.py").write_text(_STOP_STOCK)
        (directory / "start").write_text(
            f"#!/bin/sh\nsetsid {RINGFENCE} kms serve --config {directory}/kms.yaml"
            f" > {directory}/kms.log 2>&1 < /dev/null &\necho $! > {directory}/pid\n"
        )
        (directory / "stop").write_text(
            f"#!/bin/sh\nkill $(cat {directory}/pid) 2>/dev/null\n"
            f"while kill -0 $(cat {directory}/pid) 2>/dev/null; do sleep 0.1; done\nexit 0\n"
        )
        for script in ("start", "stop"):
            (directory / script).chmod(0o755)
        made.options = [
            *("--kms-conf", str(cluster.kms_conf), "--keystore", f"sqlite:///{directory}/keys/k.db"),
            *("--config", f"{directory}/kms.yaml"),
            *("--stock-stop-command", f"{sys.executable} {directory}/stop-stock.py {cluster.directory}/state.json"),
            *("--stock-start-command", f"{RINGFENCE} sandbox up --dir {cluster.directory}"),
            *("--start-command", f"{directory}/start", "--stop-command", f"{directory}/stop"),
        ]
        return made

    def command(self, verb: str, *more: str) -> list[str]:
        options = self.options if verb == "takeover" else []
        return ["kms", verb, *options, "--state-dir", f"{self.directory}/state", "--prove-as", "etl", *more]

    def ringfence(self, verb: str, *more: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        done = run_ringfence(self.command(verb, *more), self.cluster.environ("hdfs"), timeout_s=300)
        assert done.returncode == expect, done.stderr + self.log()
        return done

    def log(self) -> str:
        path = self.directory / "kms.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def who_answers(self) -> str | None:
        """`ringfence`, `stock`, or None while nobody does."""
        url = self.cluster.kms_url.removesuffix("/kms")
        try:
            answer = requests.get(f"{url}/ringfence/v1/status", params={"user.name": "hdfs"}, timeout=10)
        except requests.ConnectionError:
            return None
        return "ringfence" if answer.status_code == 200 else "stock"

    def key_names(self) -> list[str]:
        answer = requests.get(f"{self.cluster.kms_url}/v1/keys/names", params={"user.name": "hdfs"}, timeout=30)
        names: list[str] = answer.json()
        return names

    def make_zone(self, zone: str, key: str) -> None:
        self.cluster.run("hadoop", "key", "create", key)
        self.cluster.make_directory(zone, owner="etl")
        self.cluster.run("hdfs", "crypto", "-createZone", "-keyName", key, "-path", zone)

    def put(self, path: str) -> None:
        source = self.directory / "words"
        source.write_bytes(_WORDS)
        self.cluster.run("hdfs", "dfs", "-put", str(source), path, user="etl")

    def read(self, *paths: str) -> bytes:
        found: bytes = self.cluster.run("hdfs", "dfs", "-cat", *paths, user="etl").stdout
        return found

    def restore(self) -> None:
        """Whatever a failed test left: the stock KMS serves again."""
        if self.who_answers() != "stock":
            subprocess.run([str(self.directory / "stop")], check=True, timeout=60)
            run_ringfence(["sandbox", "up", "--dir", self.cluster.directory], timeout_s=300)


@pytest.fixture
def exchange(stock_cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Exchange]:
    tmp_path.chmod(0o700)
    name = request.node.name.removeprefix("test_").replace("_", "-")[:30].strip("-")
    made = Exchange.make(stock_cluster, tmp_path, name)
    made.make_zone(made.zone, made.key)
    made.put(f"{made.zone}/before")
    try:
        yield made
    finally:
        (tmp_path / "pid").touch()
        made.restore()


@pytest.mark.long
def test_takeover_and_return_keep_every_file_readable_while_clients_go_on(exchange: Exchange) -> None:
    plan = json.loads(exchange.ringfence("takeover", "--json").stdout)
    assert [step["name"] for step in plan["steps"]] == [
        *("import", "configure", "prove", "stop-stock", "import-again", "start-ours", "verify")
    ]
    assert plan["proofs"]["files"] >= 1 and plan["proofs"]["unproven_keys"] == []
    assert exchange.who_answers() == "stock" and not (exchange.directory / "kms.yaml").exists()

    with loop_in(exchange.cluster, exchange.zone, exchange.directory) as loop:
        exchange.ringfence("takeover", "--yes")
        assert exchange.who_answers() == "ringfence"
        loop.wait_for_rounds(3)
        exchange.cluster.run("hadoop", "key", "roll", exchange.key)
        exchange.make_zone(f"{exchange.zone}-new", f"{exchange.key}-new")
        exchange.put(f"{exchange.zone}-new/during")
        exchange.put(f"{exchange.zone}/during")
        names = exchange.key_names()

        exchange.ringfence("return", "--yes")
        assert exchange.who_answers() == "stock"
        loop.wait_for_rounds(3)
        assert loop.finish() > 9
    assert sorted(exchange.key_names()) == sorted(names)
    assert not (exchange.directory / "kms.yaml").exists()
    written = [f"{exchange.zone}/before", f"{exchange.zone}/during", f"{exchange.zone}-new/during"]
    assert exchange.read(*written) == _WORDS * 3
    # The clients' pause is the exchange of two services, one of them in Java, on a machine that tests share.
    assert loop.longest_pause_s() < 60


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_takeover_killed_at_any_step_is_rolled_back_by_the_next(exchange: Exchange) -> None:
    plan = json.loads(exchange.ringfence("takeover", "--json", "--no-files").stdout)
    steps = [step["name"] for step in plan["steps"]]
    for step in steps:
        _kill_at(exchange, step)  # every step, and a step that the plan gains is killed too
        exchange.ringfence("takeover", "--yes", "--no-files", expect=4)
        assert exchange.who_answers() == "stock", step
        assert not (exchange.directory / "kms.yaml").exists(), step
        assert exchange.read(f"{exchange.zone}/before") == _WORDS, step
    exchange.ringfence("takeover", "--yes")
    exchange.put(f"{exchange.zone}/during")
    exchange.ringfence("return", "--yes")
    assert exchange.read(f"{exchange.zone}/during") == _WORDS


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_return_killed_at_any_step_leaves_our_kms_serving(exchange: Exchange) -> None:
    exchange.ringfence("takeover", "--yes", "--no-files")
    exchange.cluster.run("hadoop", "key", "roll", exchange.key)
    exchange.put(f"{exchange.zone}/during")
    plan = json.loads(exchange.ringfence("return", "--json", "--no-files").stdout)
    for step in [step["name"] for step in plan["steps"]]:
        _kill_at(exchange, step, "return")
        exchange.ringfence("return", "--yes", "--no-files", expect=4)
        assert exchange.who_answers() == "ringfence", step
        assert (exchange.directory / "kms.yaml").exists(), step
    exchange.ringfence("return", "--yes", "--no-files")
    assert exchange.who_answers() == "stock"
    assert exchange.read(f"{exchange.zone}/before", f"{exchange.zone}/during") == _WORDS * 2


@pytest.mark.long
def test_what_cannot_start_ends_with_the_stock_kms_serving(exchange: Exchange) -> None:
    (exchange.directory / "start").write_text("#!/bin/sh\nexit 3\n")
    failed = exchange.ringfence("takeover", "--yes", "--json", expect=4)
    error = json.loads(failed.stderr.splitlines()[-1])["error"]
    assert error["exit_code"] == 4
    assert "everything is as it was before" in error["message"]
    assert exchange.who_answers() == "stock"
    assert exchange.read(f"{exchange.zone}/before") == _WORDS


def _kill_at(exchange: Exchange, step: str, verb: str = "takeover") -> None:
    """Starts the command and kills it when its journal says that this step was begun."""
    journal = exchange.directory / f"state/{verb}.json"
    process = subprocess.Popen(
        [RINGFENCE, *exchange.command(verb, "--yes", "--no-files")],
        env=exchange.cluster.environ("hdfs"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        assert time.monotonic() < deadline and process.poll() is None, f"{step} was never begun"
        content: dict[str, Any] = json.loads(journal.read_text()) if journal.exists() else {"state": "", "steps": []}
        if content["state"] == "running" and content["steps"] and content["steps"][-1]["name"] == step:
            break
        time.sleep(0.0002)  # some steps take a few milliseconds
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
