"""Flow rules in one worker: what an opening is, whether it may be made, and what the audit log says of it.

With no `flows` in the published policy this costs one look. With them, a session's granted openings are remembered for
a minute, or for the revocation bound where that is less, and so is of which EDEKs the first opening is over; what is
not remembered is asked of the flow memory, in a thread, many at once (`Unready`). A refusal is not remembered.

When that memory cannot be reached, nothing can be decided: where rules are enforced the answer is 503, try again; in
shadow mode the opening is served, on record as `undecided`. EDEKs that cannot be noted are made all the same, and
stamped as such: their first openings count as READ and WRITE.

Rules refuse whoever proved who they are, when the policy says `enforce`. Callers who only claim their names are refused
nothing unless `enforce_on_claimed_identity`: it is recorded, as in shadow mode.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from ringfence_agent.flow.automaton import CLOCK_ALLOWANCE_S, REMEMBERED_S, SENT_AGAIN_S
from ringfence_agent.flow.memory import UNKNOWN_S, Answer, Ask, FlowMemory
from ringfence_agent.flow.rules import FlowRules
from ringfence_agent.flow.sessions import client_session, session_digest, token_session
from ringfence_agent.flow.stamp import UNTRACKED, Stamp, Stamps
from ringfence_agent.kms.authentication.caller import Caller, Identity
from ringfence_agent.kms.authorization.access import AccessRules
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.unready import Unready
from ringfence_zones.access_list import GroupsOf
from ringfence_zones.errors import RefusedError, RingfenceError, StoreUnavailableError, UnsupportedByStoreError
from ringfence_zones.findings import Rule
from ringfence_zones.flow_labels import KINDS, Crossing, Kind, Zone
from ringfence_zones.keys import IV_BYTES

T = TypeVar("T")

_log = logging.getLogger(__name__)

UNDECIDED = "undecided"
_PATIENCE_S = 10.0
_RETRY_S = 1.0
# One transaction's worth.
_MOST_AT_ONCE = 256
_MEMO_LIMIT = 65_536
_SINGLE = (Kind.READ, Kind.WRITE)

Session = tuple[object, ...]
"""Who opens, and the zone: a delegation token's number; else the user, who acts for them, and the client's address."""


@dataclass(frozen=True, slots=True)
class _Granted:
    """What is remembered of a session, a zone and a kind. `crossing` is what shadow mode would have refused, `grants`
    what admitted it."""

    until_s: float
    word: str
    crossing: Crossing | None = None
    grants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Opened:
    """Who opened an EDEK first, as far as this worker knows: that session's label holds for a moment."""

    session: Session | None
    kind: Kind
    until_s: float


_BEFORE = _Opened(None, Kind.READ, 0.0)


class FlowControl:
    """Used on the event loop. `open_memory` and the memory's methods run in `executor`, which has one thread.

    `confirm_policy` brings the published policy up to date, before somebody is refused by it. `count` counts for the
    metrics; `clock` is monotonic and `wall_clock` since the epoch, both in seconds.
    """

    def __init__(
        self,
        open_memory: Callable[[], FlowMemory],
        executor: Executor,
        stamps: Stamps,
        access: AccessRules,
        groups_of: GroupsOf,
        confirm_policy: Callable[[], Awaitable[None]],
        count: Callable[[str], None] = lambda _name: None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        *,
        settling_s: float = 0.0,
        remembered_s: float = REMEMBERED_S,
    ) -> None:
        """`settling_s` is how long another server may not know yet that flows were published. `remembered_s` is how
        long a granted opening is remembered, at most the revocation bound: a grant may end at any moment.
        """
        self._settling_s = settling_s
        self._remembered_s = min(remembered_s, REMEMBERED_S)
        self._seen: tuple[int, float] = (0, 0.0)
        self._stamps = stamps
        self._access = access
        self._groups_of = groups_of
        self._confirm_policy = confirm_policy
        self._count = count
        self._clock = clock
        self._wall_clock = wall_clock
        self._desk = _Desk(open_memory, executor, clock)
        self._rules: FlowRules | None = None
        self._granted: dict[Kind, dict[Session, _Granted]] = {kind: {} for kind in KINDS}
        self._reads = self._granted[Kind.READ]
        self._opened: dict[bytes, _Opened] = {}

    async def ask(self, work: Callable[[FlowMemory], T]) -> T:
        """What `work` returns of the flow memory, made when there is none. Raises as opening and using it do."""
        return await self._desk.run(work)

    @property
    def has_grants(self) -> bool:
        """Whether there may be any: a server that asks the memory for nothing makes none."""
        return self.is_tracking or self._desk.is_open

    async def prepare(self) -> None:
        """Before flows are published: that there is a memory, made when there is none, which can be used. Raises as
        opening and using it do.
        """
        await self._desk.run(lambda memory: memory.require())

    def _everybody_knows(self, since_ms: int) -> bool:
        """Whether no server still opens EDEKs without noting it. By this server's clock alone, or long ago by any."""
        if self._seen[0] != since_ms:
            self._seen = since_ms, self._clock()
        age_s = self._wall_clock() - since_ms / 1000
        return self._clock() - self._seen[1] >= self._settling_s or age_s >= self._settling_s + CLOCK_ALLOWANCE_S

    # -- EDEKs made

    @property
    def is_tracking(self) -> bool:
        """Whether new EDEKs are to be noted, by `issue`."""
        return self._access.published.flows is not None

    def untracked_ivs(self, zone: Zone, count: int) -> bytes:
        """`count` IVs, one after another, for EDEKs that nobody notes."""
        return self._stamps.make(zone, count, UNTRACKED, self._wall_clock())

    async def issue(self, zone: Zone, count: int) -> bytes:
        """As `untracked_ivs`, noted as outstanding where that can be done."""
        since_ms = self._access.published.flows_since_ms
        if not self._everybody_knows(since_ms):
            return self.untracked_ivs(zone, count)
        try:
            epoch = await self._desk.run(lambda memory: memory.epoch(since_ms))
            ivs = self._stamps.make(zone, count, epoch, self._wall_clock())
            each = [ivs[at : at + IV_BYTES] for at in range(0, len(ivs), IV_BYTES)]
            if await self._desk.run(lambda memory: memory.note_issued(zone, each, epoch, since_ms)):
                return ivs
        except RingfenceError:
            self._count("flow_not_noted")
        return self.untracked_ivs(zone, count)

    # -- EDEKs opened

    def check(self, call: Call, zone: Zone, iv: bytes) -> None:
        """Whether the call may open this EDEK of its zone; `call` is told what the opening is.

        Raises RefusedError, StoreUnavailableError when that cannot be decided and must be, and Unready.
        """
        rules = self._access.published.flows
        if rules is None or call.opened is not None:
            return
        if rules is not self._rules:
            # What was granted by other rules may not be by these.
            for remembered in self._granted.values():
                remembered.clear()
            self._rules = rules
        caller = call.caller
        assert caller is not None, "openings are authorised before"
        if caller.token is None:
            session: Session = (*client_session(caller.user, caller.real_user, call.request.peer.address), zone)
        else:
            session = (*token_session(caller.token), zone)
        opened = self._opened.get(iv)
        if opened is not None:
            now_s = self._clock()
            is_first = opened.session == session and now_s < opened.until_s
            granted = (self._granted[opened.kind] if is_first else self._reads).get(session)
            if granted is not None and now_s < granted.until_s:
                call.opened = granted.word
                if granted.grants:
                    self._note_grants(call, granted.grants)
                if granted.crossing is None:
                    return
                if not _is_enforced(rules, caller):
                    self._note_crossing(call, granted.crossing, rules)
                    return
                call.opened = None
        ask = self._ask(call, caller, session, zone, iv)
        raise Unready(lambda: self._settle(call, session, ask, rules))

    def _ask(self, call: Call, caller: Caller, session: Session, zone: Zone, iv: bytes) -> Ask:
        """What is asked of the memory. Raises Unready for groups."""
        rules, now_s = self._rules, self._clock()
        assert rules is not None, "there are flows"
        stamp = None
        if (opened := self._opened.get(iv)) is not None:
            unknown = opened.kind if opened.session == session and now_s < opened.until_s else Kind.READ
        else:
            stamp = self._stamps.find(zone, iv)
            unknown = self._unknown_kind(stamp)
        remembered = Kind(0)
        for kind in Kind.READ, Kind.WRITE:
            granted = self._granted[kind].get(session)
            if granted is not None and now_s < granted.until_s and granted.crossing is None:
                remembered |= kind
        return Ask(
            session=session_digest(session[:-1]),
            zone=zone,
            iv=iv,
            stamp=stamp,
            unknown=unknown,
            edges=rules.edges_of(zone, call.user, call.real_user, self._groups_of),
            granted=remembered,
            enforced=_is_enforced(rules, caller),
            user=caller.user,
        )

    def _unknown_kind(self, stamp: Stamp | None) -> Kind:
        """An EDEK that nobody noted: the NameNode may have held it back until now, or it was opened long ago."""
        since_s = stamp.made_s if stamp is not None else self._access.published.flows_since_ms / 1000
        return Kind.BOTH if self._wall_clock() - since_s < UNKNOWN_S else Kind.READ

    async def _settle(self, call: Call, session: Session, ask: Ask, rules: FlowRules) -> None:
        """Brings what `check` lacked, or raises its refusal."""
        began_s = self._clock()
        try:
            answer = await self._desk.settle(ask, self._access.published.flows_since_ms)
        except RingfenceError as error:
            self._count("flow_undecided")
            if ask.enforced:
                raise StoreUnavailableError(
                    f"flow rules are enforced, and cannot be decided now: {error.message}", hint=error.hint
                ) from error
            call.opened = UNDECIDED
            self._desk.note_missed(ask.iv)
            return
        self._count("flow_decisions")
        if answer.crossing is not None and ask.enforced:
            await self._confirm_policy()
        if self._access.published.flows is not rules:
            return  # other rules are in force by now: it is asked again
        if answer.crossing is not None and ask.enforced:
            self._refuse(call, answer.kind, answer.crossing, rules)
        self._remember(session, ask, answer, began_s)
        call.opened = answer.kind.word
        if grants := self._grants_of(session, answer):
            self._note_grants(call, grants)
        if answer.crossing is not None:
            self._note_crossing(call, answer.crossing, rules)

    def _remember(self, session: Session, ask: Ask, answer: Answer, began_s: float) -> None:
        if len(self._opened) >= _MEMO_LIMIT:
            self._opened.clear()
        for remembered in self._granted.values():
            if len(remembered) >= _MEMO_LIMIT:
                remembered.clear()
        if answer.kind & Kind.WRITE:
            self._opened.setdefault(ask.iv, _Opened(session, answer.kind, began_s + SENT_AGAIN_S))
        elif answer.is_lasting:
            self._opened.setdefault(ask.iv, _BEFORE)
        if not answer.kind & ~ask.granted:
            return  # no label was renewed: what is remembered of it ends when it did
        until_s = began_s + self._remembered_s
        grants: tuple[str, ...] = ()
        if answer.admitted is not None:
            grants = answer.admitted.ids
            until_s = min(until_s, began_s + answer.admitted.until_ms / 1000 - self._wall_clock())
        for kind in KINDS if answer.kind is Kind.BOTH else (answer.kind,):
            if answer.crossing is None or kind is answer.kind:
                self._granted[kind][session] = _Granted(until_s, kind.word, answer.crossing, grants)

    def _grants_of(self, session: Session, answer: Answer) -> tuple[str, ...]:
        """What admitted an opening, now or when something like it was admitted before."""
        if answer.admitted is not None:
            return answer.admitted.ids
        remembered = [self._granted[kind].get(session) for kind in _SINGLE if kind & answer.kind]
        return tuple(sorted({each for granted in remembered if granted is not None for each in granted.grants}))

    # -- what is told

    def _refuse(self, call: Call, kind: Kind, crossing: Crossing, rules: FlowRules) -> NoReturn:
        self._count("flow_refusals")
        published = self._access.published
        call.opened = kind.word
        call.rule = f"{published.rule}:flows"
        call.detail = {**(call.detail or {}), "flow": _described(crossing, rules, "enforce")}
        raise RefusedError(rules.explain(crossing, call.user, published.revision), Rule.FLOW_REFUSED)

    def _note_crossing(self, call: Call, crossing: Crossing, rules: FlowRules) -> None:
        self._count("flow_shadow_refusals")
        call.detail = {**(call.detail or {}), "flow": _described(crossing, rules, "shadow")}

    def _note_grants(self, call: Call, grants: tuple[str, ...]) -> None:
        self._count("flow_admitted_by_grant")
        call.detail = {**(call.detail or {}), "grants": list(grants)}

    def describe(self, *, claims_only: bool) -> dict[str, object] | None:
        """For the status document: None without flows. `claims_only` when no caller of this server proves a name."""
        rules = self._access.published.flows
        if rules is None:
            return None
        return {
            "mode": "enforce" if rules.enforces else "shadow",
            "refuses": rules.enforces and (rules.on_claims or not claims_only),
            "edges": len(rules.edges),
        }

    @property
    def problem(self) -> str | None:
        """Why nothing can be decided now; None when the last try succeeded."""
        return self._desk.problem

    async def close(self) -> None:
        """Waits for what is under way."""
        await self._desk.close()


class _Desk:
    """Takes questions to the flow memory: in one thread, as many at once as have gathered."""

    def __init__(self, open_memory: Callable[[], FlowMemory], executor: Executor, clock: Callable[[], float]) -> None:
        self._open_memory = open_memory
        self._executor = executor
        self._clock = clock
        self._memory: FlowMemory | None = None
        self._pending: list[tuple[Ask, asyncio.Future[Answer]]] = []
        self._since_ms = 0
        # EDEKs that were opened undecided: not outstanding any more, as soon as that can be said.
        self._missed: set[bytes] = set()
        self._settling: asyncio.Task[None] | None = None
        # What did not come to an end in time, and may not have yet.
        self._stuck: Future[Any] | None = None
        self.problem: str | None = None
        self._retry_at_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the memory was used."""
        return self._memory is not None

    async def run(self, work: Callable[[FlowMemory], T]) -> T:
        """What `work` returns, in the thread. Raises errors of the RingfenceError family; at once after one, for a
        moment, and for as long as the thread is stuck: not everybody has to wait for a database that hangs.
        """
        is_stuck = self._stuck is not None and not self._stuck.done()
        if self.problem is not None and (is_stuck or self._clock() < self._retry_at_s):
            raise StoreUnavailableError(self.problem)
        future = self._executor.submit(self._with_memory, work)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                value = await asyncio.wrap_future(future)
        except TimeoutError:
            self._stuck = future
            error: RingfenceError = StoreUnavailableError(f"the flow memory did not answer within {_PATIENCE_S:g} s")
            self._note(error)
            raise error from None
        except UnsupportedByStoreError:
            raise  # nothing is wrong, and waiting does not help
        except RingfenceError as error:
            self._note(error)
            raise
        if self.problem is not None:
            _log.warning("the flow memory answers again")
            self.problem = None
        return value

    def note_missed(self, iv: bytes) -> None:
        """This EDEK is opened although nothing could be decided."""
        if len(self._missed) < _MEMO_LIMIT:
            self._missed.add(iv)

    async def settle(self, ask: Ask, since_ms: int) -> Answer:
        """The answer to one question. Raises as `run`."""
        self._since_ms = max(since_ms, self._since_ms)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._pending.append((ask, future))
        if self._settling is None:
            self._settling = loop.create_task(self._settle_all())
        return await future

    async def _settle_all(self) -> None:
        try:
            while self._pending:
                batch = self._pending[:_MOST_AT_ONCE]
                del self._pending[:_MOST_AT_ONCE]
                await self._settle_batch(batch)
        finally:
            self._settling = None

    async def _settle_batch(self, batch: list[tuple[Ask, asyncio.Future[Answer]]]) -> None:
        waiting = [(ask, future) for ask, future in batch if not future.done()]  # clients may have gone
        asks, missed, since_ms = [ask for ask, _ in waiting], tuple(self._missed), self._since_ms

        def settle(memory: FlowMemory) -> list[Answer]:
            if missed:
                memory.note_opened(missed)
            return memory.settle(asks, since_ms)

        try:
            answers = await self.run(settle)
            self._missed.difference_update(missed)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is the answer to those who wait
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(waiting, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    def _with_memory(self, work: Callable[[FlowMemory], T]) -> T:
        if self._memory is None:
            self._memory = self._open_memory()
        return work(self._memory)

    def _note(self, error: RingfenceError) -> None:
        if self.problem is None:
            _log.warning("flow rules cannot be decided: %s", error.message)
        self.problem = error.message
        self._retry_at_s = self._clock() + _RETRY_S

    async def close(self) -> None:
        """Waits for what is under way, then closes the memory."""
        if self._settling is not None:
            await asyncio.wait([self._settling])
        memory = self._memory
        if memory is not None:
            await asyncio.get_running_loop().run_in_executor(self._executor, memory.close)


def _is_enforced(rules: FlowRules, caller: Caller) -> bool:
    return rules.enforces and (rules.on_claims or caller.identity is not Identity.CLAIMED)


def _described(crossing: Crossing, rules: FlowRules, mode: str) -> dict[str, str]:
    source, target = crossing.source, crossing.target
    return {"from": rules.paths.get(source, source), "to": rules.paths.get(target, target), "mode": mode}
