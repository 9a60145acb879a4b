"""Decides: what was observed, against the policy, becomes findings and at most one action per kind.

Pure: no file, no network, no clock. Rules:

1. Everything that `check` finds is found here too, by the same function.
2. `agent.mode: observe` never yields an action, whatever `agent.pin` says; it says what it would do.
3. Pins are for zones of the policy that exist on the cluster. Without a policy nothing is pinned and nothing
   unpinned. With `pin: off` the list is left as it is.
4. What cannot be done is a finding that carries what somebody else has to set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ringfence_agent.pins import (
    PROPERTY,
    PinFile,
    PinPlan,
    is_pinnable,
    merge_pins,
)
from ringfence_zones.check import find_violations
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.model import ClusterState
from ringfence_zones.policy import Policy

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


@dataclass(frozen=True, slots=True)
class Decision:
    """What was found and what to do. `withheld` says what `observe` mode would do, None when nothing."""

    findings: tuple[Finding, ...]
    pins: PinPlan | None = None
    withheld: str | None = None


def decide(observation: Observation) -> Decision:
    """The findings, most severe first, and the action to take."""
    findings = list(find_violations(observation.policy, observation.state))
    findings += _policy_findings(observation)
    findings += _root_findings(observation)
    plan = _plan_pins(observation)
    pins, withheld = None, None
    if observation.policy is not None and plan is not None and not plan.is_nothing:
        if observation.policy.agent.mode == "observe":
            withheld = f"would {plan.describe()}" if plan.changes_cluster else None
        elif observation.policy.agent.pin == "print":
            if plan.changes_cluster:
                findings.append(_to_set(observation, plan))
        elif observation.pin_file.problem is not None:
            findings.append(_failed(observation, observation.pin_file.problem, plan))
        else:
            pins = plan
            if observation.pin_error is not None:
                findings.append(_failed(observation, observation.pin_error, plan))
    return Decision(_sorted(findings), pins, withheld)


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
            hint="correct the policy; the agent reads it again with every cycle",
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


def _sorted(findings: list[Finding]) -> tuple[Finding, ...]:
    unique = {(finding.rule, finding.path, finding.key): finding for finding in reversed(findings)}
    return tuple(sorted(unique.values(), key=lambda each: (_ORDER[each.severity], each.path, each.rule)))
