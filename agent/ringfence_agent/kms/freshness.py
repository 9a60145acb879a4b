"""Whether what this worker remembers of the store is still so, and catching up with it when it may not be.

A worker remembers keys, what they grant, and the published policy. It looks at the store again

1. on the first request after anybody on this server committed something (the shared generation);
2. once in a while by itself, because a command may work on the same store (`ringfence key import`); and where other
   servers share it, before every answer that must show what any of them acknowledged: all but the opening of an EDEK,
   whose key version never changes;
3. before anything else once the store was last looked at longer ago than the revocation bound. So a key that was
   deleted or a policy that was tightened through one server is no longer served by another after the bound, and when
   the store cannot be reached, requests are refused from then on.

A store that is behind what was seen of it was replaced by an earlier state: nothing more is believed of it until this
process ends. Keys would come back, grants with them, and numbers of versions would be given out twice.

Nor is anything believed, or answered from memory, while the store is known not to be genuine (`store_keeper`).

A look reads what changed since the last one, and only that is forgotten. One look at a time: who asks while one is
under way is served by the next, because the one under way may have read before they came. One that fails is everybody's
answer: a store that hangs is not asked again for each of them.

This relies on the one thread for reads (`StoreAccess`): results come back in the order in which they were read, so a
key that was read before a change is in the cache before the look that drops it. Changes run beside it: a look that is
asked for when a change is known begins after that change's commit, and a look that began earlier counts for nothing
(`catch_up`). Material that a remote protector opened later belongs to the key as it was read, and goes with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ringfence_agent.keystore.interface import Changes, OpenStore
from ringfence_agent.kms.authorization.access import AccessRules
from ringfence_agent.kms.authorization.published import PublishedPolicy, read_if_newer
from ringfence_agent.kms.key_cache import KeyCache
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_zones.errors import RingfenceError, StoreTamperedError


class Freshness:
    """One worker's. `clock` is monotonic, in seconds; `bound_s` is the revocation bound."""

    def __init__(
        self,
        store: StoreAccess,
        keys: KeyCache,
        access: AccessRules,
        clock: Callable[[], float],
        bound_s: float,
        find_distrust: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`find_distrust` says what is wrong with the store when it is known not to be genuine."""
        self._store = store
        self._keys = keys
        self._access = access
        self._clock = clock
        self._bound_s = bound_s
        self._find_distrust = find_distrust
        self._must_forget = False
        # The store's number at the last look, None before the first; and until when that look is believed.
        self._number: int | None = None
        self._believed_until_s = 0.0
        self._token_number: int | None = None
        # Tickets: how many have asked for a look, and the last one that a finished look answers, with its error.
        self._lock = asyncio.Lock()
        self._asked = self._answered = 0
        self._error: RingfenceError | None = None

    def is_current(self, *, newest: bool) -> bool:
        """Whether memory may be answered from. `newest` when the answer must show what any server acknowledged."""
        if self._number is None or self._store.has_changed() or self._must_forget:
            return False
        if self._find_distrust() is not None:
            # What was read of it meanwhile may be what is wrong.
            self._must_forget = True
            return False
        return self._clock() < self._believed_until_s and not (newest and self._store.is_shared)

    async def catch_up(self) -> None:
        """Returns when memory is as of a moment after this call began. Raises the errors of the store's reads."""
        self._asked += 1
        ticket = self._asked
        async with self._lock:
            if self._answered >= ticket:
                if self._error is not None:
                    raise self._error
                return
            asked = self._asked
            try:
                await self._look()
            except RingfenceError as error:
                # An error for all who came meanwhile, too: each their own look at a store that hangs would take hours.
                self._answered, self._error = self._asked, error
                raise
            # Not before: who asked for this look may go away in the middle of it.
            self._answered, self._error = asked, None

    async def _look(self) -> None:
        why = self._find_distrust()
        if why is not None:
            self._must_forget = True
            raise StoreTamperedError(why)
        began_s = self._clock()
        known = self._access.published
        changes, published, token_number = await self._store.catch_up(lambda store: self._read(store, known))
        self._number = changes.number
        self._believed_until_s = began_s + self._bound_s
        if self._must_forget:
            changes, self._must_forget = Changes(changes.number, None), False
        if changes.keys is None or changes.keys:
            self._keys.forget(changes.keys)
            self._access.forget()
        if published is not None:
            self._access.use_published(published)
        if token_number != self._token_number:
            self._token_number = token_number
            self._store.note_token_change()

    def _read(self, store: OpenStore, known: PublishedPolicy) -> tuple[Changes, PublishedPolicy | None, int]:
        number = self._number
        changes = Changes(store.change_number(), None) if number is None else store.changes_since(number)
        token_number = store.token_change_number()
        if changes.number < (number or 0) or token_number < (self._token_number or 0):
            raise _gone_back(store.label)
        if changes.number == number:
            return changes, None, token_number
        return changes, read_if_newer(known, store), token_number


def _gone_back(label: str) -> StoreTamperedError:
    return StoreTamperedError(
        f"key store {label} is as it was earlier: changes that this server has seen are not in it any more",
        hint="if a backup or a replica was put in its place, versions made since are lost, and the next ones will carry"
        " their numbers: restart the key servers once you know what was made since",
    )
