"""What the loop knows, as one immutable value that the API reads.

The loop publishes a new `Snapshot` after each cycle, and the event stream what it sees in between; a reader takes the
current one and works on it alone, so an answer never mixes two looks at the cluster. Liveness is about the loop (did a
cycle end lately, however it went), readiness about the job (is there a look at the cluster fresh enough to use).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ringfence_agent.budgets import BudgetView
from ringfence_agent.enforce import sort_findings
from ringfence_agent.events.findings import event_findings
from ringfence_agent.events.watcher import EventView
from ringfence_agent.reverts import CaseState
from ringfence_agent.turn import TurnView
from ringfence_zones.errors import NameNodeUnavailableError
from ringfence_zones.findings import Finding
from ringfence_zones.model import ClusterState, EncryptionZone
from ringfence_zones.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The end of one cycle. Times are of the monotonic clock, in seconds.

    `state`, `policy` and `observed_s` are those of the last successful look, None before the first: they outlive
    cycles that failed, and `Board.fresh_state` says when they are too old to use.
    """

    cycle: int
    sentence: str
    finished_s: float
    state: ClusterState | None = None
    policy: Policy | None = None
    observed_s: float | None = None
    findings: tuple[Finding, ...] = field(default=())
    """Of the cycle and of the event stream."""
    events: EventView | None = None
    """Where the agent is in the event stream, and the renames it saw; None without one."""
    turn: TurnView | None = None
    budgets: BudgetView | None = None


class Board:
    """Holds the current snapshot. The loop writes cycles and the event stream its views; any number read. Replacing a
    reference is atomic, so a reader needs no lock."""

    def __init__(self, stale_after_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stale_after_s = stale_after_s
        self._snapshot = self._cycle = Snapshot(cycle=0, sentence="no cycle has ended yet", finished_s=clock())
        self._events: EventView | None = None
        self._lock = threading.Lock()

    @property
    def snapshot(self) -> Snapshot:
        """The latest snapshot."""
        return self._snapshot

    def publish(self, snapshot: Snapshot) -> None:
        """The end of a cycle, with its own findings; called by the loop alone."""
        with self._lock:
            self._cycle = snapshot
            self._combine()

    def publish_events(self, view: EventView) -> None:
        """What the event stream shows, as soon as it does."""
        with self._lock:
            self._events = view
            self._combine()

    def _combine(self) -> None:
        if self._events is None:
            self._snapshot = self._cycle
            return
        findings = sort_findings([*self._cycle.findings, *event_findings(self._events)])
        self._snapshot = replace(self._cycle, findings=findings, events=self._events)

    def cycle_age_s(self) -> float:
        """Seconds since a cycle last ended; before the first, since the agent started."""
        return self._clock() - self._snapshot.finished_s

    def observation_age_s(self) -> float | None:
        """Seconds since the cluster was last seen; None before the first look that succeeded."""
        observed_s = self._snapshot.observed_s
        return None if observed_s is None else self._clock() - observed_s

    def events_age_s(self) -> float | None:
        """Seconds since the event stream was last read; None before the first time."""
        events = self._snapshot.events
        return None if events is None or events.seen_s is None else self._clock() - events.seen_s

    def is_live(self) -> bool:
        """Whether the loop runs: a cycle ended within `stale_after`."""
        return self.cycle_age_s() <= self._stale_after_s

    def is_ready(self) -> bool:
        """Whether questions are answered: the cluster was seen within `stale_after`."""
        observed_s = self._snapshot.observed_s
        return observed_s is not None and self._clock() - observed_s <= self._stale_after_s

    def status_json(self) -> dict[str, Any]:
        """Event stream, lease and budgets, for the status; null what is not known yet."""
        snapshot = self._snapshot
        return {
            "events": _events_json(snapshot.events, self.events_age_s()) if snapshot.events is not None else None,
            "lease": snapshot.turn.to_json() if snapshot.turn is not None else None,
            "budgets": snapshot.budgets.to_json() if snapshot.budgets is not None else None,
        }

    def fresh_state(self) -> ClusterState:
        """The cluster as last seen. Raises NameNodeUnavailableError when that is too long ago: better no answer
        than one about zones that may have changed."""
        snapshot = self._snapshot
        if snapshot.state is None or snapshot.observed_s is None:
            raise NameNodeUnavailableError(
                "the agent has not seen the cluster yet", hint=f"its last cycle said: {snapshot.sentence}"
            )
        age_s = self._clock() - snapshot.observed_s
        if age_s > self._stale_after_s:
            raise NameNodeUnavailableError(
                f"the agent last saw the cluster {age_s:.0f} s ago and answers for {self._stale_after_s:.0f} s only",
                hint=f"its last cycle said: {snapshot.sentence}",
            )
        return snapshot.state

    def zones(self) -> tuple[EncryptionZone, ...]:
        """The encryption zones, fresh. Raises as `fresh_state`."""
        return self.fresh_state().zones


def _events_json(view: EventView, age_s: float | None) -> dict[str, Any]:
    return {
        "position": view.txid,
        "lag": view.lag,
        "age_s": round(age_s, 3) if age_s is not None else None,
        "problem": view.problem,
        "open_cases": sum(case.state is CaseState.OPEN for case in view.cases),
    }
