"""Decides: what was observed, against the policy, becomes findings and at most one action per kind.

Pure: no file, no network, no clock. Rules:

1. Everything that `check` finds is found here too, by the same function.
2. `agent.mode: observe` never yields an action, whatever `agent.pin` says; it says what it would do.
3. Only the agent whose turn it is acts; the other says what it leaves to it.
4. Mended without being asked are a missing pin and a trash directory's sticky bit, and nothing else.
5. Pins are for zones of the policy that exist on the cluster. Without a policy nothing is pinned and nothing
   unpinned. With `pin: off` the list is left as it is.
6. What cannot be done is a finding that carries what somebody else has to set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ringfence_agent.budgets import BudgetView
from ringfence_agent.inspection import Inspection
from ringfence_agent.inspection_findings import clear_findings, foreign_findings
from ringfence_agent.namenode_logs import RefusedRename
from ringfence_agent.pins import (
    PROPERTY,
    PinFile,
    PinPlan,
    is_pinnable,
    merge_pins,
)
from ringfence_agent.turn import ALWAYS_MINE, TurnState, TurnView
from ringfence_zones.check import find_violations
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.model import ClusterState
from ringfence_zones.policy import Policy

STICKY = 0o1000
MAX_REFUSALS = 20
_ORDER = {Severity.ERROR: 0, Severity.WARN: 1, Severity.INFO: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One look: the cluster, the policy, and the file that pins go to."""

    state: ClusterState
    policy: Policy | None
    policy_problem: str | None
    """Why the policy could not be read this time; `policy` is then the last good one."""
    pin_file: PinFile
    owned: frozenset[str]
    """Entries of the pin file that the agent added."""
    namenodes: tuple[str, ...]
    """`host:port` of every NameNode."""
    pin_error: str | None = None
    """Why the last attempt to pin failed; None after a success."""
    from_txid: int | None = None
    to_txid: int | None = None
    """The last edit before the look began, and after it ended."""
    inspection: Inspection = field(default_factory=Inspection)
    refused: tuple[RefusedRename, ...] = ()
    """Renames that HDFS refused lately, the newest last."""
    turn: TurnView = ALWAYS_MINE
    budgets: BudgetView = field(default_factory=BudgetView)


@dataclass(frozen=True, slots=True)
class Decision:
    """What was found and what to do. `withheld` says what `observe` mode would do, None when nothing."""

    findings: tuple[Finding, ...]
    pins: PinPlan | None = None
    withheld: str | None = None
    sticky: tuple[str, ...] = ()
    """Trash directories to which the sticky bit is to be added."""


def decide(observation: Observation) -> Decision:
    """The findings, most severe first, and the action to take."""
    findings = list(find_violations(observation.policy, observation.state))
    findings += _policy_findings(observation)
    findings += _root_findings(observation)
    findings += clear_findings(observation.policy, observation.inspection)
    findings += foreign_findings(observation.state, observation.inspection)
    findings += _refusals(observation)
    findings += _agent_findings(observation)
    plan = _plan_pins(observation)
    sticky = _plan_sticky(observation)
    pins, withheld = None, None
    if observation.policy is not None and plan is not None and not plan.is_nothing:
        if observation.policy.agent.mode == "observe":
            withheld = f"would {plan.describe()}" if plan.changes_cluster else None
        elif not observation.turn.mine:
            withheld = f"leaves to the other agent: {plan.describe()}" if plan.changes_cluster else None
        elif observation.policy.agent.pin == "print":
            if plan.changes_cluster:
                findings.append(_to_set(observation, plan))
        elif observation.pin_file.problem is not None:
            findings.append(_failed(observation, observation.pin_file.problem, plan))
        else:
            pins = plan
            if observation.pin_error is not None:
                findings.append(_failed(observation, observation.pin_error, plan))
    return Decision(sort_findings(findings), pins, withheld, sticky)


def existing_roots(policy: Policy, state: ClusterState) -> frozenset[str]:
    """Roots of the policy that are encryption zones on the cluster. Another directory of that name is not pinned,
    and `/` needs no pin: nobody can rename it."""
    there = {zone.path for zone in state.zones} - {"/"}
    return frozenset(zone.path for zone in policy.zones if zone.path in there)


def _plan_pins(observation: Observation) -> PinPlan | None:
    policy = observation.policy
    if policy is None or policy.agent.pin == "off":
        return None
    roots = existing_roots(policy, observation.state)
    return merge_pins(
        _entries(observation),
        [root for root in roots if is_pinnable(root)],
        observation.owned,
        observation.state.protected_directories,
    )


def _plan_sticky(observation: Observation) -> tuple[str, ...]:
    """Trash directories of the policy's zones from which anybody could delete what is somebody else's."""
    policy = observation.policy
    if policy is None or policy.agent.mode != "enforce" or not observation.turn.mine:
        return ()
    directories = [observation.state.directories.get(zone.path) for zone in policy.zones if zone.trash != "none"]
    there = existing_roots(policy, observation.state)
    return tuple(
        f"{each.path}/.Trash"
        for each in directories
        if each is not None and each.path in there and each.trash_mode is not None and not each.trash_mode & STICKY
    )


def _refusals(observation: Observation) -> Iterator[Finding]:
    for refused in reversed(observation.refused[-MAX_REFUSALS:]):
        yield Finding(
            severity=Severity.INFO,
            rule=Rule.RENAME_REFUSED,
            path=refused.source,
            message=f"HDFS refused a rename asked for from {refused.host} at {refused.when}: {refused.message}",
            hint="tell whoever runs that job: ringfence policy decide-move says what to do instead",
        )


def _agent_findings(observation: Observation) -> Iterator[Finding]:
    turn = observation.turn
    if turn.state in (TurnState.NO_LEASES, TurnState.UNKNOWN):
        if turn.state is TurnState.UNKNOWN:
            what, hint = "this agent does not act", "it acts again when the KMS answers"
        else:
            what = "this agent acts" if turn.mine else "this agent only watches"
            hint = "that rests on without_lease in agent.yaml: let one agent of the cluster say act, every other watch"
        yield Finding(
            severity=Severity.WARN if turn.state is TurnState.UNKNOWN else Severity.INFO,
            rule=Rule.LEASE_UNAVAILABLE,
            path="/",
            message=f"the KMS does not say whose turn it is, so {what}: {turn.problem or 'it was not asked'}",
            hint=hint,
        )
    if observation.budgets.exceeded is not None:
        yield Finding(
            severity=Severity.WARN,
            rule=Rule.OVER_BUDGET,
            path="/",
            message=f"{observation.budgets.exceeded}; the agent rests longer and sees things later",
            hint="raise the budget in agent.yaml, or lengthen its interval",
        )


def _entries(observation: Observation) -> tuple[str, ...]:
    """The list to merge into: the file's, or what the NameNodes hold when the file does not say."""
    if observation.pin_file.problem is None:
        return observation.pin_file.entries
    return observation.state.protected_directories or ()


def _policy_findings(observation: Observation) -> Iterator[Finding]:
    if observation.policy_problem is not None:
        kept = "the last good one stays in force" if observation.policy else "nothing is enforced"
        yield Finding(
            severity=Severity.ERROR,
            rule=Rule.POLICY_UNAVAILABLE,
            path="/",
            message=f"the policy cannot be used, {kept}: {observation.policy_problem}",
            hint="correct it, or what keeps the agent from reading it; it is read again with every cycle",
        )


def _root_findings(observation: Observation) -> Iterator[Finding]:
    policy = observation.policy
    if policy is None or policy.agent.pin == "off":
        return
    for root in sorted(existing_roots(policy, observation.state)):
        if not is_pinnable(root):
            yield Finding(
                severity=Severity.WARN,
                rule=Rule.PIN_FAILED,
                path=root,
                message=f"{PROPERTY} cannot name this root: it reads commas, line breaks and ${{ as its own",
                hint="give the zone a plainer path, or watch over its root in another way",
            )


def _to_set(observation: Observation, plan: PinPlan) -> Finding:
    return Finding(
        severity=Severity.WARN,
        rule=Rule.PINS_TO_SET,
        path=str(observation.pin_file.path),
        message=f"{PROPERTY} should change: {plan.describe()}",
        hint=_how_to_set(observation, plan),
        command=_reload_command(observation),
    )


def _failed(observation: Observation, why: str, plan: PinPlan) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        rule=Rule.PIN_FAILED,
        path=str(observation.pin_file.path),
        message=f"could not {plan.describe()}: {why}",
        hint=_how_to_set(observation, plan),
        command=_reload_command(observation),
    )


def _how_to_set(observation: Observation, plan: PinPlan) -> str:
    where = "in core-site.xml on every NameNode, then reload each"
    if observation.pin_file.problem is not None and observation.state.protected_directories is None:
        # The administrator's entries are not known: a whole value would drop them.
        return f'add "{",".join(plan.added)}" to {PROPERTY} {where}'
    return f'set {PROPERTY} to "{",".join(plan.entries)}" {where}'


def _reload_command(observation: Observation) -> str | None:
    return " && ".join(f"hdfs dfsadmin -reconfig namenode {each} start" for each in observation.namenodes) or None


def sort_findings(findings: list[Finding]) -> tuple[Finding, ...]:
    """Most severe first, then by path; of two about the same thing the first."""
    unique = {(finding.rule, finding.path, finding.key): finding for finding in reversed(findings)}
    return tuple(sorted(unique.values(), key=lambda each: (_ORDER[each.severity], each.path, each.rule)))
