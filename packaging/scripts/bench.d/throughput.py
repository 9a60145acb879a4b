"""KMS against KMS: CPU per request under a closed loop, both servers in the same run, round about.

Rules: both servers are warm before anything counts; rounds alternate between the servers, so that a busy machine
disturbs both alike; a failed request or a request missing from Ringfence's audit log ends the benchmark.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from audit_lines import AuditLog
from figures import Spread, spread_of
from kms_load import (
    BenchError,
    KmsCaller,
    create_keys,
    decrypt_requests,
    generate_requests,
    key_names,
    metadata_requests,
    run_wrk,
    write_script,
)
from kms_servers import RINGFENCE, Server
from process_tree import tree_cpu_s, tree_rss_mib, tree_size

CONNECTIONS = 16
GENERATOR, READER = "hdfs", "etl"
PLAIN = ("decrypt", "metadata", "generate", "inline")
"""What is measured over plain HTTP; `inline` is decrypt as hdfs-native sends it, and of interest on our server only."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure. Warming ends when CPU per request stops falling, within these bounds."""

    rounds: int
    round_s: float
    warm_requests: int
    warm_limit_s: float


FULL = Effort(rounds=7, round_s=4, warm_requests=40_000, warm_limit_s=60)
# Without its cache the Java KMS answers a handful of requests a second: nothing warms up, and a round is enough.
SLOW = Effort(rounds=2, round_s=8, warm_requests=1, warm_limit_s=8)
QUICK = Effort(rounds=2, round_s=1, warm_requests=200, warm_limit_s=4)


@dataclass(slots=True)
class Samples:
    """The rounds of one operation on one server: CPU microseconds and milliseconds a request, requests a second."""

    cpu_us: list[float] = field(default_factory=list)
    per_s: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    warmed_with: int = 0

    @property
    def cpu(self) -> Spread | None:
        """CPU microseconds per request."""
        return spread_of(self.cpu_us)

    @property
    def rate(self) -> Spread | None:
        """Requests per second in the closed loop."""
        return spread_of(self.per_s)

    @property
    def per_cpu_second(self) -> Spread | None:
        """Requests per second of CPU time."""
        return self.cpu.map(lambda us: 1e6 / us) if self.cpu else None


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a server's processes in MiB, before and after all load."""

    at_start_mib: float
    after_load_mib: float
    processes: int


SamplesByServer = Mapping[str, Samples]


@dataclass(frozen=True, slots=True)
class Throughput:
    """Everything measured on one set of servers: by operation, then by server name; and their memory."""

    samples: Mapping[str, SamplesByServer]
    memory: Mapping[str, Memory]


class _Lane:
    """One operation on one server."""

    def __init__(self, operation: str, server: Server, script: Path) -> None:
        self.operation = operation
        self.server = server
        self.samples = Samples()
        self._script = script

    def warm(self, effort: Effort) -> None:
        """Slices of load until enough requests went by and the last three brought no gain, or the limit is up."""
        deadline = time.monotonic() + effort.warm_limit_s
        costs: list[float] = []
        while time.monotonic() < deadline:
            cpu_us, requests = self._run(min(3.0, effort.round_s))[:2]
            self.samples.warmed_with += requests
            costs.append(cpu_us)
            settled = len(costs) > 3 and min(costs[-3:]) > 0.97 * min(costs[:-3])
            if settled and self.samples.warmed_with >= effort.warm_requests:
                break

    def measure(self, effort: Effort) -> None:
        """One round that counts."""
        cpu_us, requests, seconds, p50_ms, p99_ms = self._run(effort.round_s)
        self.samples.cpu_us.append(cpu_us)
        self.samples.per_s.append(requests / seconds)
        self.samples.p50_ms.append(p50_ms)
        self.samples.p99_ms.append(p99_ms)

    def _run(self, seconds: float) -> tuple[float, int, float, float, float]:
        before = tree_cpu_s(self.server.pid)
        audit = self.server.audit
        lines_before = audit.count(self.operation) if audit else 0
        load = run_wrk(self.server.kms_url, self._script, connections=CONNECTIONS, seconds=seconds)
        if audit:
            # wrk goes away with up to one request per connection under way: served and audited, but not counted by it.
            audit.expect(self.operation, lines_before + load.requests, in_flight=CONNECTIONS)
        cpu_s = tree_cpu_s(self.server.pid) - before
        if load.requests == 0 or cpu_s <= 0:
            raise BenchError(f"{self.server.name} served nothing in {seconds:g} s")
        return cpu_s / load.requests * 1e6, load.requests, load.seconds, load.p50_ms, load.p99_ms


def measure_throughput(
    servers: Sequence[Server], operations: Sequence[str], effort: Effort, say: Callable[[str], None]
) -> Throughput:
    """Loads every server with every operation. Raises BenchError when a request fails or is not audited."""
    at_start = {server.name: tree_rss_mib(server.pid) for server in servers}
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-") as scratch:
        lanes = _prepare(servers, operations, Path(scratch))
        for lane in lanes:
            say(f"warming {lane.server.name}: {lane.operation}")
            lane.warm(effort)
        for number in range(effort.rounds):
            say(f"{', '.join(operations)}: round {number + 1} of {effort.rounds}")
            # Every other round in the opposite order, so that no server always goes first.
            for lane in lanes if number % 2 == 0 else reversed(lanes):
                lane.measure(effort)
    samples: dict[str, dict[str, Samples]] = {}
    for lane in lanes:
        samples.setdefault(lane.operation, {})[lane.server.name] = lane.samples
    memory = {s.name: Memory(at_start[s.name], tree_rss_mib(s.pid), tree_size(s.pid)) for s in servers}
    return Throughput(samples, memory)


def _prepare(servers: Sequence[Server], operations: Sequence[str], scratch: Path) -> list[_Lane]:
    lanes = []
    for server in servers:
        generator, reader = server.caller(GENERATOR), server.caller(READER)
        create_keys(generator)
        if server.audit:
            _check_exact(server.audit, generator)
        for operation in operations:
            if operation == "inline" and server.name != RINGFENCE:
                continue
            script = scratch / f"{server.name}-{operation}.lua"
            write_script(script, _raw_requests(operation, generator, reader))
            lanes.append(_Lane(operation, server, script))
    # Servers side by side for each operation, so that neighbours in time are what is compared.
    return sorted(lanes, key=lambda lane: operations.index(lane.operation))


def _raw_requests(operation: str, generator: KmsCaller, reader: KmsCaller) -> list[str]:
    match operation:
        case "generate":
            return [generator.raw_request(request) for request in generate_requests(key_names())]
        case "metadata":
            return [reader.raw_request(request) for request in metadata_requests(key_names())]
        case "inline":
            return [reader.raw_inline_request(request) for request in decrypt_requests(generator, reader)]
        case _:
            return [reader.raw_request(request) for request in decrypt_requests(generator, reader)]


def _check_exact(audit: AuditLog, generator: KmsCaller) -> None:
    """A known number of requests, one after the other, must be exactly as many audit lines."""
    before, count = audit.count("generate"), 100
    for _ in range(count):
        generator.call("GET", "/v1/key/bench-key-0/_eek?num_keys=1&eek_op=generate")
    audit.expect("generate", before + count, in_flight=0)
