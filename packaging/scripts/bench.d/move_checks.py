"""Move checks over the agent's Unix socket, while its loop looks at a real cluster again and again.

Two figures: how many a second a closed loop of kept-alive connections gets when the agent has one core, and what a
caller waits at a fixed rate far below that. `h2load` speaks HTTP/1.1 over a Unix socket. Its requests are all the same
one, a move between two zones that the policy refuses: the dearest answer. Every answer has to be a 200, and the same
question asked before and after has to get that very decision.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from figures import Spread, spread_of
from kms_load import BenchError
from machine import generator_cpus, on_cpus, server_cpus
from process_tree import tree_rss_mib
from sandbox import Sandbox

from ringfence_agent.client import AgentClient, AgentError

RATE_PER_S = 200
_CONNECTIONS = 4
_SETTLE_S = 2
_SOURCE, _TARGET = "/bench/a/x/part-0", "/bench/b/x/part-0"
_POLICY = """\
version: 1
cluster: bench
zones:
  - {path: /bench/a, owner: hdfs}
  - {path: /bench/b, owner: hdfs}
flows: []
kms: {namenode_users: [hdfs], admins: [hdfs]}
agent: {mode: observe, pin: off}
"""
_STATUSES = re.compile(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx")
_RATE = re.compile(r"finished in .*?, ([0-9.]+) req/s")


@dataclass(frozen=True, slots=True)
class MoveChecks:
    """Answers a second of the closed loop, p50 and p99 in milliseconds at `RATE_PER_S`, memory of the agent after it.

    `agent_mib` is the agent's with its Java child; `cycles` how often the loop looked at the cluster meanwhile.
    """

    rate_per_s: Spread | None
    p50_ms: Spread | None
    p99_ms: Spread | None
    agent_mib: float
    cycles: int


def measure_move_checks(
    ours: Sandbox, scratch: Path, *, rounds: int, round_s: int, say: Callable[[str], None]
) -> MoveChecks:
    """On a running sandbox. Raises BenchError when an answer is not the right one."""
    document = scratch / "zones.yaml"
    document.write_text(_POLICY)
    ours.run([str(ours.program), "apply", "-f", str(document)])
    with running_agent(ours, scratch) as (process, socket):
        client = AgentClient(str(socket))
        _await_answer(client, process)
        load = _Load(socket, scratch)
        began = client.health()["cycle"]
        rates, times = [], []
        for number in range(rounds):
            say(f"move checks: round {number + 1} of {rounds}")
            rates.append(load.closed_loop(round_s))
            times.append(load.fixed_rate(round_s))
        _expect_refusal(client)
        return MoveChecks(
            spread_of(rates),
            spread_of([p50 for p50, _ in times]),
            spread_of([p99 for _, p99 in times]),
            tree_rss_mib(process.pid),
            client.health()["cycle"] - began,
        )


@contextmanager
def running_agent(ours: Sandbox, scratch: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """An agent on the sandbox, its looks without a pause, and its socket."""
    socket, config = scratch / "agent.sock", scratch / "agent.yaml"
    config.write_text(
        f"hadoop_conf: {ours.environment['HADOOP_CONF_DIR']}\nsocket: {socket}\nstate_dir: {scratch}/agent\n"
        "interval: 200ms\n"  # it is always looking
    )
    argv = on_cpus(server_cpus(), [str(ours.program), "agent", "serve", "--config", str(config)])
    with (
        (scratch / "agent.log").open("wb") as log,
        subprocess.Popen(argv, env=ours.environment, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            if not process.stdout.readline().startswith("ready unix:"):
                raise BenchError(f"the agent did not start: {(scratch / 'agent.log').read_text()[-1000:]}")
            yield process, socket
        finally:
            process.terminate()


def _await_answer(client: AgentClient, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        try:
            _expect_refusal(client)
        except AgentError:
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
            raise BenchError("the agent ended before it answered") from None
        return
    raise BenchError("the agent saw no cluster within two minutes")


def _expect_refusal(client: AgentClient) -> None:
    answer = client.check_move(_SOURCE, _TARGET, user="hdfs")
    if (answer.rename, answer.transfer, answer.rule) != (False, False, "zone_to_zone"):
        raise BenchError(f"the agent decided otherwise: {answer}")


class _Load:
    def __init__(self, socket: Path, scratch: Path) -> None:
        self._socket = socket
        self._body = scratch / "question.json"
        self._body.write_text(json.dumps({"src": _SOURCE, "dst": _TARGET, "user": "hdfs"}))
        self._log = scratch / "h2load.log"

    def closed_loop(self, seconds: int) -> float:
        """Answers a second."""
        output = self._run([f"--duration={seconds}", f"--warm-up-time={_SETTLE_S}"], seconds)
        statuses, rate = _STATUSES.search(output), _RATE.search(output)
        if statuses is None or rate is None or any(int(count) for count in statuses.groups()[1:]):
            raise BenchError(f"not every move check was answered with 200: {output[-500:]}")
        return float(rate[1])

    def fixed_rate(self, seconds: int) -> tuple[float, float]:
        """p50 and p99 in milliseconds at `RATE_PER_S`."""
        self._log.unlink(missing_ok=True)
        each = RATE_PER_S // _CONNECTIONS
        options = (f"--duration={seconds}", f"--warm-up-time={_SETTLE_S}", f"--rps={each}", f"--log-file={self._log}")
        self._run(options, seconds)
        rows = [line.split("\t") for line in self._log.read_text().splitlines()]
        if not rows or any(status != "200" for _, status, _ in rows):
            raise BenchError("not every move check was answered with 200 at a fixed rate")
        times_us = sorted(int(micros) for _, _, micros in rows)
        return times_us[len(times_us) // 2] / 1e3, times_us[len(times_us) * 99 // 100] / 1e3

    def _run(self, options: list[str] | tuple[str, ...], seconds: int) -> str:
        argv = [
            *("h2load", "--h1", f"--clients={_CONNECTIONS}", "--threads=1", *options),
            *(f"--data={self._body}", "--header=Content-Type: application/json"),
            f"--base-uri=unix:{self._socket}",
            "http://localhost/v1/moves/check",
        ]
        finished = subprocess.run(
            on_cpus(generator_cpus(), argv), capture_output=True, text=True, timeout=seconds + 60, check=False
        )
        if finished.returncode != 0:
            raise BenchError(f"h2load failed: {finished.stderr.strip() or finished.stdout.strip()}")
        return finished.stdout
