"""One key per zone means many keys: what the n-th create costs, and the first EEKs of each key after a restart.

The Java KMS is given fewer keys, because it needs hours for a thousand; its figures say how many there were.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kms_load import GENERATE_COUNT, KEY_LENGTH_BITS, KmsCaller, generate_requests
from kms_servers import Java, Ringfence
from throughput import GENERATOR

# Long enough that one slow sync of the disk does not decide.
_WINDOW = 20


@dataclass(frozen=True, slots=True)
class ManyKeys:
    """One server: milliseconds a create among the first and the last keys, seconds a key for its first EEKs."""

    keys: int
    first_create_ms: float
    last_create_ms: float
    cold_touch_s: float


def measure_many_keys(kind: Ringfence | Java, keys: int, say: Callable[[str], None]) -> ManyKeys:
    """Creates `keys` keys, starts the server again, and asks for EEKs of each over one connection."""
    names = key_names_of(keys)
    say(f"creating {keys:,} keys: {kind.name}")
    with kind.running() as server:
        creates = _create(server.caller(GENERATOR), names)
    say(f"first EEKs of {keys:,} keys: {kind.name}")
    with kind.running() as server:
        caller = server.caller(GENERATOR)
        started = time.monotonic()
        for request in generate_requests(names, GENERATE_COUNT):
            caller.call(request.method, request.target)
        touch_s = (time.monotonic() - started) / keys
    window = min(_WINDOW, keys // 2)
    first, last = statistics.median(creates[:window]), statistics.median(creates[-window:])
    return ManyKeys(keys, first * 1e3, last * 1e3, touch_s)


def key_names_of(keys: int) -> list[str]:
    """The keys that were made, when there were to be so many."""
    return [f"many-{number}" for number in range(keys)]


def _create(caller: KmsCaller, names: Sequence[str]) -> list[float]:
    seconds = []
    for name in names:
        body = {"name": name, "cipher": "AES/CTR/NoPadding", "length": KEY_LENGTH_BITS}
        started = time.monotonic()
        caller.call("POST", "/v1/keys", body, expect=201)
        seconds.append(time.monotonic() - started)
    return seconds
