"""Latency of a decrypt at a fixed arrival rate: what a client waits when the server is half busy.

A closed loop slows down with the server and so flatters it. Here requests leave at a given rate, whatever comes back;
the rate is half of what the Java KMS managed in the closed loop. `h2load` spaces them per connection.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from figures import Spread, spread_of
from kms_load import BenchError, KmsCaller, KmsRequest, create_keys, decrypt_requests
from kms_servers import Server
from machine import generator_cpus, on_cpus
from throughput import CONNECTIONS, GENERATOR, READER

_WARM_UP_S = 2


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of the rounds, in milliseconds, of one server at `rate_per_s`."""

    rate_per_s: float
    p50_ms: Spread | None
    p99_ms: Spread | None


def measure_latency(
    servers: Sequence[Server], rate_per_s: float, *, rounds: int, round_s: int, say: Callable[[str], None]
) -> Mapping[str, Latency]:
    """By server name. Raises BenchError when a request fails or is not audited."""
    percentiles: dict[str, list[tuple[float, float]]] = {server.name: [] for server in servers}
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-") as scratch:
        loads = [_FixedRate(server, rate_per_s, Path(scratch)) for server in servers]
        for number in range(rounds):
            say(f"latency at {rate_per_s:,.0f} requests a second: round {number + 1} of {rounds}")
            for load in loads if number % 2 == 0 else reversed(loads):
                percentiles[load.server.name].append(load.run(round_s))
    return {
        name: Latency(rate_per_s, spread_of([p50 for p50, _ in found]), spread_of([p99 for _, p99 in found]))
        for name, found in percentiles.items()
    }


class _FixedRate:
    def __init__(self, server: Server, rate_per_s: float, scratch: Path) -> None:
        self.server = server
        self._rate = max(1, round(rate_per_s / CONNECTIONS))
        generator, self._reader = server.caller(GENERATOR), server.caller(READER)
        create_keys(generator)
        self._request: KmsRequest = decrypt_requests(generator, self._reader)[0]
        self._body = scratch / f"{server.name}.json"
        self._body.write_text(self._request.java_body())
        self._log = scratch / f"{server.name}.log"

    def run(self, seconds: int) -> tuple[float, float]:
        """p50 and p99 in milliseconds of one run."""
        audit = self.server.audit
        before = audit.count("decrypt") if audit else 0
        self._log.unlink(missing_ok=True)
        finished = subprocess.run(
            on_cpus(generator_cpus(), self._command(self._reader, seconds)),
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            check=False,
        )
        rows = [line.split("\t") for line in self._log.read_text().splitlines()] if self._log.exists() else []
        if finished.returncode != 0 or not rows:
            raise BenchError(f"h2load failed: {finished.stderr.strip() or finished.stdout.strip()}")
        bad = sum(1 for _, status, _ in rows if status != "200")
        if bad:
            raise BenchError(f"{bad} of {len(rows)} requests to {self.server.name} failed at a fixed rate")
        if audit:
            # Requests of the warm-up are served and audited too, and not in h2load's log.
            audit.expect("decrypt", before + len(rows), in_flight=len(rows) * _WARM_UP_S + CONNECTIONS)
        times_us = sorted(int(micros) for _, _, micros in rows)
        return times_us[len(times_us) // 2] / 1e3, times_us[len(times_us) * 99 // 100] / 1e3

    def _command(self, reader: KmsCaller, seconds: int) -> list[str]:
        return [
            *("h2load", "--h1", f"--clients={CONNECTIONS}", "--threads=1", f"--rps={self._rate}"),
            *(f"--duration={seconds}", f"--warm-up-time={_WARM_UP_S}", f"--log-file={self._log}"),
            *(f"--data={self._body}", "--header=Content-Type: application/json"),
            # A session of a server that lives for minutes, on loopback, in a throw-away directory.
            f"--header=Cookie: {reader.cookie}",
            f"{reader.origin}{reader.base}{self._request.target}",
        ]
