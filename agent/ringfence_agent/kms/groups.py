"""A user's groups, remembered for a bounded time and looked up off the event loop.

`hadoop.user.group.static.mapping.overrides` (core-site.xml) answers first, without any look-up. Everything else
comes from the operating system (NSS), which may ask a directory server and so may block; that is what Hadoop's
default group mapping does too. A user the system does not know is in no group.
"""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
from collections.abc import Callable, Mapping
from concurrent.futures import Executor

from ringfence_agent.kms.unready import Unready
from ringfence_zones.errors import ConfigError

STATIC_MAPPING = "hadoop.user.group.static.mapping.overrides"
_LIMIT = 10_000


class Groups:
    """Groups by user. `keep_s` bounds how long a look-up is believed, and so how long a removal can go unseen."""

    def __init__(
        self,
        static: Mapping[str, frozenset[str]],
        executor: Executor,
        clock: Callable[[], float],
        keep_s: float,
        look_up: Callable[[str], frozenset[str]] | None = None,
    ) -> None:
        self._static = static
        self._executor = executor
        self._clock = clock
        self._keep_s = keep_s
        self._look_up = look_up or look_up_system_groups
        self._known: dict[str, tuple[float, frozenset[str]]] = {}

    def of(self, user: str) -> frozenset[str]:
        """The user's groups. Raises Unready when they must be looked up first."""
        static = self._static.get(user)
        if static is not None:
            return static
        known = self._known.get(user)
        if known is not None and self._clock() < known[0]:
            return known[1]
        raise Unready(lambda: self._load(user))

    async def _load(self, user: str) -> None:
        loop = asyncio.get_running_loop()
        groups = await loop.run_in_executor(self._executor, self._look_up, user)
        if len(self._known) >= _LIMIT:
            self._known.clear()
        self._known[user] = (self._clock() + self._keep_s, groups)


def look_up_system_groups(user: str) -> frozenset[str]:
    """The groups the operating system gives a user; empty for one it does not know. May block."""
    try:
        entry = pwd.getpwnam(user)
        ids = os.getgrouplist(user, entry.pw_gid)
    except (KeyError, OSError, ValueError):
        return frozenset()
    return frozenset(name for name in map(_group_name, ids) if name is not None)


def _group_name(group_id: int) -> str | None:
    try:
        return grp.getgrgid(group_id).gr_name
    except (KeyError, OSError):
        return None


def parse_static_mapping(text: str) -> dict[str, frozenset[str]]:
    """`user1=group1,group2;user2=;user3=group3`, as `Groups.parseStaticMapping`. Raises ConfigError."""
    mapping: dict[str, frozenset[str]] = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        user, equals, groups = entry.partition("=")
        if not equals or not user.strip() or "=" in groups:
            raise ConfigError(
                f"{STATIC_MAPPING} holds {entry!r}, which is not user=group,group",
                hint="separate users with ';' and their groups with ','",
            )
        mapping[user.strip()] = frozenset(filter(None, (group.strip() for group in groups.split(","))))
    return mapping
