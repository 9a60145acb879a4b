"""Tokens: service and batch, with TTL, period, explicit maximum, a number of uses and bound addresses.

Tokens do not lag on standbys (2 to 3 ms measured): they are read as they are.
"""

from __future__ import annotations

import ipaddress
import secrets
import string
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vault_double.clock import Clock, as_rfc3339
from vault_double.storage import Storage

SYSTEM_MAX_TTL_S = 768 * 3600.0
SYSTEM_DEFAULT_TTL_S = 768 * 3600.0
_LETTERS = string.ascii_letters + string.digits


def random_name(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


@dataclass(frozen=True, slots=True)
class TokenRole:
    """What a login or a `token/create` asks for; `token_*` parameters of an auth role."""

    policies: tuple[str, ...]
    path: str
    display_name: str
    meta: dict[str, str] | None = None
    ttl_s: float = 0.0
    max_ttl_s: float = 0.0
    period_s: float = 0.0
    explicit_max_ttl_s: float = 0.0
    num_uses: int = 0
    bound_cidrs: tuple[str, ...] = ()
    renewable: bool = True
    kind: str = "service"
    parent: str = ""
    entity_id: str = ""
    namespace: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """One live token. `expires_at` is None for a root token."""

    id: str
    accessor: str
    role: TokenRole
    created_at: float
    creation_ttl_s: float
    expires_at: float | None
    uses_left: int
    renewed_at: float | None = None

    @property
    def is_root(self) -> bool:
        return "root" in self.role.policies

    @property
    def is_renewable(self) -> bool:
        return self.role.renewable and self.role.kind == "service" and self.expires_at is not None

    def may_come_from(self, peer: str) -> bool:
        """Whether the token's bound addresses allow this peer; a Unix socket has no address and is refused."""
        if not self.role.bound_cidrs:
            return True
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in ipaddress.ip_network(cidr, strict=False) for cidr in self.role.bound_cidrs)

    def as_lookup(self, now: float) -> dict[str, Any]:
        """`lookup-self`'s data; `id` is the token itself."""
        role = self.role
        data: dict[str, Any] = {
            "accessor": self.accessor,
            "creation_time": int(self.created_at),
            "creation_ttl": int(self.creation_ttl_s),
            "display_name": role.display_name,
            "entity_id": role.entity_id,
            "expire_time": None if self.expires_at is None else as_rfc3339(self.expires_at),
            "explicit_max_ttl": int(role.explicit_max_ttl_s),
            "id": self.id,
            "meta": role.meta,
            "num_uses": self.uses_left,
            "orphan": not role.parent,
            "path": role.path,
            "policies": list(role.policies),
            "ttl": 0 if self.expires_at is None else max(0, round(self.expires_at - now)),
            "type": role.kind,
        }
        if self.expires_at is not None:
            data |= {"issue_time": as_rfc3339(self.created_at), "renewable": self.is_renewable}
        if role.period_s:
            data["period"] = int(role.period_s)
        if role.bound_cidrs:
            data["bound_cidrs"] = list(role.bound_cidrs)
        if self.renewed_at is not None:
            data |= {"last_renewal": as_rfc3339(self.renewed_at), "last_renewal_time": int(self.renewed_at)}
        return data

    def as_auth(self, now: float) -> dict[str, Any]:
        """The `auth` block of a login, a creation or a renewal."""
        role = self.role
        return {
            "client_token": self.id,
            "accessor": self.accessor,
            "policies": list(role.policies),
            "token_policies": list(role.policies),
            "metadata": role.meta,
            "lease_duration": 0 if self.expires_at is None else round(self.expires_at - now),
            "renewable": self.is_renewable,
            "entity_id": role.entity_id,
            "token_type": role.kind,
            "orphan": not role.parent,
            "mfa_requirement": None,
            "num_uses": role.num_uses,
        }


class TokenStore:
    """Makes, finds, renews and revokes tokens."""

    def __init__(self, storage: Storage, clock: Clock, prefix: str) -> None:
        self._storage = storage
        self._clock = clock
        self._prefix = prefix

    def make_root(self) -> Token:
        role = TokenRole(("root",), "auth/token/root", "root", renewable=False, id=self._prefix + random_name(24))
        token = Token(role.id, random_name(24), role, self._clock.now(), 0.0, None, 0)
        self._keep(token)
        return token

    def make(self, role: TokenRole) -> Token:
        """A token with the role's limits; without any TTL it lives for the system's default."""
        now = self._clock.now()
        if "root" in role.policies and not (role.ttl_s or role.period_s or role.explicit_max_ttl_s):
            identity = role.id or self._prefix + random_name(24)
            token = Token(identity, random_name(24), replace(role, renewable=False), now, 0.0, None, role.num_uses)
            self._keep(token)
            return token
        ttl_s = role.period_s or role.ttl_s or role.max_ttl_s or SYSTEM_DEFAULT_TTL_S
        # A period takes the place of every maximum but the explicit one.
        limits = (
            [role.explicit_max_ttl_s] if role.period_s else [role.explicit_max_ttl_s, role.max_ttl_s, SYSTEM_MAX_TTL_S]
        )
        ttl_s = min([ttl_s, *(limit for limit in limits if limit)])
        identity = role.id or (("b." + random_name(176)) if role.kind == "batch" else self._prefix + random_name(24))
        accessor = "" if role.kind == "batch" else random_name(24)
        token = Token(identity, accessor, role, now, ttl_s, now + ttl_s, role.num_uses)
        self._keep(token)
        return token

    def find(self, identity: str) -> Token | None:
        """The live token, or None for one that is unknown, expired or revoked."""
        token: Token | None = self._storage.get(f"token/{identity}") if identity else None
        if token is None or (token.expires_at is not None and token.expires_at <= self._clock.now()):
            return None
        return token

    def find_by_accessor(self, accessor: str) -> Token | None:
        identity = self._storage.get(f"accessor/{accessor}")
        return self.find(identity) if identity else None

    def accessors(self) -> list[str]:
        return self._storage.names("accessor/")

    def use(self, token: Token) -> None:
        """Counts one use; the last one ends the token."""
        if not token.role.num_uses:
            return
        if token.uses_left <= 1:
            self.revoke(token)
        else:
            self._storage.put(f"token/{token.id}", replace(token, uses_left=token.uses_left - 1))

    def renew(self, token: Token, increment_s: float) -> tuple[Token, list[str]]:
        """The renewed token and warnings, when a maximum cut the wish short."""
        now, role, warnings = self._clock.now(), token.role, []
        wished_s = role.period_s or increment_s or token.creation_ttl_s
        limits = [token.created_at + limit - now for limit in (role.explicit_max_ttl_s,) if limit]
        if not role.period_s:
            limits.append(token.created_at + (role.max_ttl_s or SYSTEM_MAX_TTL_S) - now)
        left_s = min([wished_s, *limits])
        if left_s < wished_s:
            warnings.append(capped_warning(wished_s, left_s))
        renewed = replace(token, expires_at=now + left_s, renewed_at=now)
        self._keep(renewed)
        return renewed, warnings

    def revoke(self, token: Token) -> None:
        """Ends the token and, with it, the tokens it made."""
        self._storage.put(f"token/{token.id}", None)
        if token.accessor:
            self._storage.put(f"accessor/{token.accessor}", None)
        for child in list(self._children(token.id)):
            self.revoke(child)

    def _children(self, parent: str) -> Iterator[Token]:
        for identity in self._storage.names("token/"):
            token: Token | None = self._storage.get(f"token/{identity}")
            if token is not None and token.role.parent == parent:
                yield token

    def _keep(self, token: Token) -> None:
        self._storage.put(f"token/{token.id}", token)
        if token.accessor:
            self._storage.put(f"accessor/{token.accessor}", token.id)


def new_entity_id(name: str) -> str:
    """The same entity for the same alias, as the identity store gives."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def with_default(policies: Sequence[str], *, no_default: bool) -> tuple[str, ...]:
    """Sorted, without doubles, with the built-in `default` policy unless it is refused."""
    if "root" in policies:
        return ("root",)
    return tuple(sorted({*policies} | (set() if no_default else {"default"})))


def capped_warning(wished_s: float, left_s: float) -> str:
    """What the server says beside a TTL that it cut short."""
    wished, left = _go_duration(wished_s), _go_duration(left_s)
    return f'TTL of "{wished}" exceeded the effective max_ttl of "{left}"; TTL value is capped accordingly'


def _go_duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else "", f"{rest}s" if rest else ""]
    return "".join(parts) or "0s"
