"""What the loop knows, as one immutable value that the API reads.

The loop publishes a new `Snapshot` after each cycle; a reader takes the current one and works on it alone, so an
answer never mixes two looks at the cluster. Liveness is about the loop (did a cycle end lately, however it went),
readiness about the job (is there a look at the cluster fresh enough to answer from).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

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


class Board:
    """Holds the current snapshot. One writer, any number of readers; replacing a reference is atomic."""

    def __init__(self, stale_after_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stale_after_s = stale_after_s
        self._snapshot = Snapshot(cycle=0, sentence="no cycle has ended yet", finished_s=clock())

    @property
    def snapshot(self) -> Snapshot:
        """The latest snapshot."""
        return self._snapshot

    def publish(self, snapshot: Snapshot) -> None:
        """Replaces the snapshot; called by the loop alone."""
        self._snapshot = snapshot

    def cycle_age_s(self) -> float:
        """Seconds since a cycle last ended; before the first, since the agent started."""
        return self._clock() - self._snapshot.finished_s

    def is_live(self) -> bool:
        """Whether the loop runs: a cycle ended within `stale_after`."""
        return self.cycle_age_s() <= self._stale_after_s

    def is_ready(self) -> bool:
        """Whether questions are answered: the cluster was seen within `stale_after`."""
        observed_s = self._snapshot.observed_s
        return observed_s is not None and self._clock() - observed_s <= self._stale_after_s

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
