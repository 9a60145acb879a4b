"""What the agent tells Prometheus, at `/metrics`: the loop, what it found, pins, questions about moves.

Rules:

1. Read from what the agent holds anyway, at the moment of asking; nothing is asked of the NameNode or the KMS.
2. The labels are `rule`, `severity`, `mode`, `state` and `outcome`, all from closed lists. No path, user, key or
   address is a label: there may be any number of them, and they are nobody's business who may read rates.
3. Behind the gate like everything else: Prometheus has a role, and proves it as everybody does.

Names begin with `ringfence_agent_`; the process's own (`process_cpu_seconds_total`, `process_resident_memory_bytes`, …)
are those of Prometheus' client library. Java's memory is a child's: `memory_bytes` has it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from starlette.responses import Response

from ringfence_agent.api.refused_moves import MoveRecord
from ringfence_agent.budgets import BudgetView
from ringfence_agent.events.watcher import EventView
from ringfence_agent.reverts import CaseState
from ringfence_agent.snapshot import Board, Snapshot
from ringfence_agent.transfer.record import State, Tally

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "ringfence_agent_"
_MODES = ("observe", "enforce", "none")


def router(board: Board, moves: MoveRecord, tally: Callable[[], Tally]) -> APIRouter:
    """`/metrics`. `tally` counts transfers; it may block."""
    routes = APIRouter(tags=["metrics"])

    @routes.get("/metrics", response_class=Response, summary="For Prometheus")
    async def metrics() -> Response:
        """Prometheus' text format, version 0.0.4."""
        # Only that may wait, for somebody who writes.
        transfers = await asyncio.to_thread(tally)
        return Response(generate_latest(make_registry(board, moves, transfers)), media_type=CONTENT_TYPE)

    return routes


def make_registry(board: Board, moves: MoveRecord, transfers: Tally) -> CollectorRegistry:
    """Everything that `/metrics` tells now."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(board, moves, transfers))
    ProcessCollector(registry=registry)
    return registry


class _Collector:
    def __init__(self, board: Board, moves: MoveRecord, transfers: Tally) -> None:
        self._board = board
        self._moves = moves
        self._transfers = transfers

    def collect(self) -> Iterable[Metric]:
        snapshot = self._board.snapshot
        yield from self._loop(snapshot)
        yield from _cluster(snapshot)
        yield from self._questions()
        yield from _transfers(self._transfers)
        if snapshot.turn is not None:
            yield _gauge("acts", "1 while it is this agent's turn to act, not another's.", snapshot.turn.mine)
        if snapshot.budgets is not None:
            yield from _budgets(snapshot.budgets)
        if snapshot.events is not None:
            yield from _events(snapshot.events, self._board.events_age_s())

    def _loop(self, snapshot: Snapshot) -> Iterable[Metric]:
        board = self._board
        yield CounterMetricFamily(_PREFIX + "cycles", "Cycles that ended, however they went.", value=snapshot.cycle)
        yield _gauge("cycle_age_seconds", "Seconds since a cycle last ended.", board.cycle_age_s())
        observed_s = board.observation_age_s()
        if observed_s is not None:
            yield _gauge("observation_age_seconds", "Seconds since the cluster was last seen.", observed_s)
        yield _gauge("live", "1 while the loop runs.", board.is_live())
        yield _gauge("ready", "1 while the cluster was seen recently enough to answer from.", board.is_ready())
        mode = GaugeMetricFamily(_PREFIX + "mode", "1 for the mode that the policy sets.", labels=("mode",))
        current = snapshot.policy.agent.mode if snapshot.policy is not None else "none"
        for each in _MODES:
            mode.add_metric((each,), each == current)
        yield mode

    def _questions(self) -> Iterable[Metric]:
        yield CounterMetricFamily(
            _PREFIX + "moves_checked", "Questions about a move that were answered.", value=self._moves.checked
        )
        refused = CounterMetricFamily(
            _PREFIX + "moves_refused", "Those whose rename was refused, by rule.", labels=("rule",)
        )
        for rule, count in self._moves.refused_by_rule.items():
            refused.add_metric((rule.value,), count)
        yield refused


def _cluster(snapshot: Snapshot) -> Iterable[Metric]:
    findings = GaugeMetricFamily(
        _PREFIX + "findings", "What the last cycle found, by rule.", labels=("severity", "rule")
    )
    for (severity, rule), count in Counter((each.severity, each.rule) for each in snapshot.findings).items():
        findings.add_metric((severity.value, rule.value), count)
    yield findings
    state = snapshot.state
    if state is None:
        return
    yield _gauge("zones", "Encryption zones of the cluster.", len(state.zones))
    yield _gauge("kms_answers", "1 when the KMS answered at the last look.", state.kms is not None)
    if state.kms is not None and state.kms.revision is not None:
        yield _gauge("policy_revision", "The published policy that the KMS enforces.", state.kms.revision)
    if state.protected_directories is not None:
        pins = frozenset(state.protected_directories)
        yield _gauge("protected_directories", "Entries that the NameNodes protect, anybody's.", len(pins))
        pinned = sum(zone.path in pins for zone in state.zones)
        yield _gauge("zones_pinned", "Encryption zones whose root is among them.", pinned)


def _transfers(tally: Tally) -> Iterable[Metric]:
    under_way = {state.value: tally.by_state.get(state, 0) for state in State if not state.is_final}
    yield _labelled("transfers", "Transfers that have not ended, by state.", "state", under_way)
    ended = CounterMetricFamily(_PREFIX + "transfers_ended", "Transfers that ended, by outcome.", labels=("outcome",))
    for state in (State.DONE, State.FAILED):
        ended.add_metric((state.value,), tally.by_state.get(state, 0))
    yield ended
    yield CounterMetricFamily(
        _PREFIX + "transfer_verified_bytes",
        "Bytes that transfers copied and read back as they were.",
        value=tally.bytes_verified,
    )


def _events(view: EventView, age_s: float | None) -> Iterable[Metric]:
    if age_s is not None:
        yield _gauge("events_age_seconds", "Seconds since HDFS's event stream was last read.", age_s)
    if view.lag is not None:
        yield _gauge("events_behind", "Edits that HDFS has made and the agent has not read.", view.lag)
    yield _gauge("events_lost", "Gaps in the event stream, of the last day.", len(view.losses))
    renames = Counter(case.state for case in view.cases)
    yield _labelled(
        "zone_root_renames",
        "Renames of zone roots that got through and are open or left, and of the last day those that ended.",
        "state",
        {state.value: renames[state] for state in CaseState},
    )


def _budgets(view: BudgetView) -> Iterable[Metric]:
    yield _gauge("hdfs_calls_per_minute", "Calls to HDFS in the last minute.", view.hdfs_calls_per_minute)
    yield _gauge("cpu_percent", "Of one processor in the last minute, with both Java processes.", view.cpu_percent)
    yield _gauge("memory_bytes", "Resident memory, with both Java processes.", view.memory_bytes)
    yield _gauge("over_budget", "1 while a budget of agent.yaml is exceeded.", view.exceeded is not None)


def _labelled(name: str, text: str, label: str, values: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(_PREFIX + name, text, labels=(label,))
    for value, count in values.items():
        family.add_metric((value,), count)
    return family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, text, value=float(value))
