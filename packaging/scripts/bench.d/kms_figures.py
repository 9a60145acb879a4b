"""Everything measured on the key servers, and the order in which it is measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flow_rules import FlowFigures, measure_flow_rules
from kms_servers import JAVA, Java, Ringfence
from latency import Latency, measure_latency
from many_keys import ManyKeys, measure_many_keys
from protectors import ProtectorFigures, measure_protectors
from sandbox import Sandbox
from startup import Startup, measure_startup
from throughput import FULL, PLAIN, QUICK, SLOW, Effort, Throughput, measure_throughput
from transit import TransitFigures, measure_transit
from workers import Workers, measure_workers

PARTS = ("throughput", "tls", "uncached", "start", "workers", "keys", "protectors", "transit", "flows")


@dataclass(slots=True)
class KmsFigures:
    """None is what was not measured. Mappings are by server name."""

    plain: Throughput | None = None
    tls: Throughput | None = None
    uncached: Throughput | None = None
    latency: Mapping[str, Latency] | None = None
    startup: Mapping[str, Startup] | None = None
    workers: Workers | None = None
    keys: Mapping[str, ManyKeys] | None = None
    protectors: ProtectorFigures | None = None
    transit: TransitFigures | None = None
    flows: FlowFigures | None = None
    audited_requests: int = 0


class KmsBench:
    """Measures what is asked for. `stock` lends its Hadoop; every server has a directory of its own in `scratch`."""

    def __init__(
        self, program: Path, stock: Sandbox, scratch: Path, *, quick: bool, say: Callable[[str], None]
    ) -> None:
        self._program = program
        self._stock = stock
        self._scratch = scratch
        self._quick = quick
        self._say = say

    def measure(self, parts: Collection[str]) -> KmsFigures:
        """Raises BenchError when the measurement cannot be trusted."""
        figures = KmsFigures()
        if "throughput" in parts:
            self._measure_plain(figures)
        if "tls" in parts:
            figures.tls = self._measure_pair("tls", QUICK if self._quick else FULL, figures, tls=True)
        if "uncached" in parts:
            figures.uncached = self._measure_pair("uncached", QUICK if self._quick else SLOW, figures, cache=False)
        if "start" in parts:
            kinds = (self._ringfence("start"), self._java("start"))
            figures.startup = measure_startup(kinds, rounds=1 if self._quick else 5, say=self._say)
        if "workers" in parts:
            rounds, round_s = (1, 1.0) if self._quick else (7, 3.0)
            figures.workers = measure_workers(
                self._program, self._scratch, rounds=rounds, round_s=round_s, say=self._say
            )
        if "keys" in parts:
            ours, theirs = (20, 4) if self._quick else (1000, 30)
            figures.keys = {
                kind.name: measure_many_keys(kind, count, self._say)
                for kind, count in ((self._ringfence("keys"), ours), (self._java("keys"), theirs))
            }
        if "protectors" in parts:
            keys, effort = (20, QUICK) if self._quick else (1000, replace(FULL, rounds=9))
            figures.protectors = measure_protectors(self._program, self._scratch, keys, effort, self._say)
        if "transit" in parts:
            rounds, round_s = (1, 2.0) if self._quick else (5, 5.0)
            figures.transit = measure_transit(
                self._program, self._scratch, rounds=rounds, round_s=round_s, say=self._say
            )
        if "flows" in parts:
            effort = QUICK if self._quick else replace(FULL, rounds=9)
            figures.flows = measure_flow_rules(self._program, self._scratch, effort, self._say)
        return figures

    def _measure_plain(self, figures: KmsFigures) -> None:
        with self._ringfence("plain").running() as ours, self._java("plain").running() as java:
            effort = QUICK if self._quick else FULL
            figures.plain = measure_throughput([ours, java], PLAIN, effort, self._say)
            capacity = figures.plain.samples["decrypt"][JAVA].rate
            assert capacity is not None
            rounds, round_s = (1, 2) if self._quick else (7, 4)
            figures.latency = measure_latency(
                [ours, java], capacity.median / 2, rounds=rounds, round_s=round_s, say=self._say
            )
            figures.audited_requests += ours.audit.seen if ours.audit else 0

    def _measure_pair(
        self, label: str, effort: Effort, figures: KmsFigures, *, tls: bool = False, cache: bool = True
    ) -> Throughput:
        with (
            self._ringfence(label, tls=tls, cache=cache).running() as ours,
            self._java(label, tls=tls, cache=cache).running() as java,
        ):
            found = measure_throughput([ours, java], ("decrypt",), effort, self._say)
            figures.audited_requests += ours.audit.seen if ours.audit else 0
        return found

    def _ringfence(self, label: str, *, tls: bool = False, cache: bool = True) -> Ringfence:
        return Ringfence(self._program, self._scratch / f"ringfence-{label}", tls=tls, cache=cache)

    def _java(self, label: str, *, tls: bool = False, cache: bool = True) -> Java:
        return Java(
            self._stock.hadoop_home,
            self._stock.directory / "conf" / "audit-log4j.properties",
            self._scratch / f"java-{label}",
            self._stock.environment,
            tls=tls,
            cache=cache,
        )
