"""Whether keys that Vault holds can be used here: a canary EDEK is made with one of them and opened again.

A worker asks Vault every ten seconds at most, and every second while it fails; one look at a time, which a caller waits
for no longer than the deadline. Without such a key nothing is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ringfence_agent.keystore.held import HeldKey, TransitVersion
from ringfence_agent.keystore.interface import KeyStore
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_zones.custody import DEFAULT_CUSTODY, custody_word
from ringfence_zones.errors import RingfenceError

_KEEP_GOOD_S, _KEEP_BAD_S = 10.0, 1.0
_DEADLINE_S = 5.0
_NOT_SET_UP = "some keys are held by Vault, and this key server has no vault block in kms.yaml"


class TransitHealth:
    """One worker's; used on its event loop. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        store: StoreAccess,
        prove: Callable[[TransitVersion], Awaitable[None]] | None,
        clock: Callable[[], float],
        deadline_s: float = _DEADLINE_S,
    ) -> None:
        """`prove` is TransitCustody's; None where Vault is not set up."""
        self._store = store
        self._prove = prove
        self._clock = clock
        self._deadline_s = deadline_s
        self._canary_key: str | None = None
        # The store's change number at which it had no such key: all are not looked at again before it changes.
        self._without_at: int | None = None
        self._problem: str | None = None
        self._look: asyncio.Task[str | None] | None = None
        self._due_s = clock()

    async def find_problem(self) -> str | None:
        """What stands in the way of keys that Vault holds, as it was at the last look."""
        if self._look is None and self._clock() >= self._due_s:
            self._look = asyncio.get_running_loop().create_task(self._look_at_vault())
        look = self._look
        if look is not None:
            await asyncio.wait({look}, timeout=self._deadline_s)
            if not look.done():
                return f"Vault does not answer within {self._deadline_s:g} s"
            if self._look is look:
                self._look = None
                self._problem = look.result()
                self._due_s = self._clock() + (_KEEP_GOOD_S if self._problem is None else _KEEP_BAD_S)
        return self._problem

    async def _look_at_vault(self) -> str | None:
        try:
            key = await self._store.read(self._find_canary)
            if key is None:
                return None
            if self._prove is None:
                return _NOT_SET_UP
            await self._prove(key.current.place)
        except RingfenceError as error:
            return error.message
        except Exception as error:  # noqa: BLE001 - whatever stands in the way; kind only
            return f"the canary fails with {type(error).__name__}"
        return None

    def _find_canary(self, store: KeyStore) -> HeldKey | None:
        """In the store's thread."""
        key = store.find_sealed_key(self._canary_key) if self._canary_key is not None else None
        if isinstance(key, HeldKey):
            return key
        number = store.change_number()
        if number == self._without_at:
            return None
        held = [key.name for key in store.list_metadata() if custody_word(key.attributes) != DEFAULT_CUSTODY]
        self._canary_key = held[0] if held else None
        self._without_at = None if held else number
        key = store.find_sealed_key(held[0]) if held else None
        return key if isinstance(key, HeldKey) else None
