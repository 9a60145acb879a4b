"""Who may ask the agent, and as what: decided from a user whose identity somebody else has proven.

Rules:

1. Refused unless admitted: root, the agent's own user, and the users and groups of `agent.yaml`. Root and the agent's
   own user are administrators; `admins`, `operators` and those who are merely allowed have the role of that name.
2. Over the Unix socket the kernel says who asks, decided by uid, never by pid: credentials are those at connect(), a
   pid may be somebody else's by now. A uid without a name on this machine, and one that a user namespace could not
   translate, matches no rule.
3. A name proven by a certificate or a ticket has the rights of that name's user here, except that it is never taken
   for root or the agent's own user: those are known by their uid alone.

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

from ringfence_agent.api.caller import Caller, Proof, Role
from ringfence_agent.http.request import Peer
from ringfence_zones.errors import AccessDeniedError, AuthenticationError

K = TypeVar("K")
V = TypeVar("V")

_REMEMBERED_S = 30.0
_MAX_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Members:
    """Users and groups by name."""

    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    @classmethod
    def of(cls, users: Iterable[str] = (), groups: Iterable[str] = ()) -> Members:
        """From any names."""
        return cls(frozenset(users), frozenset(groups))

    def hold(self, user: str, groups: frozenset[str]) -> bool:
        """Whether the user, or one of its groups, is named."""
        return user in self.users or not self.groups.isdisjoint(groups)


NOBODY = Members()


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
    """Admits users, and says what they are.

    `trusted_uids` are root's and the agent's own. `never_admins` are administrators by no list, nor by a group.
    """

    def __init__(
        self,
        *,
        viewers: Members = NOBODY,
        operators: Members = NOBODY,
        admins: Members = NOBODY,
        delegate_users: Iterable[str] = (),
        never_admins: Iterable[str] = (),
        trusted_uids: Iterable[int],
        accounts: Accounts,
    ) -> None:
        self._members = {Role.ADMIN: admins, Role.OPERATOR: operators, Role.VIEWER: viewers}
        self._delegate_users = frozenset(delegate_users)
        self._never_admins = frozenset(never_admins)
        self._trusted_uids = frozenset(trusted_uids)
        self._accounts = accounts

    def admit_peer(self, peer: Peer) -> Caller:
        """The caller at the other end of a Unix socket.

        Raises AuthenticationError when the kernel names nobody, AccessDeniedError when no rule admits the user.
        """
        if not peer.is_unix or peer.uid is None:
            raise AuthenticationError("who is calling is not known: the kernel gives no credentials of this peer")
        uid = peer.uid
        user = self._accounts.find_name(uid)
        if user is None:
            raise AuthenticationError(f"uid {uid} has no name on this machine")
        groups = self._accounts.groups_of(user)
        trusted = uid in self._trusted_uids
        role = Role.ADMIN if trusted else self._role_of(user, groups)
        return Caller(
            user=user,
            proof=Proof.PEER,
            roles=role.included,
            verbs=role.verbs,
            groups=groups,
            may_delegate=trusted or user in self._delegate_users,
            uid=uid,
        )

    def admit_name(self, user: str, proof: Proof, principal: str | None) -> Caller:
        """The caller whom a certificate or a ticket names. Raises AccessDeniedError when no rule admits the user."""
        groups = self._accounts.groups_of(user)
        role = self._role_of(user, groups)
        return Caller(
            user=user,
            proof=proof,
            roles=role.included,
            verbs=role.verbs,
            groups=groups,
            may_delegate=user in self._delegate_users,
            principal=principal,
        )

    def _role_of(self, user: str, groups: frozenset[str]) -> Role:
        for role, members in self._members.items():
            if members.hold(user, groups) and not (role is Role.ADMIN and user in self._never_admins):
                return role
        raise AccessDeniedError(
            f"{user} may not use the agent",
            hint="list the user under allowed_users, or one of its groups under allowed_groups, in agent.yaml",
        )
