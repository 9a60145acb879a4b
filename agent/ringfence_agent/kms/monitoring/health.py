"""Whether this worker can do its work: `/health/live` and `/health/ready`.

Live is that a request is answered. Ready is that keys can be served: a canary EDEK is generated and opened again with a
key read afresh from the store, so through the database, its protector and the cipher; with no key yet, the store's
list of keys is read, seals and all. The published policy must be genuine, and the audit log writable where it is
required.

Keys that Vault holds have a canary of their own (`transit_health`). While it fails, the worker is *degraded* and still
ready: other keys are served, and no other instance on the same Vault would do better.

Rules:

1. Anybody may ask, and learns yes or no; why is for administrators.
2. However often it is asked, a worker looks once a second at most, and once at a time. A store that does not answer
   within the deadline counts as down; it is asked again only when that look has ended.
3. A remote protector that opened the canary is asked again after ten seconds; one that did not, at the next look.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from ringfence_agent.keystore.interface import KeyStore, SealedKey
from ringfence_agent.kms.audit.log import AuditLog
from ringfence_agent.kms.eek import EekCipher
from ringfence_agent.kms.monitoring.transit_health import TransitHealth
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_zones.custody import DEFAULT_CUSTODY, custody_word
from ringfence_zones.errors import RingfenceError
from ringfence_zones.keys import IV_BYTES

_KEEP_S = 1.0
# What a remote protector opened is believed for longer: it is asked by each worker, and may cost money.
_ASK_AGAIN_S = 10.0
_DEADLINE_S = 5.0
_DEK_BYTES = 32


@dataclass(frozen=True, slots=True)
class Health:
    """One look: what is wrong, in sentences for administrators; None for what is not.

    `held_problem` concerns the keys that Vault holds and no other.
    """

    store_problem: str | None
    audit_problem: str | None
    held_problem: str | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """All that is wrong."""
        found = (self.audit_problem, self.store_problem, self.held_problem)
        return tuple(problem for problem in found if problem is not None)

    @property
    def is_ready(self) -> bool:
        """Whether keys can be served."""
        return self.audit_problem is None and self.store_problem is None

    @property
    def is_degraded(self) -> bool:
        """Whether some keys cannot be served, though others can."""
        return self.is_ready and self.held_problem is not None


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
        """`find_distrust` says what is wrong with a store that is known not to be genuine."""
        self._find_distrust = find_distrust
        self._held = held or TransitHealth(store, None, clock, deadline_s)
        self._store = store
        self._audit = audit
        self._clock = clock
        self._deadline_s = deadline_s
        self._canary_key: str | None = None
        # When a remote protector last opened the canary.
        self._asked_s: float | None = None
        self._store_problem: str | None = None
        self._looked_s: float | None = None
        self._look: asyncio.Task[str | None] | None = None
        self._is_overdue = False

    async def check(self) -> Health:
        """How it stands, at most a second old."""
        if self._looked_s is None or self._clock() - self._looked_s >= _KEEP_S:
            await self._refresh()
        held_problem = None
        if not self._store_problem:
            held_problem = await self._held.find_problem()
        state = self._audit.state
        unwritable = state.problem if state.required else None
        return Health(
            self._find_distrust() or self._store_problem,
            f"the audit log cannot be written: {unwritable}" if unwritable is not None else None,
            f"keys that Vault holds cannot be used: {held_problem}" if held_problem is not None else None,
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
            self._store_problem = f"the key store does not answer within {self._deadline_s:g} s"
            return
        if self._look is look:
            self._look = None
            self._store_problem = look.result()
            self._looked_s = self._clock()

    async def _look_at_store(self) -> str | None:
        try:
            key = await self._store.read(self._find_canary)
            return None if key is None else await self._try_canary(key)
        except RingfenceError as error:
            return error.message
        except Exception as error:  # noqa: BLE001 - whatever stands in the way, the worker is not ready; kind only
            return f"the key store fails with {type(error).__name__}"

    def _find_canary(self, store: KeyStore) -> SealedKey | None:
        """In the store's thread. A policy that cannot be believed refuses every key."""
        store.find_policy()
        key = store.find_sealed_key(self._canary_key) if self._canary_key is not None else None
        if key is None:
            names = [key.name for key in store.list_metadata() if custody_word(key.attributes) == DEFAULT_CUSTODY]
            self._canary_key = names[0] if names else None
            key = store.find_sealed_key(names[0]) if names else None
        # None as well when it was deleted in between: the next look takes another.
        return key if isinstance(key, SealedKey) else None

    async def _try_canary(self, key: SealedKey) -> str | None:
        """With ciphers of its own."""
        current = key.numbers[-1]
        is_remote = current in key.remote
        if is_remote and self._asked_s is not None and self._clock() - self._asked_s < _ASK_AGAIN_S:
            return None
        (version,) = await self._store.open_versions(key, [current])
        cipher = EekCipher(version)
        dek, iv = secrets.token_bytes(_DEK_BYTES), secrets.token_bytes(IV_BYTES)
        if EekCipher(version).apply(iv, cipher.apply(iv, dek)) != dek:
            return f"an EDEK of key {key.metadata.name} does not open"
        self._asked_s = self._clock() if is_remote else None
        return None
