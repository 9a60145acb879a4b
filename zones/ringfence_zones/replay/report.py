"""A replay: reads the logs, judges each access, and keeps what would have been refused, by kind and not by line.

Rules:

1. Memory does not grow with the logs: refusals alike in rule, user, operation and zones are one entry with a count, the
   first and last time, and the first line. There are at most `MAX_ENTRIES`; what finds no place is counted.
2. What a log cannot tell is said with the result, each time: `notes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringfence_zones.findings import Finding, Rule
from ringfence_zones.memberships import Memberships
from ringfence_zones.policy import Policy
from ringfence_zones.replay.access import LogKind
from ringfence_zones.replay.judge import Counts, Judge, Refusal
from ringfence_zones.replay.log_files import LogFiles, LogReading, Placed
from ringfence_zones.replay.sessions import MAX_CROSSINGS, Sessions

MAX_ENTRIES = 10_000
_SHOWN_KEYS = 5

# What each log cannot tell, whatever is in it.
_LIMITS = {
    LogKind.AUDIT: (),
    LogKind.KMS: (
        "Hadoop's KMS logs no address, session, path or direction: whatever one user opened within the window counts as"
        " one session, so a copy told from it is at most possible",
        "it merges openings of one user and key for 10 s: counts are its own, and times are those of writing",
    ),
    LogKind.NAMENODE: (
        "`open` is logged as well for who only asks where blocks are, and says nothing of whether the KMS was asked",
        "a rename between zones that the NameNode refused left no line, and no rule refuses a copy of raw bytes",
    ),
}


@dataclass(slots=True)
class Entry:
    """Refusals that are alike: how many, when, and the first line."""

    count: int
    first: str
    last: str
    where: str


@dataclass(slots=True)
class LogResult:
    """What the logs of one kind told."""

    reading: LogReading
    counts: Counts
    sessions: Sessions

    def to_json(self) -> dict[str, Any]:
        """Counts and names, under the words of `Counts` and `LogReading`."""
        reading, counts = self.reading, self.counts
        return {
            "kind": reading.kind.name.lower(),
            "files": len(reading.files),
            "lines": reading.lines,
            "unreadable": reading.unreadable,
            "unreadable_at": list(reading.unreadable_at),
            "broken": list(reading.broken),
            "judged": counts.judged,
            "failed": counts.failed,
            "outside": counts.outside,
            "other": counts.other,
            "undecided": self.sessions.undecided,
        }


@dataclass(slots=True)
class ReplayReport:
    """The result. `crowded_out` counts accesses without a place among the entries, by whether they are certain."""

    entries: dict[Refusal, Entry] = field(default_factory=dict)
    logs: list[LogResult] = field(default_factory=list)
    crowded_out: Counter[bool] = field(default_factory=Counter)

    @property
    def is_complete(self) -> bool:
        """Whether every file was read to its end."""
        return not any(log.reading.broken for log in self.logs)

    def ranked(self) -> list[tuple[Refusal, Entry]]:
        """Certain ones first, then by how often."""
        return sorted(self.entries.items(), key=lambda item: (not item[0].certain, -item[1].count, str(item[0])))

    def total(self, *, certain: bool) -> int:
        """How many accesses would, or may, have been refused."""
        listed = sum(entry.count for refusal, entry in self.entries.items() if refusal.certain is certain)
        return listed + self.crowded_out[certain]

    def findings(self, limit: int) -> Iterator[Finding]:
        """The first `limit` of `ranked` as findings."""
        for refusal, entry in self.ranked()[:limit]:
            yield refusal.to_finding(entry.count, entry.where)

    def add(self, refusal: Refusal, count: int, placed: Placed) -> None:
        """Notes that an access, or several on one line, would have been refused."""
        if not count:
            return
        entry = self.entries.get(refusal)
        if entry is not None:
            entry.count += count
            entry.last = placed.access.time
        elif len(self.entries) < MAX_ENTRIES:
            self.entries[refusal] = Entry(count, placed.access.time, placed.access.time, placed.where)
        else:
            self.crowded_out[refusal.certain] += count


def replay(policy: Policy, paths: Sequence[Path], memberships: Memberships | None, window_s: float) -> ReplayReport:
    """Judges every access in the logs. Raises InputError for a file that is no log or cannot be read."""
    files, report = LogFiles(paths), ReplayReport()
    for kind, reading in files.readings.items():
        if not reading.files:
            continue
        judge = Judge(policy, memberships, window_s)
        report.logs.append(LogResult(reading, judge.counts, judge.sessions))
        for placed in files.read(kind):
            for refusal, count in judge.judge(placed.access):
                report.add(refusal, count, placed)
    return report


def notes(policy: Policy, report: ReplayReport, *, groups_known: bool) -> list[str]:
    """What the logs and the policy do not tell, and what that means for the result."""
    out = [limit for log in report.logs for limit in _LIMITS[log.reading.kind]]
    for log in report.logs:
        out += _log_notes(log)
    if policy.flows is None:
        out.append("the policy has no 'flows': no copy between zones was judged")
    elif policy.flow_control.mode == "shadow" and any(each.rule is Rule.FLOW_REFUSED for each in report.entries):
        out.append("flow_control.mode is shadow: what the flows refuse is told as if it were enforce")
    if not groups_known and _names_groups(policy):
        out.append("who is in which group was not told, so what hangs on one is possible: --groups")
    if report.crowded_out:
        count = report.crowded_out.total()
        out.append(f"{count} of them are counted and not listed, for {MAX_ENTRIES} different ones are already")
    return out


def _log_notes(log: LogResult) -> Iterator[str]:
    name, counts = log.reading.kind.value, log.counts
    if log.reading.kind is LogKind.AUDIT and log.sessions.undirected:
        yield (
            f"{name}: {log.sessions.undirected} openings do not say whether they read or wrote (no flow rules were in"
            " force), so copies told from them are at most possible"
        )
    if log.sessions.undecided:
        yield (
            f"{name}: {log.sessions.undecided} times one session opened two zones with a flow in one direction alone;"
            " the log does not tell the direction, and they are not listed"
        )
    if log.sessions.forgotten:
        yield f"{name}: {log.sessions.forgotten} sessions were dropped before their window ended: there were too many"
    if log.sessions.cut:
        yield f"{name}: {log.sessions.cut} openings met more zones without a flow than the {MAX_CROSSINGS} told"
    if counts.claimed:
        yield f"{name}: accesses under a name that nobody proved: {counts.claimed}"
    if counts.realms:
        yield f"{name}: names with a realm are taken by their first part, whatever auth_to_local rules say"
    if counts.other_keys:
        keys = ", ".join(key for key, _ in counts.other_keys.most_common(_SHOWN_KEYS))
        yield f"{name}: keys that the policy does not name, such as {keys}: who may use them was not judged"


def _names_groups(policy: Policy) -> bool:
    named = {name for zone in policy.zones for name in zone.all_readers}
    named |= {name for flow in policy.flows or () for name in flow.who}
    return any(name.startswith("@") for name in named)
