"""Whether a forbidden rename of a zone root is undone: a pure decision, from facts.

Rules (decision 0031):

1. Only what `moves.decide_move` calls the rename of a zone root, or of a directory that holds one, is ever a case.
2. It is undone only in `mode: enforce` with `revert_zone_root_renames`, for roots of the policy, on this agent's turn.
3. The source must be free, the target the inode that moved, and every root below it the inode it was. Anything else,
   and anything that is not known, leaves the case as a finding.
4. A root that is back where it belongs ends the case, whoever brought it there: so our own rename is never undone.
5. No more than `MAX_REVERTS` of one source within `REVERT_WINDOW_S`: then somebody else has to talk to somebody.
6. What time will tell (no policy read yet, safe mode, a NameNode that is away, the other's turn) is waited for.

It decides only; `events.watcher` looks, writes the intent down and renames.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ringfence_zones.hdfs_interface import Entry

MAX_REVERTS = 3
REVERT_WINDOW_S = 3600.0
UNKNOWN_USER = "unknown"


class CaseState(enum.StrEnum):
    """Where a case stands."""

    OPEN = "open"  # to be decided, or decided and asked of HDFS: `tried_s` says when
    REVERTED = "reverted"  # this agent renamed it back
    RESTORED = "restored"  # it is back, not by this agent
    LEFT = "left"  # a finding alone, as long as it has not ended; `why` says why


@dataclass(frozen=True, slots=True)
class MovedRoot:
    """A zone's root in a case: where it belongs and where it went. `inode` is None when no listing ever showed it."""

    home: str
    path: str
    key_name: str
    inode: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A forbidden rename that got through. Times are of the wall clock, in seconds since 1970."""

    txid: int
    rule: str
    source: str
    target: str
    renamed_s: float
    roots: tuple[MovedRoot, ...]
    inode: int | None
    """Of what was renamed; of a directory above a root, what was first seen at the target."""
    user: str = UNKNOWN_USER
    state: CaseState = CaseState.OPEN
    why: str | None = None
    tried_s: float | None = None
    """When HDFS was first asked to rename it back: written down before it is asked."""
    ended_s: float | None = None

    @property
    def id(self) -> tuple[int, str]:
        """What stays when a case changes; a listing may show several at one transaction."""
        return self.txid, self.source


@dataclass(frozen=True, slots=True)
class Facts:
    """What is where now: at the case's source, at its target, and by path where its roots are and belong."""

    source: Entry | None
    target: Entry | None
    entries: Mapping[str, Entry | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the policy and the moment allow. `policy_roots` is None as long as no policy was read."""

    enforce: bool
    revert: bool
    my_turn: bool
    policy_roots: frozenset[str] | None
    recent_reverts: int


@dataclass(frozen=True, slots=True)
class Back:
    """Every root is where it belongs: the case is over."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now; looked at again."""

    why: str


@dataclass(frozen=True, slots=True)
class Leave:
    """A finding alone, for good."""

    why: str


@dataclass(frozen=True, slots=True)
class Revert:
    """Rename what has this inode to `destination`."""

    inode: int
    destination: str


Verdict = Back | Wait | Leave | Revert


def decide_revert(case: Case, facts: Facts, rules: Rules) -> Verdict:
    """What to do about an open case."""
    if all(_is(facts.entries.get(root.home), root.inode) for root in case.roots):
        return Back()
    if rules.policy_roots is None:
        return Wait("there is no policy yet")
    forbidden = _forbids(case, rules, rules.policy_roots)
    if forbidden is not None:
        return Leave(forbidden)
    if not rules.my_turn:
        return Wait("it is the other agent's turn to act")
    if any(root.inode is None for root in case.roots):
        return Wait("the next look at the zones will show which directory it is")
    changed = _changed(case, facts)
    if changed is not None:
        return Leave(changed)
    if rules.recent_reverts >= MAX_REVERTS:
        return Leave(f"it was renamed away {rules.recent_reverts + 1} times within an hour")
    assert facts.target is not None
    return Revert(facts.target.inode, case.source)


def count_recent(cases: Iterable[Case], source: str, now_s: float) -> int:
    """How often a source was brought back lately, by whomever: each agent counts what it saw."""
    ended = (CaseState.REVERTED, CaseState.RESTORED)
    since_s = now_s - REVERT_WINDOW_S
    return sum(each.source == source and each.state in ended and (each.ended_s or 0) >= since_s for each in cases)


def _forbids(case: Case, rules: Rules, policy_roots: frozenset[str]) -> str | None:
    if not any(root.home in policy_roots for root in case.roots):
        return "no zone that moved is in the policy"
    if not rules.enforce:
        return "the policy says mode: observe"
    return None if rules.revert else "the policy says revert_zone_root_renames: false"


def _changed(case: Case, facts: Facts) -> str | None:
    """What is not as it was right after the rename; None when all is."""
    if facts.source is not None:
        return f"there is something at {case.source} again"
    if facts.target is None:
        return f"nothing is at {case.target} any more"
    if case.inode is None:
        return "it is not known which directory was renamed"
    if facts.target.inode != case.inode:
        return f"something else is at {case.target} by now"
    for root in case.roots:
        if not _is(facts.entries.get(root.path), root.inode):
            return f"the zone root {root.home} is not at {root.path} any more"
    return None


def _is(entry: Entry | None, inode: int | None) -> bool:
    return entry is not None and inode is not None and entry.inode == inode
