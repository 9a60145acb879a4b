"""What the KMS counts: shared between its processes while it serves, told in Prometheus' words and Hadoop's.

Rules:

1. The table is anonymous memory made before the fork, with one block for each worker process and one for the master.
   A process writes to its own block only, so nothing is locked; whoever is asked adds all blocks up.
2. A block is never cleared: the next process with the same number counts on. So a counter never falls, whoever dies.
3. No label names a user, a key or an address: they are what a stranger would like to read, and there are too many.
4. Counting one request costs well under a microsecond: requests are counted in the process's own memory, and those of
   one event-loop turn come to the table together (`flush`), before their answers leave.

A counter holds 64 bits; times are kept in nanoseconds. What a process is doing now (connections, its pid) counts only
while it lives.
"""

from __future__ import annotations

import math
import mmap
import os
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ringfence_agent.kms.audit.record import DENIED, FAILED, OK, UNAUTHENTICATED, Decision
from ringfence_agent.kms.authentication.caller import Identity

OPERATIONS = (
    *("CREATE_KEY", "DELETE_KEY", "ROLL_NEW_VERSION", "INVALIDATE_CACHE", "GET_KEYS", "GET_KEYS_METADATA"),
    *("GET_METADATA", "GET_CURRENT_KEY", "GET_KEY_VERSION", "GET_KEY_VERSIONS", "GENERATE_EEK", "DECRYPT_EEK"),
    *("REENCRYPT_EEK", "REENCRYPT_EEK_BATCH", "GETDELEGATIONTOKEN", "RENEWDELEGATIONTOKEN", "CANCELDELEGATIONTOKEN"),
    *("GET_POLICY", "PUBLISH_POLICY", "GET_DELETED_KEYS", "UNDELETE_KEY", "GET_STATUS", "GET_JMX", "GET_METRICS"),
    *("GET_LEASE", "TAKE_LEASE", "RELEASE_LEASE", "GET_GRANTS", "CREATE_GRANT", "END_GRANT"),
    "OTHER",
)
OUTCOMES = (OK, DENIED, UNAUTHENTICATED, FAILED)
IDENTITIES = tuple(identity.value for identity in Identity)
# An unwrap is material opened by a remote protector.
STORE_WORK = ("read", "change", "unwrap")
# Upper ends of the buckets of how many EDEKs one call to Vault Transit carries; a larger one goes into one more.
BATCH_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128)
# Upper ends of the latency buckets in seconds; what is longer goes into one more.
BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

# Counters that stand for themselves: their names, without prefix and `_total`, and what they count.
COUNTERS: Mapping[str, str] = {
    "eeks_generated": "EDEKs made.",
    "eeks_decrypted": "EDEKs opened.",
    "eeks_reencrypted": "EDEKs re-encrypted under the current version of their key.",
    "key_cache_hits": "Look-ups of a key that was in memory.",
    "key_cache_loads": "Keys read from the key store into memory.",
    "store_errors": "Reads and changes of the key store that failed.",
    "store_checks": "Times that all of the key store was found genuine.",
    "store_check_failures": "Times that the key store was found not to be genuine.",
    "transit_call_failures": "Calls to Vault Transit for EDEKs that failed as a whole.",
    "flow_decisions": "Openings of EDEKs that the flow memory was asked about.",
    "flow_refusals": "Openings that flow rules refused.",
    "flow_shadow_refusals": "Openings that flow rules would have refused, had they been enforced.",
    "flow_admitted_by_grant": "Openings that flow rules would have refused without a grant.",
    "flow_undecided": "Openings that flow rules could not decide about.",
    "flow_not_noted": "Calls for new EDEKs that could not be noted for the flow rules.",
    "backups": "Backups of the key store that were made.",
    "backup_failures": "Backups of the key store that could not be made.",
    "audit_bytes": "Bytes written to the audit log.",
    "audit_syncs": "Times the audit log was brought to disk.",
    "audit_lost": "Audit records that could not be written.",
    "worker_starts": "Worker processes that began to serve.",
    "worker_crashes": "Worker processes that died unasked.",
}
_HISTOGRAM_CELLS = len(BUCKETS_S) + 2  # the last bucket, and the sum in nanoseconds
TRANSIT_CALL, TRANSIT_BATCH = "transit_call", "transit_batch"
# `hadoop.kms.<name>.calls.meter` of Hadoop's KMS, with the operations that mark it.
METERS: Mapping[str, tuple[str, ...]] = {
    "admin": (
        *("CREATE_KEY", "DELETE_KEY", "ROLL_NEW_VERSION", "INVALIDATE_CACHE", "GET_KEYS", "GET_KEYS_METADATA"),
        "GET_METADATA",
    ),
    "key": ("GET_CURRENT_KEY", "GET_KEY_VERSION", "GET_KEY_VERSIONS"),
    "generate_eek": ("GENERATE_EEK",),
    "decrypt_eek": ("DECRYPT_EEK",),
    "reencrypt_eek": ("REENCRYPT_EEK",),
    "reencrypt_eek_batch": ("REENCRYPT_EEK_BATCH",),
    "invalid": (),
    "unauthorized": (),
    "unauthenticated": (),
}
_METER_OUTCOMES = {"invalid": (DENIED, FAILED), "unauthorized": (DENIED,), "unauthenticated": (UNAUTHENTICATED,)}
RATE_MINUTES = (1, 5, 15)
# Dropwizard's meters are brought up to date as often.
METER_TICK_S = 5.0


def _cells_of() -> tuple[dict[object, int], int]:
    """The place of everything in a block, and how many cells a block has."""
    places: dict[object, int] = {}
    size = 0
    sized: list[tuple[object, int]] = [(name, 1) for name in ("pid", "slot", "started_ms", "connections", *COUNTERS)]
    sized += [((operation, outcome), 1) for operation in OPERATIONS for outcome in OUTCOMES]
    sized += [(("identity", identity), 1) for identity in IDENTITIES]
    sized += [(("latency", operation), _HISTOGRAM_CELLS) for operation in OPERATIONS]
    sized += [(("store", work), _HISTOGRAM_CELLS) for work in STORE_WORK]
    sized += [(TRANSIT_CALL, _HISTOGRAM_CELLS), (TRANSIT_BATCH, len(BATCH_ITEMS) + 2)]
    sized += [(("rate", meter), len(RATE_MINUTES)) for meter in METERS]
    for name, cells in sized:
        places[name] = size
        size += cells
    return places, size


_PLACES, _BLOCK_CELLS = _cells_of()
_CELL_BYTES = 8


@dataclass(frozen=True, slots=True)
class LivingProcess:
    """A worker process that serves now."""

    pid: int
    slot: int
    started_ms: int
    connections: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observations by bucket (`BUCKETS_S` or other ends, and one more; not cumulative), and their sum: seconds, unless
    something else is counted."""

    buckets: tuple[int, ...]
    sum_s: float


class MetricsTable:
    """The shared memory; made before the fork for `processes` worker processes."""

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self.created_s = time.time()
        self._memory = mmap.mmap(-1, (processes + 1) * _BLOCK_CELLS * _CELL_BYTES)

    def worker(self, process: int, slot: int) -> Metrics:
        """The block of the worker process with this number, which is the caller."""
        metrics = Metrics(self, self._block(process))
        metrics.begin(slot)
        return metrics

    def count_crash(self) -> None:
        """In the master: a worker died unasked."""
        self._block(self.processes)[_PLACES["worker_crashes"]] += 1

    def total(self, name: object) -> int:
        """A counter, over all processes that ever were. `name` is of `COUNTERS`, or a pair as below."""
        place = _PLACES[name]
        return sum(block[place] for block in self._blocks())

    def requests(self, operation: str, outcome: str) -> int:
        """Requests of one operation that ended so."""
        return self.total((operation, outcome))

    def identified(self, identity: str) -> int:
        """Requests whose caller was identified so."""
        return self.total(("identity", identity))

    def latency(self, operation: str) -> Histogram:
        """How long the server took over requests of an operation."""
        return self._histogram(("latency", operation))

    def store_latency(self, work: str) -> Histogram:
        """How long the key store took: `read` or `change`."""
        return self._histogram(("store", work))

    def transit_latency(self) -> Histogram:
        """How long calls to Vault Transit for EDEKs took."""
        return self._histogram(TRANSIT_CALL)

    def transit_batches(self) -> Histogram:
        """How many EDEKs those calls carried, by `BATCH_ITEMS`; the sum is of EDEKs."""
        place, cells = _PLACES[TRANSIT_BATCH], len(BATCH_ITEMS) + 2
        found = [
            sum(column) for column in zip(*(block[place : place + cells] for block in self._blocks()), strict=True)
        ]
        return Histogram(tuple(found[:-1]), found[-1])

    def meter(self, name: str) -> int:
        """The count of one of Hadoop's meters."""
        return sum(self.total(cell) for cell in _meter_cells(name))

    def rate(self, name: str, number: int) -> float:
        """Events per second of a meter, averaged over `RATE_MINUTES[number]`."""
        place = _PLACES["rate", name] + number
        return sum(block[place] for block in self._living()) / 1e6

    def living(self) -> list[LivingProcess]:
        """The worker processes that serve now."""
        names = ("pid", "slot", "started_ms", "connections")
        return [LivingProcess(*(block[_PLACES[name]] for name in names)) for block in self._living()]

    def _histogram(self, name: object) -> Histogram:
        place = _PLACES[name]
        of_each = [block[place : place + _HISTOGRAM_CELLS] for block in self._blocks()]
        cells = [sum(cells) for cells in zip(*of_each, strict=True)]
        return Histogram(tuple(cells[:-1]), cells[-1] / 1e9)

    def _block(self, number: int) -> memoryview:
        cells = memoryview(self._memory).cast("Q")
        return cells[number * _BLOCK_CELLS : (number + 1) * _BLOCK_CELLS]

    def _blocks(self) -> Iterator[memoryview]:
        return map(self._block, range(self.processes + 1))

    def _living(self) -> Iterator[memoryview]:
        return (block for block in self._blocks() if _is_alive(block[_PLACES["pid"]]))


class _Tally:
    """Requests of one operation, outcome and identity since the last flush."""

    __slots__ = ("buckets", "count", "eeks", "elapsed_s", "places")

    def __init__(self, places: tuple[int, int, int, int]) -> None:
        self.places = places
        self.count = self.eeks = 0
        self.elapsed_s = 0.0
        self.buckets: list[int] = []


class Metrics:
    """One worker process's counters. Used on the event loop only."""

    def __init__(self, table: MetricsTable, block: memoryview) -> None:
        self.table = table
        self._block = block
        self._tallies: dict[tuple[str, str, str], _Tally] = {}
        self._unflushed: list[_Tally] = []
        self._seen = dict.fromkeys(METERS, 0)
        self._copied: dict[str, int] = {}
        self._meters_due_s = 0.0

    def begin(self, slot: int) -> None:
        """This process serves from now on."""
        block = self._block
        block[_PLACES["pid"]], block[_PLACES["slot"]] = os.getpid(), slot
        block[_PLACES["started_ms"]], block[_PLACES["connections"]] = time.time_ns() // 1_000_000, 0
        self.add("worker_starts")
        for meter in METERS:
            place = _PLACES["rate", meter]
            block[place : place + len(RATE_MINUTES)] = memoryview(bytes(8 * len(RATE_MINUTES))).cast("Q")
            self._seen[meter] = sum(block[_PLACES[cell]] for cell in _meter_cells(meter))

    def end(self) -> None:
        """This process serves no longer."""
        self.flush()
        self._block[_PLACES["pid"]] = 0

    def request(self, decision: Decision, elapsed_s: float) -> None:
        """Counts one request that was decided, and how long that took. It is in the table after `flush`."""
        kind = (decision.op, decision.outcome, decision.identity)
        tally = self._tallies.get(kind)
        if tally is None:
            tally = self._tallies[kind] = _Tally(_request_places(*kind))
        if not tally.count:
            self._unflushed.append(tally)
        tally.count += 1
        tally.elapsed_s += elapsed_s
        tally.buckets.append(bisect_left(BUCKETS_S, elapsed_s))
        items = decision.item_count
        tally.eeks += 1 if items is None else items

    def flush(self) -> None:
        """Brings what was counted to the table."""
        block = self._block
        for tally in self._unflushed:
            count, identity, latency, eeks = tally.places
            block[count] += tally.count
            block[identity] += tally.count
            for bucket in tally.buckets:
                block[latency + bucket] += 1
            block[latency + _HISTOGRAM_CELLS - 1] += int(tally.elapsed_s * 1e9)
            if eeks >= 0:
                block[eeks] += tally.eeks
            tally.count = tally.eeks = 0
            tally.elapsed_s = 0.0
            tally.buckets.clear()
        self._unflushed.clear()

    def store(self, work: str, elapsed_s: float, failed: bool) -> None:
        """Counts one read or change of the key store."""
        place = _PLACES["store", work]
        self._block[place + bisect_left(BUCKETS_S, elapsed_s)] += 1
        self._block[place + _HISTOGRAM_CELLS - 1] += int(elapsed_s * 1e9)
        if failed:
            self.add("store_errors")

    def transit_call(self, items: int, elapsed_s: float, failed: bool) -> None:
        """Counts one call to Vault Transit."""
        block, call, batch = self._block, _PLACES[TRANSIT_CALL], _PLACES[TRANSIT_BATCH]
        block[call + bisect_left(BUCKETS_S, elapsed_s)] += 1
        block[call + _HISTOGRAM_CELLS - 1] += int(elapsed_s * 1e9)
        block[batch + bisect_left(BATCH_ITEMS, items)] += 1
        block[batch + len(BATCH_ITEMS) + 1] += items
        if failed:
            self.add("transit_call_failures")

    def add(self, name: str, amount: int = 1) -> None:
        """Counts one of `COUNTERS`."""
        self._block[_PLACES[name]] += amount

    def copy(self, name: str, value: int) -> None:
        """As `add`, for what this process counts elsewhere: adds what is new since the last copy."""
        self.add(name, value - self._copied.get(name, 0))
        self._copied[name] = value

    def set_connections(self, number: int) -> None:
        """How many connections are open."""
        self._block[_PLACES["connections"]] = number

    def tick(self, now_s: float) -> None:
        """Brings the meters' rates up to date when that is due; `now_s` is any clock."""
        self.flush()
        if now_s < self._meters_due_s:
            return
        first = not self._meters_due_s
        self._meters_due_s = now_s + METER_TICK_S
        for meter in METERS:
            count = sum(self._block[_PLACES[cell]] for cell in _meter_cells(meter))
            rate = (count - self._seen[meter]) / METER_TICK_S
            self._seen[meter] = count
            if not first:
                self._average(meter, rate)

    def _average(self, meter: str, rate: float) -> None:
        # com.codahale.metrics.EWMA. Kept in millionths, because the cells are whole numbers.
        for number, minutes in enumerate(RATE_MINUTES):
            place = _PLACES["rate", meter] + number
            before = self._block[place] / 1e6
            alpha = 1 - math.exp(-METER_TICK_S / (60 * minutes))
            self._block[place] = max(0, int((before + alpha * (rate - before)) * 1e6))


def _request_places(op: str, outcome: str, identity: str) -> tuple[int, int, int, int]:
    operation = op if op in OPERATIONS else "OTHER"
    eeks = {
        "GENERATE_EEK": "eeks_generated",
        "DECRYPT_EEK": "eeks_decrypted",
        "REENCRYPT_EEK": "eeks_reencrypted",
        "REENCRYPT_EEK_BATCH": "eeks_reencrypted",
    }.get(operation)
    return (
        _PLACES[operation, outcome],
        _PLACES["identity", identity],
        _PLACES["latency", operation],
        _PLACES[eeks] if eeks is not None and outcome == OK else -1,
    )


def _meter_cells(meter: str) -> list[tuple[str, str]]:
    operations = METERS[meter] or OPERATIONS
    return [(operation, outcome) for operation in operations for outcome in _METER_OUTCOMES.get(meter, OUTCOMES)]


def _is_alive(pid: int) -> bool:
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
