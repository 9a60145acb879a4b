"""Follows HDFS's events, keeps the zones' record by them, and brings zone roots back that were renamed away.

One thread runs it; the loop hands it what a look showed (`adopt`) and reads what it found (`view`). Rules:

1. What was seen is on disk before anything follows from it: position, zones and cases are saved together, and a case
   with the time of the attempt before HDFS is asked to rename. Killed anywhere, it goes on from there (decision 0031).
2. A rename is judged with the zones as they were at that edit. A listing is taken over only when no event about zones
   lies between its beginning and the position.
3. When events are lost it begins anew at the next look, says so, and renames nothing back that it did not see go.
4. A NameNode that is away is waited for; nothing ends the thread but being told to.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from ringfence_agent.events import cases as follow_up
from ringfence_agent.events.reverter import Reverter
from ringfence_agent.events.state_file import EventState, Loss, StateFile
from ringfence_agent.events.stream import EventStream, Lost, Read
from ringfence_agent.events.zone_book import ZoneBook, is_at_or_below
from ringfence_agent.reverts import UNKNOWN_USER, Case, CaseState
from ringfence_zones.encryption_xattrs import key_of_version
from ringfence_zones.errors import RingfenceError
from ringfence_zones.hdfs_interface import EventKind, NamespaceEvent
from ringfence_zones.model import EncryptionZone
from ringfence_zones.policy import Policy

_log = logging.getLogger("ringfence_agent.events")

_REST_FACTOR = 4.0
_LONGEST_REST_S = 2.0
_SAVE_EVERY_S = 5.0
_MAX_RETRY_S = 10.0
_ASK_USER_FOR_S = 60.0
_ASK_USER_AGAIN_S = 0.5
_ABOUT_ZONES = (EventKind.RENAME, EventKind.UNLINK, EventKind.ZONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a look at the cluster showed, with the last edit before it began and after it ended."""

    zones: tuple[EncryptionZone, ...]
    policy: Policy | None
    from_txid: int
    to_txid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """What others see of the watcher. `seen_s` is the monotonic time of the last good poll, None before the first."""

    txid: int | None = None
    newest_txid: int | None = None
    seen_s: float | None = None
    problem: str | None = None
    cases: tuple[Case, ...] = ()
    losses: tuple[Loss, ...] = ()
    suspects: tuple[str, ...] = ()

    @property
    def lag(self) -> int | None:
        """How many edits behind the newest one; None when that is not known."""
        return None if self.txid is None or self.newest_txid is None else max(self.newest_txid - self.txid, 0)


FindUser = Callable[[str, str, float], str | None]


class EventWatcher:
    """See the module. `wake_loop` asks for a look at the cluster soon; `find_user` gets source, target and wall-clock
    time of a rename and says who asked for it; `on_change` gets every new view."""

    def __init__(
        self,
        stream: EventStream,
        reverter: Reverter,
        file: StateFile,
        *,
        interval_s: float,
        wake_loop: Callable[[], None],
        on_change: Callable[[EventView], None],
        find_user: FindUser = lambda _source, _target, _when_s: None,
        pause_s: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._stream = stream
        self._reverter = reverter
        self._file = file
        self._interval_s = interval_s
        self._wake_loop = wake_loop
        self._on_change = on_change
        self._find_user = find_user
        self._pause_s = pause_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._pending: Listing | None = None
        self._policy: Policy | None = None
        self._state = EventState()
        self._is_loaded = False
        self._saved_s = 0.0
        self._saved_txid: int | None = None
        self._ask_user: dict[tuple[int, str], tuple[float, float]] = {}
        self._harmless: set[str] = set()
        self._zones_changed_at = 0
        self._failures = 0
        # How long the last polls took: one slow one is an accident, three are the cost.
        self._took_s: deque[float] = deque(maxlen=3)
        self.view = EventView()

    # What the loop calls

    def adopt(self, listing: Listing) -> None:
        """Takes over what a look showed, with the next poll."""
        with self._lock:
            self._pending = listing

    def forget(self, paths: Collection[str]) -> None:
        """Suspects that are none (any more), with the next poll."""
        with self._lock:
            self._harmless |= set(paths)

    # The thread

    def run(self, stop: threading.Event) -> None:
        """Polls until `stop` is set, then saves its position."""
        while not stop.is_set():
            self.run_once()
            stop.wait(self.rest_s())
        try:
            if self._is_loaded:
                self._file.save(self._state)
        except RingfenceError as error:
            _log.warning("the position in the event stream was not saved: %s", error.message)

    def rest_s(self) -> float:
        """Seconds until the next poll: longer when polls are slow, when they fail, and when budgets are spent."""
        retry_s = min(self._interval_s * 2**self._failures, _MAX_RETRY_S) if self._failures else 0.0
        took_s = min(self._took_s, default=0.0)
        rest_s = min(_REST_FACTOR * took_s, max(_LONGEST_REST_S, took_s))
        return max(self._interval_s, rest_s, retry_s, self._pause_s())

    def run_once(self) -> None:
        """One poll and what follows from it; never raises one of our own errors."""
        try:
            self._follow()
        except RingfenceError as error:
            self._failures += 1
            self._publish(problem=error.message)
        except Exception as error:  # noqa: BLE001 - rule 4: the one broad catch
            # The stream must outlive a bug in one event; the position stays, so it is met and said again.
            _log.exception("a bug ended a poll of the event stream")
            self._failures += 1
            self._publish(problem=f"a bug ended the poll: {type(error).__name__}")
        else:
            self._failures = 0

    def _follow(self) -> None:
        if not self._is_loaded:
            self._state = self._file.load() or EventState()
            self._is_loaded = True
        with self._lock:
            listing, self._pending = self._pending, None
            harmless, self._harmless = self._harmless, set()
        if harmless:
            suspects = tuple(path for path in self._state.suspects if path not in harmless)
            self._state = replace(self._state, suspects=suspects)
        if listing is not None:
            self._policy = listing.policy
        if self._state.txid is None:
            if listing is None:
                return
            self._begin(listing)
        outcome = self._poll()
        if isinstance(outcome, Lost):
            self._lose(outcome)
            return
        self._apply(outcome)
        if listing is not None and not self._compare(listing):
            self._keep(listing)
        self._settle()
        self._save_sometimes()
        self._publish(newest_txid=outcome.newest_txid)

    def _keep(self, listing: Listing) -> None:
        """For the next poll, unless a newer one came meanwhile."""
        with self._lock:
            if self._pending is None:
                self._pending = listing

    def _poll(self) -> Read | Lost:
        assert self._state.txid is not None
        watched = self._policy.must_encrypt if self._policy is not None else ()
        roots = [zone.path for zone in self._state.book.zones]
        started_s = self._clock()
        outcome = self._stream.poll(self._state.txid, watched, roots if watched else ())
        self._took_s.append(self._clock() - started_s)
        return outcome

    # Events

    def _apply(self, read: Read) -> None:
        before, now_s = self._state, self._wall_clock()
        for event in read.events:
            self._apply_event(event, now_s)
        self._state = replace(self._state, txid=read.txid)
        if self._state.cases != before.cases or self._state.suspects != before.suspects:
            self._save()
        if self._state.book != before.book:
            self._wake_loop()

    def _apply_event(self, event: NamespaceEvent, now_s: float) -> None:
        state = self._state
        if event.kind is EventKind.FILE_KEY:
            self._state = replace(state, suspects=_with_suspect(state, event))
        elif event.kind in _ABOUT_ZONES:
            book = state.book.after(event)
            if book is not state.book:
                cases = follow_up.follow(state.cases, state.book, event, now_s)
                self._state = replace(state, book=book, cases=cases)
                self._zones_changed_at = event.txid
        if self._is_clear_and_must_not_be(event.target or event.path, event.kind):
            self._wake_loop()

    def _is_clear_and_must_not_be(self, path: str, kind: EventKind) -> bool:
        if self._policy is None or kind not in (EventKind.CREATE, EventKind.RENAME):
            return False
        in_zone = any(is_at_or_below(path, zone.path) for zone in self._state.book.zones)
        return not in_zone and any(is_at_or_below(path, place) for place in self._policy.must_encrypt)

    # Listings

    def _begin(self, listing: Listing) -> None:
        """The first position, or the first after a loss."""
        self._state = replace(self._state, txid=listing.from_txid)
        self._zones_changed_at = 0
        self._take_over(listing, lost=True)

    def _compare(self, listing: Listing) -> bool:
        """Takes a listing over; False when the events have not come that far yet."""
        assert self._state.txid is not None
        if self._state.txid < listing.to_txid:
            return False
        if self._zones_changed_at <= listing.from_txid:
            self._take_over(listing)
        return True

    def _take_over(self, listing: Listing, *, lost: bool = False) -> None:
        now_s = self._wall_clock()
        roots = _policy_roots(listing.policy)
        book, displaced = self._state.book.compare(listing.zones, roots or frozenset(), lost=lost)
        unseen = [follow_up.unexplained(each, listing.to_txid, now_s) for each in displaced]
        known = {root.inode for case in self._state.cases if case.ended_s is None for root in case.roots}
        cases = (*self._state.cases, *(case for case in unseen if case.inode not in known))
        cases = follow_up.without_gone(cases, book, now_s)
        if (book, cases) != (self._state.book, self._state.cases):
            self._state = replace(self._state, book=book, cases=cases)
            self._save()

    def _lose(self, lost: Lost) -> None:
        now_s = self._wall_clock()
        loss = Loss(lost.after_txid, lost.next_txid, now_s)
        _log.warning("events were lost behind transaction %d; looking at every zone again", lost.after_txid)
        self._state = replace(self._state, txid=None, losses=(*self._state.losses, loss))
        self._save()
        self._wake_loop()
        self._publish()

    # Cases

    def _settle(self) -> None:
        roots = _policy_roots(self._policy)
        agent = self._policy.agent if self._policy is not None else None
        enforce = agent is not None and agent.mode == "enforce"
        revert = agent is not None and agent.revert_zone_root_renames
        problem: RingfenceError | None = None
        for case in [each for each in self._state.cases if each.state is CaseState.OPEN]:
            try:
                settled = self._reverter.settle(
                    case, self._state.cases, roots, enforce=enforce, revert=revert, note=self._replace
                )
            except RingfenceError as error:
                problem = problem or error  # no reason to leave the others
                continue
            if settled is not case:
                self._replace(settled)
                self._reverter.closed(settled)
                self._wake_loop()
        self._name_users()
        if problem is not None:
            raise problem

    def _name_users(self) -> None:
        """Of renames of the last minute, with growing pauses: the audit log may come later, and is long."""
        now_s = self._wall_clock()
        recent = [each for each in self._state.cases if now_s - each.renamed_s <= _ASK_USER_FOR_S]
        self._ask_user = {each.id: self._ask_user.get(each.id, (now_s, _ASK_USER_AGAIN_S)) for each in recent}
        for case in recent:
            next_s, pause_s = self._ask_user[case.id]
            if case.user != UNKNOWN_USER or now_s < next_s:
                continue
            self._ask_user[case.id] = (now_s + pause_s, 2 * pause_s)
            user = self._find_user(case.source, case.target, case.renamed_s)
            if user is not None:
                self._replace(replace(case, user=user))

    def _replace(self, case: Case) -> None:
        """Puts a case in the place of what it was, on disk as well."""
        cases = tuple(case if each.id == case.id else each for each in self._state.cases)
        self._state = replace(self._state, cases=cases)
        self._save()

    # Outside

    def _save_sometimes(self) -> None:
        if self._state.txid != self._saved_txid and self._clock() - self._saved_s >= _SAVE_EVERY_S:
            self._save()

    def _save(self) -> None:
        self._state = self._state.without_old(self._wall_clock())
        self._file.save(self._state)
        self._saved_s, self._saved_txid = self._clock(), self._state.txid

    def _publish(self, *, newest_txid: int | None = None, problem: str | None = None) -> None:
        state = self._state
        is_good = problem is None and state.txid is not None
        self.view = EventView(
            txid=state.txid,
            newest_txid=newest_txid if newest_txid is not None else self.view.newest_txid,
            seen_s=self._clock() if is_good else self.view.seen_s,
            problem=problem,
            cases=state.cases,
            losses=state.losses,
            suspects=state.suspects,
        )
        self._on_change(self.view)


def _policy_roots(policy: Policy | None) -> frozenset[str] | None:
    return None if policy is None else frozenset(zone.path for zone in policy.zones)


def _with_suspect(state: EventState, event: NamespaceEvent) -> tuple[str, ...]:
    zone = _innermost(state.book, event.path)
    is_foreign = event.key is not None and zone is not None and key_of_version(event.key) != zone
    if not is_foreign or event.path in state.suspects:
        return state.suspects
    return (*state.suspects, event.path)


def _innermost(book: ZoneBook, path: str) -> str | None:
    around = [zone for zone in book.zones if is_at_or_below(path, zone.path)]
    return max(around, key=lambda zone: len(zone.path)).key_name if around else None
