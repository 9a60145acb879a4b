"""What the event stream and its cases say, as findings. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from ringfence_agent.events.state_file import Loss
from ringfence_agent.events.watcher import EventView
from ringfence_agent.reverts import Case, CaseState
from ringfence_zones.findings import Finding, Rule, Severity

_CLUSTER = "/"


def event_findings(view: EventView) -> tuple[Finding, ...]:
    """One for each case, one for lost events, one for a stream that cannot be read."""
    return (*_stream(view), *(_of_case(case) for case in _latest(view.cases)))


def _latest(cases: tuple[Case, ...]) -> list[Case]:
    """Of each source what is still so, else the last that was."""
    by_source: dict[str, Case] = {}
    for case in sorted(cases, key=lambda each: (each.ended_s is None, each.txid)):
        by_source[case.source] = case
    return list(by_source.values())


def _stream(view: EventView) -> Iterator[Finding]:
    if view.problem is not None:
        yield Finding(
            severity=Severity.WARN,
            rule=Rule.EVENTS_UNAVAILABLE,
            path=_CLUSTER,
            message=f"the agent cannot follow HDFS's events: {view.problem}",
            hint="it tries again by itself; until then renames are seen only at the next look at the zones",
        )
    if view.losses:
        yield _lost(view.losses[-1])


def _lost(loss: Loss) -> Finding:
    if loss.next_txid:
        what = f"the NameNode has no edits from {loss.after_txid + 1} to {loss.next_txid - 1} any more"
    else:
        what = f"the NameNode is behind transaction {loss.after_txid}, as after a restore"
    return Finding(
        severity=Severity.WARN,
        rule=Rule.EVENTS_LOST,
        path=_CLUSTER,
        message=f"events were lost, and every zone was looked at again: {what}",
        hint="what was renamed meanwhile is not renamed back; raise dfs.namenode.num.extra.edits.retained if the agent"
        " is often away for long",
    )


def _of_case(case: Case) -> Finding:
    what = _what_happened(case)
    key = case.roots[0].key_name if case.roots else None
    match case.state:
        case CaseState.REVERTED:
            took_s = max((case.ended_s or 0) - case.renamed_s, 0.0)
            return _finding(case, Severity.WARN, f"{what}; it was renamed back after {took_s:.1f} s", _TALK, None, key)
        case CaseState.RESTORED:
            return _finding(case, Severity.INFO, f"{what}; it is back", _TALK, None, key)
        case CaseState.LEFT if case.ended_s is not None:
            return _finding(case, Severity.WARN, f"{what}; {case.why}", _TALK, None, key)
        case CaseState.LEFT:
            message = f"{what}; it is left there: {case.why}"
            return _finding(case, Severity.ERROR, message, _BY_HAND, _rename_back(case), key)
    message = f"{what}; it is not back yet" + (f": {case.why}" if case.why else "")
    return _finding(case, Severity.ERROR, message, _BY_HAND, _rename_back(case), key)


_TALK = "ask who renamed it; fs.protected.directories (agent: pin: apply) refuses such renames in the first place"
_BY_HAND = "see what is at both places, then rename it back, or change the policy if it is to stay there"


def _what_happened(case: Case) -> str:
    thing = "the zone root" if case.rule == Rule.ZONE_ROOT.value else "a directory with zone roots in it,"
    who = f"{case.user}" if case.user != "unknown" else "an unknown user"
    return f"{who} renamed {thing} {case.source} to {case.target}"


def _rename_back(case: Case) -> str:
    return f"hdfs dfs -mv {shlex.quote(case.target)} {shlex.quote(case.source)}"


def _finding(case: Case, severity: Severity, message: str, hint: str, command: str | None, key: str | None) -> Finding:
    return Finding(
        severity=severity,
        rule=Rule.ZONE_ROOT_RENAMED,
        path=case.source,
        key=key if case.rule == Rule.ZONE_ROOT.value else None,
        message=message,
        hint=hint,
        command=command,
    )
