"""From the start of the command to the first answer, and what the server can do in the second after that."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from figures import Spread, spread_of
from kms_load import create_keys, decrypt_requests, run_wrk, write_script
from kms_servers import Java, Ringfence
from throughput import CONNECTIONS, GENERATOR, READER

_SETTLED_S = 4


@dataclass(slots=True)
class Startup:
    """The starts of one server. Rates are decrypts per second in a closed loop."""

    ready_s: list[float] = field(default_factory=list)
    first_second: list[float] = field(default_factory=list)
    settled: list[float] = field(default_factory=list)

    @property
    def ready(self) -> Spread | None:
        """Seconds to the first answer."""
        return spread_of(self.ready_s)

    @property
    def first_share(self) -> Spread | None:
        """The first second's rate over that of the seconds after it, start by start."""
        return spread_of([first / then for first, then in zip(self.first_second, self.settled, strict=True)])


def measure_startup(
    kinds: Sequence[Ringfence | Java], *, rounds: int, say: Callable[[str], None]
) -> dict[str, Startup]:
    """Starts each server `rounds` times, in turn, on the keys of its first start. By server name."""
    found = {kind.name: Startup() for kind in kinds}
    for number in range(rounds):
        for kind in kinds if number % 2 == 0 else reversed(kinds):
            say(f"start {number + 1} of {rounds}: {kind.name}")
            _start(kind, found[kind.name])
    return found


def _start(kind: Ringfence | Java, startup: Startup) -> None:
    with kind.running() as server, tempfile.TemporaryDirectory(prefix="ringfence-bench-") as scratch:
        startup.ready_s.append(server.ready_s)
        generator, reader = server.caller(GENERATOR), server.caller(READER)
        create_keys(generator)
        script = Path(scratch) / "decrypt.lua"
        write_script(script, [reader.raw_request(request) for request in decrypt_requests(generator, reader)])
        for seconds, rates in ((1, startup.first_second), (_SETTLED_S, startup.settled)):
            load = run_wrk(server.kms_url, script, connections=CONNECTIONS, seconds=seconds)
            rates.append(load.requests / load.seconds)
