"""Looks at what a case is about, has `reverts` decide, and renames back.

The intent is written down (`note`) before HDFS is asked.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ringfence_agent.events.cases import end
from ringfence_agent.reverts import (
    Back,
    Case,
    CaseState,
    Facts,
    Leave,
    Revert,
    Rules,
    Wait,
    count_recent,
    decide_revert,
)
from ringfence_agent.steps import OnStep, unheard
from ringfence_zones.errors import NameNodeUnavailableError, RingfenceError, SafeModeError
from ringfence_zones.hdfs_interface import WatchedHdfs

_log = logging.getLogger("ringfence_agent.events")

_LOOK_AGAIN_S = 1.0


class RevertStep(enum.StrEnum):
    """See `steps`; of a revert, in order."""

    SEEN = "seen"  # the case is in the file
    INTENDED = "intended"  # that HDFS will be asked is in the file
    ASKED = "asked"  # HDFS has renamed it
    CLOSED = "closed"  # the end of the case is in the file


class Reverter:
    """See the module. `is_my_turn` says whether this agent may act. Belongs to the watcher's thread."""

    def __init__(
        self,
        hdfs: WatchedHdfs,
        is_my_turn: Callable[[], bool],
        *,
        on_step: OnStep = unheard,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._hdfs = hdfs
        self._is_my_turn = is_my_turn
        self._on_step = on_step
        self._clock = clock
        self._wall_clock = wall_clock
        self._not_before_s: dict[tuple[int, str], float] = {}

    def settle(
        self,
        case: Case,
        cases: Sequence[Case],
        policy_roots: frozenset[str] | None,
        *,
        enforce: bool,
        revert: bool,
        note: Callable[[Case], None],
    ) -> Case:
        """The case as it is afterwards; itself when there is nothing to do yet. `note` saves it in between.

        Raises the `HdfsError` family when HDFS does not tell what is where.
        """
        my_turn = self._is_my_turn()
        if self._clock() < self._not_before_s.get(case.id, 0.0):
            return case
        self._on_step(RevertStep.SEEN)
        facts = self._look(case)
        if case.inode is None and facts.target is not None:
            case = replace(case, inode=facts.target.inode)
        rules = Rules(
            enforce=enforce,
            revert=revert,
            my_turn=my_turn,
            policy_roots=policy_roots,
            recent_reverts=count_recent(cases, case.source, self._wall_clock()),
        )
        match decide_revert(case, facts, rules):
            case Back():
                state = CaseState.REVERTED if case.tried_s is not None else CaseState.RESTORED
                return end(case, state, self._wall_clock())
            case Leave(why):
                _log.warning("left where it is: %s, which was %s: %s", case.target, case.source, why)
                return replace(case, state=CaseState.LEFT, why=why)
            case Wait(why):
                self._not_before_s[case.id] = self._clock() + _LOOK_AGAIN_S
                return case if case.why == why else replace(case, why=why)
            case Revert(inode, destination):
                return self._rename_back(case, inode, destination, note)

    def closed(self, case: Case) -> None:
        """A case as `settle` gave it is on disk."""
        if case.state is not CaseState.OPEN:
            self._not_before_s.pop(case.id, None)
            self._on_step(RevertStep.CLOSED)

    def _look(self, case: Case) -> Facts:
        paths = {place for root in case.roots for place in (root.home, root.path)}
        entries = {path: self._hdfs.find_entry(path) for path in sorted(paths)}
        source = entries[case.source] if case.source in entries else self._hdfs.find_entry(case.source)
        target = entries[case.target] if case.target in entries else self._hdfs.find_entry(case.target)
        return Facts(source, target, entries)

    def _rename_back(self, case: Case, inode: int, destination: str, note: Callable[[Case], None]) -> Case:
        intended = replace(case, tried_s=self._wall_clock(), why=None)
        note(intended)
        self._on_step(RevertStep.INTENDED)
        try:
            self._hdfs.rename_inode(inode, destination)
        except (NameNodeUnavailableError, SafeModeError) as error:
            # It may have been done all the same: the next look shows it.
            self._not_before_s[case.id] = self._clock() + _LOOK_AGAIN_S
            return replace(intended, why=error.message)
        except RingfenceError as error:
            return replace(intended, state=CaseState.LEFT, why=f"HDFS refused: {error.message}")
        self._on_step(RevertStep.ASKED)
        _log.warning("renamed back: %s, which was renamed to %s", destination, case.target)
        return end(intended, CaseState.REVERTED, self._wall_clock())
