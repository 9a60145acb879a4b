"""Two workers against one, on two cores that the load generator shares."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from figures import Spread, spread_of
from kms_load import create_keys, decrypt_requests, generate_requests, key_names, run_wrk, write_script
from kms_servers import Ringfence, Server
from process_tree import tree_cpu_s
from throughput import GENERATOR, READER

_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Workers:
    """By number of workers: generate requests a second, CPU microseconds a decrypt; and the share of decrypts that
    each of two workers answered.
    """

    generate_per_s: Mapping[int, Spread | None]
    decrypt_cpu_us: Mapping[int, Spread | None]
    shares: tuple[float, ...]


def measure_workers(
    program: Path, scratch: Path, *, rounds: int, round_s: float, say: Callable[[str], None]
) -> Workers:
    """Runs a server with one worker and one with two, in turn."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    generate: dict[int, list[float]] = {1: [], 2: []}
    decrypt: dict[int, list[float]] = {1: [], 2: []}
    with ExitStack() as stack:
        servers = {
            count: stack.enter_context(
                Ringfence(program, scratch / f"workers-{count}").running(cpus=cpus, workers=count)
            )
            for count in (1, 2)
        }
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ringfence-bench-")))
        scripts = {count: _scripts(server, directory) for count, server in servers.items()}
        for number in range(rounds):
            say(f"one worker and two: round {number + 1} of {rounds}")
            for count in (1, 2) if number % 2 == 0 else (2, 1):
                url, (generating, decrypting) = servers[count].kms_url, scripts[count]
                load = run_wrk(url, generating, connections=_CONNECTIONS, seconds=round_s)
                generate[count].append(load.requests / load.seconds)
                before = tree_cpu_s(servers[count].pid)
                load = run_wrk(url, decrypting, connections=_CONNECTIONS, seconds=round_s)
                decrypt[count].append((tree_cpu_s(servers[count].pid) - before) / load.requests * 1e6)
        audit = servers[2].audit
        assert audit is not None
        shares = audit.shares("decrypt")
    return Workers(
        {count: spread_of(rates) for count, rates in generate.items()},
        {count: spread_of(costs) for count, costs in decrypt.items()},
        shares,
    )


def _scripts(server: Server, directory: Path) -> tuple[Path, Path]:
    generator, reader = server.caller(GENERATOR), server.caller(READER)
    create_keys(generator)
    generating, decrypting = (directory / f"{server.pid}-{what}.lua" for what in ("generate", "decrypt"))
    write_script(generating, [generator.raw_request(request) for request in generate_requests(key_names())])
    write_script(decrypting, [reader.raw_request(request) for request in decrypt_requests(generator, reader)])
    return generating, decrypting
