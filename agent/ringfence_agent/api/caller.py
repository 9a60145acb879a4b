"""Who asks the agent, how that was proven, and what it entitles to: what every route knows about a caller.

Rules:

1. A role is a set of verbs: a viewer looks and checks, an operator also asks for grants and submits transfers, an
   administrator also does what cannot be undone or concerns somebody else. Roles are cumulative.
2. A bearer token has a role and may be narrowed to some verbs and to some paths; it never widens anything, and it
   cannot be used to act for another user.
3. Only root, the agent's own user and `delegate_users` of agent.yaml ask on behalf of somebody else. The caller then
   is that user, with that user's groups; who really asked stays in `real_user`.

Nothing here reads a request: `Caller` is made by the gate (`ringfence_agent.api.gate`) before any route is reached.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Annotated, Protocol

from fastapi import Depends, Request

from ringfence_zones.errors import AccessDeniedError
from ringfence_zones.paths import HdfsPath

CALLER = "caller"
"""Where the gate leaves the caller in the state of an ASGI scope."""


class Verb(enum.Enum):
    """What a request does, as far as rights are concerned."""

    LOOK = "look"  # health, zones, findings, policy, metrics, the page
    CHECK = "check"  # may this be moved, where to put staging directories, is this a policy
    GRANT = "grant"  # ask for a grant
    TRANSFER = "transfer"  # submit a transfer and follow it
    ADMINISTER = "administer"  # tokens, approvals, what cannot be undone, what is somebody else's


class Role(enum.Enum):
    """What a caller is to the agent."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def verbs(self) -> frozenset[Verb]:
        """What the role entitles to."""
        return _VERBS[self]

    @property
    def included(self) -> frozenset[Role]:
        """The role with all lesser ones."""
        return frozenset(role for role in Role if role.verbs <= self.verbs)


_VERBS = {
    Role.VIEWER: frozenset({Verb.LOOK, Verb.CHECK}),
    Role.OPERATOR: frozenset(Verb) - {Verb.ADMINISTER},
    Role.ADMIN: frozenset(Verb),
}


class Proof(enum.Enum):
    """How a caller was identified. The values are the words of logs."""

    PEER = "peercred"
    TOKEN = "token"  # noqa: S105 - a word, not a secret
    CERTIFICATE = "certificate"
    KERBEROS = "kerberos"


class GroupsOf(Protocol):
    """What is needed of the machine's account database to act for another user."""

    def groups_of(self, user: str) -> frozenset[str]:
        """Names of all groups the user is in; none for an unknown user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An admitted caller.

    user          whose rights count
    proof         how whoever asks was identified
    roles         cumulative: an administrator is an operator and a viewer too
    verbs         those of the roles, narrowed by a token's scope
    groups        of `user`, as this machine's account database has them
    real_user     who asks on behalf of `user`; None when that is the user itself
    may_delegate  may ask on behalf of another user
    paths         where a token may be used; None: everywhere
    uid           the kernel's, over the Unix socket; None otherwise
    token_id      the public part of the token; None without one
    principal     the Kerberos principal or the certificate's subject; None without one
    issuer        the user who made the token; None without one
    """

    user: str
    proof: Proof
    roles: frozenset[Role]
    verbs: frozenset[Verb]
    groups: frozenset[str] = frozenset()
    real_user: str | None = None
    may_delegate: bool = False
    paths: tuple[HdfsPath, ...] | None = None
    uid: int | None = None
    token_id: str | None = None
    principal: str | None = None
    issuer: str | None = None

    @property
    def people(self) -> frozenset[str]:
        """Everybody who may be behind a request: what takes two people takes two that have nobody in common."""
        return frozenset(name for name in (self.user, self.real_user, self.issuer) if name is not None)

    @property
    def label(self) -> str:
        """How logs, the audit trail and receipts name whoever asked."""
        by = {
            Proof.PEER: f"uid {self.uid}",
            Proof.TOKEN: f"token {self.token_id}",
            Proof.CERTIFICATE: f"certificate {self.principal}",
            Proof.KERBEROS: f"principal {self.principal}",
        }[self.proof]
        with_token = f" with token {self.token_id}" if self.token_id and self.proof is not Proof.TOKEN else ""
        asked_by = f" asked for by {self.real_user}" if self.real_user is not None else ""
        return f"{self.user}{asked_by} ({by}{with_token})"

    def require(self, verb: Verb) -> None:
        """Raises AccessDeniedError unless the caller may do this."""
        if verb not in self.verbs:
            raise AccessDeniedError(
                f"{self.label} may not do this: it takes the right to {verb.value}",
                hint="ask an administrator of the agent: `ringfence agent token issue`, or a role in agent.yaml",
            )

    def reaches(self, path: HdfsPath) -> bool:
        """Whether the caller's token, if any, is good for this path: `require_path` as a question."""
        return self.paths is None or any(path.live.is_inside(scope) for scope in self.paths)

    def require_path(self, path: HdfsPath) -> None:
        """Raises AccessDeniedError when the caller's token is not good for this path.

        A raw or snapshot path counts as the live path it shows.
        """
        if not self.reaches(path):
            assert self.paths is not None
            raise AccessDeniedError(
                f"token {self.token_id} is not good for {path}",
                hint=f"it is good for {', '.join(map(str, self.paths))}",
            )

    def on_behalf_of(self, named: str | None, accounts: GroupsOf) -> Caller:
        """This caller, or the user it asks for. Raises AccessDeniedError when it may not name another one."""
        if named is None or named == self.user:
            return self
        if not self.may_delegate:
            raise AccessDeniedError(
                f"{self.user} may not ask on behalf of {named}",
                hint="leave `user` out, or list the caller under delegate_users in agent.yaml",
            )
        return replace(self, user=named, real_user=self.user, groups=accounts.groups_of(named), may_delegate=False)


async def current_caller(request: Request) -> Caller:
    """The caller of a request, for a route that is for everybody who was admitted."""
    caller = request.scope["state"][CALLER]
    assert isinstance(caller, Caller)
    return caller


CurrentCaller = Annotated[Caller, Depends(current_caller)]


def require(verb: Verb) -> Callable[[Request], Awaitable[Caller]]:
    """The dependency of a route that takes this right; the route gets the caller."""

    # Asynchronous: a plain function would be run in a thread for each request.
    async def demanded(request: Request) -> Caller:
        caller = await current_caller(request)
        caller.require(verb)
        return caller

    return demanded
