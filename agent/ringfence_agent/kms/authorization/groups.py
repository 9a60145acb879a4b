"""A user's groups, remembered for a bounded time and looked up off the event loop.

A static mapping answers first, without any look-up, as in `org.apache.hadoop.security.Groups`. Everything else comes
from the operating system (NSS), which is what Hadoop's shell and JNI mappings ask too; it may ask a directory server
and so may block. Rules:

1. Nothing is believed longer than `keep_s`, which is never more than the revocation bound leaves. From half of that
   time on, a user who is still asked about is looked up again in the background: nobody waits for a directory that
   answers within the other half.
2. One look-up per user at a time, in a thread. A directory that does not answer within `patience_s` refuses the
   requests that wait for it (503, try again); what it says later is taken.
3. A user the system does not know is in no group; that is remembered for `keep_unknown_s`. A directory that is down
   (`system_groups`) refuses like one that does not answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from ringfence_agent.kms.authorization.groups_config import GroupSettings
from ringfence_agent.kms.authorization.system_groups import look_up_system_groups
from ringfence_agent.kms.unready import Unready
from ringfence_zones.errors import StoreUnavailableError

_LIMIT = 10_000
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class _Known:
    groups: frozenset[str]
    refresh_at: float
    until: float


class Groups:
    """Groups by user. Used on the event loop only."""

    def __init__(
        self,
        settings: GroupSettings,
        executor: Executor,
        clock: Callable[[], float],
        *,
        look_up: Callable[[str], frozenset[str]] | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._settings = settings
        self._executor = executor
        self._clock = clock
        self._look_up = look_up or (look_up_system_groups if settings.asks_system else _no_groups)
        self._patience_s = patience_s
        self._known: dict[str, _Known] = {}
        self._under_way: dict[str, asyncio.Future[frozenset[str]]] = {}

    def of(self, user: str) -> frozenset[str]:
        """The user's groups. Raises Unready when they must be looked up first."""
        static = self._settings.static.get(user)
        if static is not None:
            return static
        known = self._known.get(user)
        now = self._clock()
        if known is None or now >= known.until:
            raise Unready(lambda: self._load(user))
        if now >= known.refresh_at:
            self._begin(user)
        return known.groups

    async def _load(self, user: str) -> None:
        # Shielded: one who waits no longer must not take the answer from those who still do.
        try:
            await asyncio.wait_for(asyncio.shield(self._begin(user)), self._patience_s)
        except TimeoutError:
            raise StoreUnavailableError(
                f"the groups of {user} could not be looked up within {self._patience_s:g} s",
                hint=f"see to the directory that `id {user}` asks on this machine",
            ) from None

    def _begin(self, user: str) -> asyncio.Future[frozenset[str]]:
        under_way = self._under_way.get(user)
        if under_way is None:
            loop = asyncio.get_running_loop()
            # Before the look-up: what is read while it runs may be that old.
            began = self._clock()
            under_way = self._under_way[user] = loop.run_in_executor(self._executor, self._look_up, user)
            under_way.add_done_callback(lambda done: self._keep(user, began, done))
        return under_way

    def _keep(self, user: str, began: float, done: asyncio.Future[frozenset[str]]) -> None:
        self._under_way.pop(user, None)
        if done.cancelled() or done.exception() is not None:
            return
        groups = done.result()
        keep_s = self._settings.keep_s if groups else self._settings.keep_unknown_s
        if len(self._known) >= _LIMIT:
            self._known.clear()
        # A look-up that took longer than an answer is believed must still serve those who waited for it, once.
        self._known[user] = _Known(groups, began + keep_s / 2, max(began + keep_s, self._clock() + _ONCE_S))


# Long enough for the requests that waited to be decided, short enough not to matter to the bound.
_ONCE_S = 0.1


def _no_groups(_user: str) -> frozenset[str]:
    return frozenset()
