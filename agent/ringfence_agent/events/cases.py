"""Which renames become cases, and how later events change them. Pure; `reverts` decides what is done about a case."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ringfence_agent.events.zone_book import Displaced, KnownZone, ZoneBook, is_at_or_below
from ringfence_agent.reverts import Case, CaseState, MovedRoot
from ringfence_zones.findings import Rule
from ringfence_zones.hdfs_interface import EventKind, NamespaceEvent
from ringfence_zones.moves import decide_move
from ringfence_zones.paths import HdfsPath

_FORBIDDEN = (Rule.ZONE_ROOT, Rule.ZONE_ROOT_ANCESTOR)


def follow(cases: tuple[Case, ...], book: ZoneBook, event: NamespaceEvent, now_s: float) -> tuple[Case, ...]:
    """The cases after an event, which `book` does not know of yet."""
    if event.kind is EventKind.UNLINK:
        return tuple(_without_removed(case, event.path, now_s) for case in cases)
    if event.kind is not EventKind.RENAME or event.target is None:
        return cases
    moving = book.at_or_below(event.path)
    if not moving:
        return cases
    arrived = [zone.moved(event.path, event.target) for zone in moving]
    followed = tuple(_followed(case, event.path, event.target, now_s) for case in cases)
    known = {root.home for case in followed if case.ended_s is None for root in case.roots}
    displaced = [zone for zone in arrived if zone.path != zone.home and zone.home not in known]
    rule = _forbidden_by(book, event)
    if not displaced or rule is None:
        return followed
    return (*followed, _new_case(event, event.target, rule, displaced, now_s))


def unexplained(displaced: Displaced, txid: int, now_s: float) -> Case:
    """A root that was found elsewhere after events were lost: a finding alone, for nobody saw how it went there."""
    zone, found_at = displaced.zone, displaced.found_at
    return Case(
        txid=txid,
        rule=Rule.ZONE_ROOT.value,
        source=zone.home,
        target=found_at,
        renamed_s=now_s,
        roots=(MovedRoot(zone.home, found_at, zone.key_name, zone.inode),),
        inode=zone.inode,
        state=CaseState.LEFT,
        why="the events that would say how it went there were lost",
    )


def without_gone(cases: tuple[Case, ...], book: ZoneBook, now_s: float) -> tuple[Case, ...]:
    """The cases when a listing has just shown every zone: one without any of its roots is over, and so is one whose
    roots are all at home."""
    return tuple(_without_gone(_with_inodes(case, book), book, now_s) for case in cases)


def end(case: Case, state: CaseState, now_s: float, why: str | None = None) -> Case:
    """The case when it is over."""
    return replace(case, state=state, ended_s=now_s, why=why)


def _forbidden_by(book: ZoneBook, event: NamespaceEvent) -> str | None:
    source, target = HdfsPath.from_namenode(event.path), HdfsPath.from_namenode(event.target or "/")
    # Which rule it is depends on the zones alone, not on who did it.
    rule = decide_move(None, book.as_listed(), user="", src=source, dst=target).rule
    return rule.value if rule in _FORBIDDEN else None


def _new_case(event: NamespaceEvent, target: str, rule: str, displaced: Iterable[KnownZone], now_s: float) -> Case:
    roots = tuple(MovedRoot(zone.home, zone.path, zone.key_name, zone.inode) for zone in displaced)
    itself = next((root for root in roots if root.path == target), None)
    # A root that was elsewhere already goes back where it belongs, not where it was last.
    source = itself.home if itself is not None else event.path
    return Case(
        txid=event.txid,
        rule=rule,
        source=source,
        target=target,
        renamed_s=event.time_ms / 1000 if event.time_ms is not None else now_s,
        roots=roots,
        inode=itself.inode if itself is not None else None,
    )


def _followed(case: Case, source: str, target: str, now_s: float) -> Case:
    """A live case after a rename of something that holds roots, perhaps its own."""
    if case.ended_s is not None:
        return case
    roots = tuple(
        replace(root, path=target + root.path[len(source) :]) if is_at_or_below(root.path, source) else root
        for root in case.roots
    )
    if roots == case.roots:
        return case
    if all(root.path == root.home for root in roots):
        # Asked of HDFS by this agent, and not known to have been answered: it was.
        state = CaseState.REVERTED if case.tried_s is not None else CaseState.RESTORED
        return end(replace(case, roots=roots), state, now_s)
    moved_target = target + case.target[len(source) :] if is_at_or_below(case.target, source) else case.target
    return replace(case, roots=roots, target=moved_target)


def _without_removed(case: Case, path: str, now_s: float) -> Case:
    roots = tuple(root for root in case.roots if not is_at_or_below(root.path, path))
    if case.ended_s is not None or roots:
        return case
    return end(case, CaseState.LEFT, now_s, "it was deleted there")


def _with_inodes(case: Case, book: ZoneBook) -> Case:
    """A zone that was renamed before any listing showed it is told by where it is."""
    at = {zone.path: zone.inode for zone in book.zones}
    if all(root.inode is not None for root in case.roots):
        return case
    roots = tuple(root if root.inode is not None else replace(root, inode=at.get(root.path)) for root in case.roots)
    itself = next((root.inode for root in roots if root.path == case.target), None)
    return replace(case, roots=roots, inode=case.inode if itself is None else itself)


def _without_gone(case: Case, book: ZoneBook, now_s: float) -> Case:
    if case.ended_s is not None:
        return case
    places = {zone.inode: zone.path for zone in book.zones}
    if all(root.inode is not None and places.get(root.inode) == root.home for root in case.roots):
        return end(case, CaseState.RESTORED, now_s)
    if any(root.inode is None or root.inode in places for root in case.roots):
        return case
    return end(case, CaseState.LEFT, now_s, "the zone does not exist any more")
