"""The metrics in Prometheus' text format, at `/metrics`.

Names begin with `ringfence_kms_`. Any worker answers for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from ringfence_agent.kms.monitoring.metrics import (
    BATCH_ITEMS,
    BUCKETS_S,
    COUNTERS,
    IDENTITIES,
    OPERATIONS,
    OUTCOMES,
    STORE_WORK,
    Histogram,
    MetricsTable,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "ringfence_kms_"


def render(table: MetricsTable, gauges: dict[str, tuple[str, float]]) -> bytes:
    """The text. `gauges` are values that are not counted in the table: name -> help and value."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(table, gauges))
    return generate_latest(registry)


class _Collector:
    def __init__(self, table: MetricsTable, gauges: dict[str, tuple[str, float]]) -> None:
        self._table = table
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        table = self._table
        requests = CounterMetricFamily(
            _PREFIX + "requests", "Requests by operation and outcome.", labels=("op", "outcome")
        )
        seconds = HistogramMetricFamily(
            _PREFIX + "request_seconds", "How long the server took over a request.", labels=("op",)
        )
        for op in OPERATIONS:
            counts = {outcome: table.requests(op, outcome) for outcome in OUTCOMES}
            if any(counts.values()):
                for outcome, count in counts.items():
                    requests.add_metric((op, outcome), count)
                _add_histogram(seconds, (op,), table.latency(op))
        yield requests
        yield seconds
        identified = CounterMetricFamily(
            _PREFIX + "authentications", "Requests by how strongly their caller was proven.", labels=("identity",)
        )
        for identity in IDENTITIES:
            identified.add_metric((identity,), table.identified(identity))
        yield identified
        store = HistogramMetricFamily(_PREFIX + "store_seconds", "How long the key store took.", labels=("work",))
        for work in STORE_WORK:
            _add_histogram(store, (work,), table.store_latency(work))
        yield store
        calls = HistogramMetricFamily(
            _PREFIX + "transit_call_seconds", "How long calls to Vault Transit for EDEKs took.", labels=()
        )
        _add_histogram(calls, (), table.transit_latency())
        yield calls
        batches = HistogramMetricFamily(
            _PREFIX + "transit_batch_items", "How many EDEKs one call to Vault Transit carried.", labels=()
        )
        _add_histogram(batches, (), table.transit_batches(), BATCH_ITEMS)
        yield batches
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(_PREFIX + name, text, value=table.total(name))
        living = table.living()
        yield GaugeMetricFamily(_PREFIX + "workers", "Worker processes that serve now.", value=len(living))
        connections = sum(process.connections for process in living)
        yield GaugeMetricFamily(_PREFIX + "connections", "Connections that are open.", value=connections)
        for name, (text, value) in self._gauges.items():
            yield GaugeMetricFamily(_PREFIX + name, text, value=value)


def _add_histogram(
    family: HistogramMetricFamily,
    labels: tuple[str, ...],
    histogram: Histogram,
    ends: Sequence[float] = BUCKETS_S,
) -> None:
    total = 0
    buckets = []
    for end_s, count in zip((*map(str, ends), "+Inf"), histogram.buckets, strict=True):
        total += count
        buckets.append((end_s, total))
    family.add_metric(labels, buckets, histogram.sum_s)
