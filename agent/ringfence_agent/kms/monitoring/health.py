"""Whether this worker can do its work: `/health/live` and `/health/ready`.

Live is that a request is answered. Ready is that keys can be served: a canary EDEK is generated and opened again with a
key read afresh from the store, so through the database, its protector and the cipher; with no key yet, the store's
list of keys is read, seals and all. The published policy must be genuine, and the audit log writable where it is
required.

A store may hold keys that different protectors sealed (slots). Each of them has a canary. While some open and others
do not, because a protector is away or refuses, the worker is ready and *degraded*: zones of the others are served, and
so is what is in memory. When none opens it is not ready. Keys that Vault holds have a canary too (`transit_health`);
while that alone fails the worker is degraded: no other instance would do better.

Rules:

1. Anybody may ask, and learns whether it is ready, and whether degraded; why is for administrators.
2. However often it is asked, a worker looks once a second at most, and once at a time. A store that does not answer
   within the deadline counts as down; it is asked again only when that look has ended.
3. A remote protector that opened its canary is asked again after ten seconds; one that did not, at the next look. One
   that does not answer within most of the deadline counts as away; it is asked again when that call has ended.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ringfence_agent.keystore.interface import KeyStore, SealedKey
from ringfence_agent.kms.audit.log import AuditLog
from ringfence_agent.kms.eek import EekCipher
from ringfence_agent.kms.monitoring.transit_health import TransitHealth
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_zones.errors import KeyStoreError, ProtectorRefusedError, ProtectorUnavailableError, RingfenceError
from ringfence_zones.keys import IV_BYTES, KeyVersion

_KEEP_S = 1.0
# What a remote protector opened is believed for longer: it is asked by each worker, and may cost money.
_ASK_AGAIN_S = 10.0
_DEADLINE_S = 5.0
# Of the deadline, what a remote protector may take: the look has to end in time to say which one is away.
_PROTECTOR_SHARE = 0.8
_DEK_BYTES = 32


@dataclass(frozen=True, slots=True)
class Health:
    """One look: what is wrong, in sentences for administrators; None for what is not.

    `degradations` are what keeps some keys, not all, from being opened.
    """

    store_problem: str | None
    audit_problem: str | None
    degradations: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """All that is wrong."""
        serious = (problem for problem in (self.audit_problem, self.store_problem) if problem is not None)
        return (*serious, *self.degradations)

    @property
    def is_ready(self) -> bool:
        """Whether keys can be served."""
        return self.audit_problem is None and self.store_problem is None

    @property
    def is_degraded(self) -> bool:
        """Whether keys can be served, but not all of them."""
        return self.is_ready and bool(self.degradations)


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look found of the store: as in Health."""

    problem: str | None
    degradations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Canary:
    """A live key, and the number of the version that is to open."""

    key: SealedKey
    number: int

    @property
    def place(self) -> tuple[str, int]:
        return self.key.metadata.name, self.number


class HealthCheck:
    """Looks, and remembers for a second. Used on the event loop; `clock` is monotonic, in seconds."""

    def __init__(
        self,
        store: StoreAccess,
        audit: AuditLog,
        clock: Callable[[], float],
        *,
        deadline_s: float = _DEADLINE_S,
        find_distrust: Callable[[], str | None] = lambda: None,
        held: TransitHealth | None = None,
    ) -> None:
        """`find_distrust` says what is wrong with a store that is known not to be genuine. `held` looks at the keys
        that Vault holds; where it is None, any are found unusable.
        """
        self._find_distrust = find_distrust
        self._held = held or TransitHealth(store, None, clock, deadline_s)
        self._store = store
        self._audit = audit
        self._clock = clock
        self._deadline_s = deadline_s
        # Which versions are the canaries, and the store's change number when they were chosen.
        self._chosen: tuple[int, Sequence[tuple[str, int]]] | None = None
        # By canary: when a remote protector last opened it, and the call that is under way.
        self._asked_s: dict[tuple[str, int], float] = {}
        self._openings: dict[tuple[str, int], asyncio.Task[Sequence[KeyVersion]]] = {}
        self._found = _Look(None)
        self._looked_s: float | None = None
        self._look: asyncio.Task[_Look] | None = None
        self._is_overdue = False

    async def check(self) -> Health:
        """How it stands, at most a second old."""
        if self._looked_s is None or self._clock() - self._looked_s >= _KEEP_S:
            await self._refresh()
        held_problem = None if self._found.problem is not None else await self._held.find_problem()
        held = () if held_problem is None else (f"keys that Vault holds cannot be used: {held_problem}",)
        state = self._audit.state
        unwritable = state.problem if state.required else None
        return Health(
            self._find_distrust() or self._found.problem,
            f"the audit log cannot be written: {unwritable}" if unwritable is not None else None,
            (*self._found.degradations, *held),
        )

    async def _refresh(self) -> None:
        if self._look is None:
            self._look = asyncio.get_running_loop().create_task(self._look_at_store())
            self._is_overdue = False
        look = self._look
        if not self._is_overdue:
            await asyncio.wait({look}, timeout=self._deadline_s)
        if not look.done():
            # The look goes on, and stays the one look, until the store answers; nobody waits for it any more.
            self._is_overdue = True
            self._found = _Look(f"the key store does not answer within {self._deadline_s:g} s")
            return
        if self._look is look:
            self._look = None
            self._found = look.result()
            self._looked_s = self._clock()

    async def _look_at_store(self) -> _Look:
        try:
            canaries = await self._store.read(self._find_canaries)
            found = await asyncio.gather(*(self._try(canary) for canary in canaries))
        except RingfenceError as error:
            return _Look(error.message)
        except Exception as error:  # noqa: BLE001 - whatever stands in the way, the worker is not ready; kind only
            return _Look(f"the key store fails with {type(error).__name__}")
        self._asked_s = {each.place: self._asked_s[each.place] for each in canaries if each.place in self._asked_s}
        problems = tuple(problem for problem in found if problem is not None)
        if problems and len(problems) == len(found):
            return _Look("; ".join(problems))
        return _Look(None, problems)

    def _find_canaries(self, store: KeyStore) -> Sequence[_Canary]:
        """In the store's thread. A policy that cannot be believed refuses every key."""
        store.find_policy()
        number = store.change_number()
        if self._chosen is None or self._chosen[0] != number:
            self._chosen = number, store.list_canaries()
        _, places = self._chosen
        if not places:
            store.list_metadata()
        found = []
        for name, version in places:
            key = store.find_sealed_key(name)
            # Else it was deleted in between, or made again.
            if isinstance(key, SealedKey) and version in key.numbers:
                found.append(_Canary(key, version))
        return found

    async def _try(self, canary: _Canary) -> str | None:
        """With ciphers of its own. What is wrong with this canary's protector; raises what is wrong with the store."""
        if canary.number not in canary.key.remote:
            _round_trip(await self._store.open_versions(canary.key, [canary.number]))
            return None
        asked_s = self._asked_s.get(canary.place)
        if asked_s is not None and self._clock() - asked_s < _ASK_AGAIN_S:
            return None
        try:
            opened = await self._ask_protector(canary)
        except (ProtectorUnavailableError, ProtectorRefusedError) as error:
            return error.message
        if opened is None:
            return f"what sealed {canary.place[0]}@{canary.place[1]} does not answer"
        _round_trip(opened)
        self._asked_s[canary.place] = self._clock()
        return None

    async def _ask_protector(self, canary: _Canary) -> Sequence[KeyVersion] | None:
        """None while it does not answer; who asks then waits no more."""
        task = self._openings.get(canary.place)
        if task is None:
            opening = self._store.open_versions(canary.key, [canary.number])
            task = self._openings[canary.place] = asyncio.get_running_loop().create_task(opening)
            await asyncio.wait({task}, timeout=self._deadline_s * _PROTECTOR_SHARE)
        if not task.done():
            return None
        del self._openings[canary.place]
        return task.result()


def _round_trip(opened: Sequence[KeyVersion]) -> None:
    """Raises KeyStoreError when an EDEK does not open."""
    (version,) = opened
    dek, iv = secrets.token_bytes(_DEK_BYTES), secrets.token_bytes(IV_BYTES)
    if EekCipher(version).apply(iv, EekCipher(version).apply(iv, dek)) != dek:
        raise KeyStoreError(f"an EDEK of key {version.key_name} does not open")
