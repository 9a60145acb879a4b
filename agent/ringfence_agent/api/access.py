"""Who may ask the agent, decided from what the kernel says about the other end of a Unix socket.

Rules:

1. Refused unless admitted: root, the agent's own user, and the users and groups of `agent.yaml`. Nothing in a
   request (no header, no field) says who is asking.
2. Decided by uid, never by pid: credentials are those at connect(), a pid may be somebody else's by now. A uid
   without a name on this machine, and one that a user namespace could not translate, matches no rule.
3. Only root, the agent's own user and `delegate_users` may ask about another user.

Groups are those of the account database; what it says is remembered for half a minute (`RememberedAccounts`).
"""

from __future__ import annotations

import grp
import os
import pwd
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ringfence_agent.http.request import Peer
from ringfence_zones.errors import AccessDeniedError, AuthenticationError

K = TypeVar("K")
V = TypeVar("V")

_REMEMBERED_S = 30.0
_MAX_REMEMBERED = 4096
_ROOT_UID = 0


@dataclass(frozen=True, slots=True)
class Caller:
    """An admitted caller. `may_delegate`: may ask on behalf of another user."""

    uid: int
    user: str
    may_delegate: bool

    def user_or_delegate(self, named: str | None) -> str:
        """The user a question is about. Raises AccessDeniedError when another one is named without the right."""
        if named is None or named == self.user:
            return self.user
        if not self.may_delegate:
            raise AccessDeniedError(
                f"{self.user} may not ask on behalf of {named}",
                hint="leave `user` out, or list the caller under delegate_users in agent.yaml",
            )
        return named


class Accounts(Protocol):
    """The machine's account database, so that rules can be tested without one."""

    def find_name(self, uid: int) -> str | None:
        """The user's name, None for an unknown uid."""

    def groups_of(self, user: str) -> frozenset[str]:
        """Names of all groups the user is in; none for an unknown user."""


class SystemAccounts:
    """The name service of this machine."""

    def find_name(self, uid: int) -> str | None:
        """See `Accounts`."""
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return None

    def groups_of(self, user: str) -> frozenset[str]:
        """See `Accounts`. A group without a name is left out."""
        try:
            group_ids = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
        except (KeyError, ValueError, OSError):
            return frozenset()
        return frozenset(name for group_id in group_ids if (name := _find_group_name(group_id)) is not None)


class RememberedAccounts:
    """Another account database, asked at most twice a minute for each name: a directory service may be far away."""

    def __init__(self, accounts: Accounts, clock: Callable[[], float] = time.monotonic) -> None:
        self._accounts = accounts
        self._clock = clock
        self._names: dict[int, tuple[float, str | None]] = {}
        self._groups: dict[str, tuple[float, frozenset[str]]] = {}

    def find_name(self, uid: int) -> str | None:
        """See `Accounts`."""
        return self._remember(self._names, uid, self._accounts.find_name)

    def groups_of(self, user: str) -> frozenset[str]:
        """See `Accounts`."""
        return self._remember(self._groups, user, self._accounts.groups_of)

    def _remember(self, known: dict[K, tuple[float, V]], key: K, find: Callable[[K], V]) -> V:
        found = known.get(key)
        if found is not None and found[0] > self._clock():
            return found[1]
        value = find(key)
        if len(known) >= _MAX_REMEMBERED:
            known.clear()
        known[key] = (self._clock() + _REMEMBERED_S, value)
        return value


def _find_group_name(group_id: int) -> str | None:
    try:
        return grp.getgrgid(group_id).gr_name
    except KeyError:
        return None


class AccessRules:
    """Admits peers."""

    def __init__(
        self,
        *,
        allowed_users: Iterable[str],
        allowed_groups: Iterable[str],
        delegate_users: Iterable[str],
        service_uid: int,
        accounts: Accounts,
    ) -> None:
        self._allowed_users = frozenset(allowed_users)
        self._allowed_groups = frozenset(allowed_groups)
        self._delegate_users = frozenset(delegate_users)
        self._trusted_uids = frozenset({_ROOT_UID, service_uid})
        self._accounts = accounts

    def admit(self, peer: Peer) -> Caller:
        """The caller. Raises AuthenticationError when the kernel names nobody, AccessDeniedError when no rule does."""
        if not peer.is_unix or peer.uid is None:
            raise AuthenticationError("who is calling is not known: the kernel gives no credentials of this peer")
        uid = peer.uid
        user = self._accounts.find_name(uid)
        if user is None:
            raise AuthenticationError(f"uid {uid} has no name on this machine")
        if uid in self._trusted_uids:
            return Caller(uid, user, may_delegate=True)
        if user not in self._allowed_users and not self._allowed_groups & self._accounts.groups_of(user):
            raise AccessDeniedError(
                f"{user} may not use the agent",
                hint="list the user under allowed_users, or one of its groups under allowed_groups, in agent.yaml",
            )
        return Caller(uid, user, may_delegate=user in self._delegate_users)
