"""Acts: carries out what `enforce` decided, so that a kill at any moment leaves nothing lost.

Order of a pin, each step safe to repeat:

1. Remember which entries will be the agent's (a crash after this at worst claims an entry that is not there).
2. Edit `core-site.xml` (atomic; nothing happens to it otherwise).
3. Tell every NameNode to reload, and wait for each to say that it did.
4. Believe what the running NameNodes hold, not what was written.
5. Forget what is no longer the agent's.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Sequence

from ringfence_agent.pins import PROPERTY, PinFile, PinMemory, PinPlan, canonical_entry, edit_pin_file
from ringfence_agent.steps import OnStep, unheard
from ringfence_zones.errors import HdfsError, RingfenceError
from ringfence_zones.hdfs_interface import WatchedHdfs
from ringfence_zones.namenodes import NameNodeAddress

_POLL_S = 0.05


class PinStep(enum.StrEnum):
    """See `steps`; of a change of pins, in order."""

    REMEMBERED = "remembered"  # what will be the agent's is in its memory
    EDITED = "edited"  # core-site.xml has the new value
    STARTED = "started"  # a NameNode was told to reload, and has not said yet that it did
    RELOADED = "reloaded"  # every NameNode has the new value
    FORGOTTEN = "forgotten"  # what is no longer the agent's is out of its memory


class Pinner:
    """Carries out pin plans. `pause` waits between two looks at a NameNode; it may raise to end the wait early."""

    def __init__(
        self,
        hdfs: WatchedHdfs,
        memory: PinMemory,
        *,
        timeout_s: float,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        on_step: OnStep = unheard,
    ) -> None:
        self._hdfs = hdfs
        self._memory = memory
        self._on_step = on_step
        self._timeout_s = timeout_s
        self._pause = pause
        self._clock = clock

    def carry_out(self, plan: PinPlan, file: PinFile, owned: frozenset[str]) -> None:
        """Makes the plan true on every NameNode. Raises ConfigError or the HdfsError family with what failed; what
        was done by then stays and the next plan goes on from there."""
        if plan.changes_cluster:
            self._memory.save(owned | plan.owned)
            self._on_step(PinStep.REMEMBERED)
            if plan.edits_file:
                edit_pin_file(file.path, file.entries, plan)
                self._on_step(PinStep.EDITED)
            self._reload_all()
            self._verify(plan, file)
            self._on_step(PinStep.RELOADED)
        self._memory.save(plan.owned)
        self._on_step(PinStep.FORGOTTEN)

    def make_sticky(self, directories: Sequence[str]) -> None:
        """Adds the sticky bit to directories. Raises the HdfsError family with the first that failed."""
        for directory in directories:
            self._hdfs.add_sticky_bit(directory)

    def _reload_all(self) -> None:
        failures: list[str] = []
        for namenode in self._hdfs.namenodes:
            try:
                self._reload(namenode)
            except RingfenceError as error:
                # One NameNode that is down must not keep the other one unpinned.
                failures.append(f"{namenode.rpc}: {error.message}")
        if failures:
            raise HdfsError(f"not every NameNode reloaded {PROPERTY}: {'; '.join(failures)}")

    def _reload(self, namenode: NameNodeAddress) -> None:
        deadline = self._clock() + self._timeout_s
        self._await_idle(namenode, deadline)  # somebody else's reload: a second one would be refused
        self._hdfs.start_reconfiguration(namenode)
        self._on_step(PinStep.STARTED)
        self._await_idle(namenode, deadline)
        for change in self._hdfs.reconfiguration_status(namenode).changes:
            if change.name == PROPERTY and change.error is not None:
                raise HdfsError(f"the NameNode refused the new value: {change.error}")

    def _await_idle(self, namenode: NameNodeAddress, deadline: float) -> None:
        while self._hdfs.reconfiguration_status(namenode).running:
            if self._clock() > deadline:
                raise HdfsError(f"it did not finish reloading within {self._timeout_s:g} s")
            self._pause(_POLL_S)

    def _verify(self, plan: PinPlan, file: PinFile) -> None:
        live = self._hdfs.protected_directories()
        if live is None:
            return  # no NameNode tells: the reload's own report was good
        held = {canonical_entry(entry) for entry in live}
        missing = sorted(plan.owned - held)
        lingering = sorted(set(plan.removed) & held)
        if missing or lingering:
            holds = ", ".join(sorted(held)) or "nothing"
            raise HdfsError(
                f"the NameNodes reloaded and do not follow {file.path}: they hold {holds}",
                hint="namenode_conf_dir in agent.yaml must be the directory that the NameNode on this machine reads",
            )
