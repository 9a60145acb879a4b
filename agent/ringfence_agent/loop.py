"""The agent's loop: observe, decide, act; one sentence per cycle.

Rules:

1. A cycle survives whatever goes wrong in it: there is one broad catch, at the top, and the next cycle starts afresh.
   Only `FatalAgentError` passes: going on would be pointless or dangerous, and a supervisor should restart us.
2. Every cycle ends with one sentence, which is logged and published with what was found.
3. The cluster pays little: the loop rests at least four times as long as looks take, and a failed action is tried
   again with growing pauses.
4. What an act changed is looked at again at once; what an event woke it for, as soon as rule 3 lets it.
5. What it may cost is measured with every cycle (`budgets`), and it rests until it is within that.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
import traceback
from collections.abc import Callable, Sequence, Sized
from dataclasses import replace
from typing import Protocol

from ringfence_agent.budgets import BudgetView
from ringfence_agent.enforce import Decision, Observation, decide
from ringfence_agent.pins import PinFile, PinPlan
from ringfence_agent.snapshot import Board, Snapshot
from ringfence_agent.steps import OnStep, unheard
from ringfence_zones.errors import NameNodeUnavailableError, RingfenceError, SafeModeError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.policy import Policy

_log = logging.getLogger("ringfence_agent.cycle")

_REST_FACTOR = 4.0
_MAX_RETRY_S = 300.0
_WAKE_POLL_S = 0.1


class PolicyStep(enum.StrEnum):
    """See `steps`; of a policy that is another than that of the last look, in order."""

    READ = "read"  # nothing follows from it yet
    ADOPTED = "adopted"  # the event stream judges by it; nothing was done about it


class FatalAgentError(RingfenceError):
    """The agent must not go on; it ends, and whoever supervises it starts it anew."""


class LookAtCluster(Protocol):
    """What the loop needs of `observe.Observer`."""

    def observe(self, pin_error: str | None) -> Observation:
        """One look."""


class PinRoots(Protocol):
    """What the loop needs of `act.Pinner`."""

    def carry_out(self, plan: PinPlan, file: PinFile, owned: frozenset[str]) -> None:
        """Makes a plan true."""

    def make_sticky(self, directories: Sequence[str]) -> None:
        """Adds the sticky bit."""


class KeepWithin(Protocol):
    """What the loop needs of `budgets.Budgets`."""

    view: BudgetView

    def measure(self) -> bool:
        """Takes stock; False when it must not go on."""

    def pause_s(self) -> float:
        """How long to rest."""


class AgentLoop:
    """Runs cycles until told to stop. `checks` run first in each cycle and may raise FatalAgentError; `on_look` gets
    what each look showed; `longest_pause_s` is how long spent budgets may keep it from looking."""

    def __init__(
        self,
        observer: LookAtCluster,
        pinner: PinRoots,
        board: Board,
        *,
        interval_s: float,
        checks: tuple[Callable[[], None], ...] = (),
        budgets: KeepWithin | None = None,
        longest_pause_s: float = float("inf"),
        on_look: Callable[[Observation], None] = lambda _observation: None,
        clock: Callable[[], float] = time.monotonic,
        on_step: OnStep = unheard,
    ) -> None:
        self._observer = observer
        self._pinner = pinner
        self._board = board
        self._interval_s = interval_s
        self._checks = checks
        self._budgets = budgets
        self._longest_pause_s = longest_pause_s
        self._on_look = on_look
        self._on_step = on_step
        self._policy: Policy | None = None
        self._woken = threading.Event()
        self._clock = clock
        self._cycle = 0
        self._pin_error: str | None = None
        self._pin_failures = 0
        self._next_pin_s = 0.0
        self._acted = False
        # How long the last two cycles took: one slow one (Java starting) is an accident, two are the cost.
        self._took_s = (0.0, 0.0)

    def run(self, stop: threading.Event) -> None:
        """Cycles until `stop` is set. Raises FatalAgentError and nothing else."""
        while not stop.is_set():
            self.run_cycle(stop)
            self._rest(stop)

    def wake(self) -> None:
        """Asks for a look soon; of any thread."""
        self._woken.set()

    def _rest(self, stop: threading.Event) -> None:
        began_s = time.monotonic()
        until_s, soonest_s = began_s + self.rest_s(), began_s + self._least_rest_s()
        while (now_s := time.monotonic()) < until_s and not stop.is_set():
            if self._woken.is_set() and now_s >= soonest_s:
                break
            stop.wait(min(_WAKE_POLL_S, until_s - now_s))
        self._woken.clear()

    def rest_s(self) -> float:
        """How long to rest now, in seconds."""
        return self._pause_s() if self._acted else max(self._interval_s, self._least_rest_s())

    def _least_rest_s(self) -> float:
        return max(_REST_FACTOR * min(self._took_s), self._pause_s())

    def _pause_s(self) -> float:
        return min(self._budgets.pause_s(), self._longest_pause_s) if self._budgets is not None else 0.0

    def run_cycle(self, stop: threading.Event | None = None) -> str:
        """One cycle; returns its sentence. Raises FatalAgentError and nothing else.

        When `stop` was set meanwhile the calls under way were cut off on purpose: that is nobody's finding.
        """
        started_s = self._clock()
        self._cycle += 1
        self._acted = False
        try:
            for check in self._checks:
                check()
            self._keep_within()
            snapshot = self._observe_decide_act(started_s)
        except FatalAgentError:
            raise
        except RingfenceError as error:
            snapshot = self._unseen(error.message, _finding(error))
        except Exception as error:  # noqa: BLE001 - rule 1: the one broad catch
            where = traceback.extract_tb(error.__traceback__)[-1]
            sentence = f"a bug ended this cycle: {type(error).__name__} at {where.filename}:{where.lineno}"
            snapshot = self._unseen(sentence, _not_seen(sentence, "report it with the agent's log"))
        self._took_s = (self._took_s[1], self._clock() - started_s)
        if stop is None or not stop.is_set():
            self._board.publish(snapshot)
            self._report(snapshot)
        return snapshot.sentence

    def _observe_decide_act(self, started_s: float) -> Snapshot:
        observation = self._observer.observe(self._pin_error)
        self._hand_on(observation)
        decision = decide(observation)
        done = self._act(observation, decision)
        if done is None and self._pin_error is not None and observation.pin_error is None:
            # The attempt of this very cycle failed: say so now, not one cycle later.
            decision = decide(replace(observation, pin_error=self._pin_error))
        return Snapshot(
            cycle=self._cycle,
            sentence=_sentence(observation, decision, done),
            finished_s=self._clock(),
            state=observation.state,
            policy=observation.policy,
            observed_s=started_s,
            findings=decision.findings,
            turn=observation.turn,
            budgets=observation.budgets,
        )

    def _hand_on(self, observation: Observation) -> None:
        is_new = observation.policy is not self._policy
        self._policy = observation.policy
        if is_new:
            self._on_step(PolicyStep.READ)
        self._on_look(observation)
        if is_new:
            self._on_step(PolicyStep.ADOPTED)

    def _keep_within(self) -> None:
        if self._budgets is not None and not self._budgets.measure():
            raise FatalAgentError(
                f"the agent itself uses more memory than its budget ({self._budgets.view.memory_limit >> 20} MiB)",
                hint="raise budgets.memory in agent.yaml; whoever supervises the agent starts it anew",
            )

    def _act(self, observation: Observation, decision: Decision) -> str | None:
        """Carries the decision out; what was done, or None."""
        done = [each for each in (self._mend_trash(decision), self._pin(observation, decision)) if each is not None]
        return ", ".join(done) or None

    def _mend_trash(self, decision: Decision) -> str | None:
        if not decision.sticky:
            return None
        try:
            self._pinner.make_sticky(decision.sticky)
        except RingfenceError as error:
            # The finding stays, and every cycle tries again.
            _log.warning("the sticky bit was not set: %s", error.message)
            return None
        self._acted = True
        return f"set the sticky bit of {', '.join(decision.sticky)}"

    def _pin(self, observation: Observation, decision: Decision) -> str | None:
        """Carries a plan for pins out. A failure is remembered for the next decision."""
        plan = decision.pins
        if plan is None:
            self._pin_error, self._pin_failures = None, 0
            return None
        if self._clock() < self._next_pin_s and self._pin_failures:
            return None
        try:
            self._pinner.carry_out(plan, observation.pin_file, observation.owned)
        except RingfenceError as error:
            self._pin_failures += 1
            self._pin_error = error.message
            pause_s = min(self._interval_s * 2**self._pin_failures, _MAX_RETRY_S)
            self._next_pin_s = self._clock() + pause_s
            return None
        self._pin_error, self._pin_failures = None, 0
        self._acted = True
        return plan.describe()

    def _unseen(self, sentence: str, finding: Finding) -> Snapshot:
        """The end of a cycle that saw nothing: what was last seen stays, with its age."""
        last = self._board.snapshot
        return Snapshot(
            cycle=self._cycle,
            sentence=sentence,
            finished_s=self._clock(),
            state=last.state,
            policy=last.policy,
            observed_s=last.observed_s,
            findings=(finding,),
            turn=last.turn,
            budgets=last.budgets,
        )

    def _report(self, snapshot: Snapshot) -> None:
        worst = snapshot.findings[0].severity if snapshot.findings else None
        # What somebody else has to set goes into the log as well: `pin: print` is for hosts without a client.
        to_set = [each.hint for each in snapshot.findings if each.rule in (Rule.PINS_TO_SET, Rule.PIN_FAILED)]
        _log.log(
            logging.WARNING if worst is Severity.ERROR else logging.INFO,
            snapshot.sentence,
            extra={
                "fields": {
                    "cycle": snapshot.cycle,
                    "took_ms": round(self._took_s[1] * 1000),
                    "findings": len(snapshot.findings),
                    **({"to_set": to_set} if to_set else {}),
                }
            },
        )


def _sentence(observation: Observation, decision: Decision, done: str | None) -> str:
    mode: str = observation.policy.agent.mode if observation.policy else "no policy"
    if not observation.turn.mine:
        mode = f"{mode}, not acting ({observation.turn.state.value.replace('_', ' ')})"
    rules = sorted({finding.rule.value for finding in decision.findings})
    found = f"{_count(decision.findings, 'finding')} ({', '.join(rules)})" if rules else "no findings"
    did = f"; did {done}" if done else f"; {decision.withheld}" if decision.withheld else ""
    return f"{mode}: {_count(observation.state.zones, 'zone')}, {found}{did}"


def _count(things: Sized, noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def _finding(error: RingfenceError) -> Finding:
    hint = error.hint or "the agent looks again by itself"
    if isinstance(error, NameNodeUnavailableError | SafeModeError):
        return Finding(
            severity=Severity.ERROR, rule=Rule.NAMENODE_UNREACHABLE, path="/", message=error.message, hint=hint
        )
    return _not_seen(error.message, hint)


def _not_seen(message: str, hint: str) -> Finding:
    return Finding(severity=Severity.ERROR, rule=Rule.CLUSTER_NOT_SEEN, path="/", message=message, hint=hint)
