"""What an administrator sets up in Vault: mounts, policies, logins; and what can be seen of the server itself."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringfence_agent.vault.caller import Caller, data_of, is_missing, number, texts
from ringfence_agent.vault.refusal import VaultRefusedError
from ringfence_zones.errors import ProtectorRefusedError
from ringfence_zones.secret import Secret


@dataclass(frozen=True, slots=True)
class Mount:
    """A secrets engine or an auth method. `options` are those of its type, such as KV's `version`."""

    type: str
    accessor: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRole:
    """What matters of a role. Times are seconds. A field that the server does not know reads as its dangerous value."""

    token_policies: tuple[str, ...]
    token_no_default_policy: bool
    token_period_s: int
    token_type: str
    secret_id_num_uses: int
    secret_id_ttl_s: int
    secret_id_bound_cidrs: tuple[str, ...]
    token_bound_cidrs: tuple[str, ...]
    bind_secret_id: bool


@dataclass(frozen=True, slots=True)
class WrappingToken:
    """A response that opens once: its token, and where it was made."""

    token: Secret
    creation_path: str
    ttl_s: int


@dataclass(frozen=True, slots=True)
class RaftPeer:
    """A server of Vault's own storage."""

    node_id: str
    is_voter: bool
    is_leader: bool


class VaultSystem:
    """Calls under `sys/` and the roles of AppRole. All of it goes to the active node."""

    def __init__(self, caller: Caller, sys: Any, approle: Any) -> None:
        """`sys` and `approle` are hvac's."""
        self._caller = caller
        self._sys = sys
        self._approle = approle

    # Mounts

    def list_mounts(self) -> dict[str, Mount]:
        """Secrets engines by path, without the trailing slash."""
        return _mounts(self._sys.list_mounted_secrets_engines())

    def enable_engine(self, path: str, kind: str, description: str, options: Mapping[str, str] | None = None) -> None:
        """Mounts a secrets engine."""
        self._sys.enable_secrets_engine(kind, path, description, options=dict(options) if options else None)

    def list_logins(self) -> dict[str, Mount]:
        """Auth methods by path, without the trailing slash."""
        return _mounts(self._sys.list_auth_methods())

    def enable_login(self, path: str, kind: str, description: str) -> None:
        """Mounts an auth method."""
        self._sys.enable_auth_method(kind, description, path=path)

    def is_lockout_disabled(self, path: str) -> bool:
        """Whether five wrong secrets with a role id that everybody may know do not lock the role out for 15 minutes."""
        return data_of(self._sys.read_auth_method_tuning(path)).get("user_lockout_disable") is True

    def disable_lockout(self, path: str) -> None:
        """See `is_lockout_disabled`. Not hvac's, which does not know the field."""
        self._caller.call("POST", f"sys/auth/{path}/tune", {"user_lockout_config": {"lockout_disable": True}})

    # Policies

    def find_policy(self, name: str) -> str | None:
        """A policy's HCL; None when there is none of that name."""
        try:
            return str(data_of(self._sys.read_acl_policy(name)).get("policy", ""))
        except VaultRefusedError as error:
            if is_missing(error):
                return None
            raise

    def write_policy(self, name: str, hcl: str) -> None:
        """Makes a policy or replaces it; tokens that have it follow at once."""
        self._sys.create_or_update_acl_policy(name, hcl)

    def capabilities(self, paths: Sequence[str]) -> dict[str, frozenset[str]]:
        """What the caller's own token may do on each path: `read`, `update`, ..., or `deny` alone."""
        answer = data_of(self._sys.get_capabilities(list(paths)))
        return {path: frozenset(texts(answer, path) or ("deny",)) for path in paths}

    # AppRole

    def find_role(self, mount: str, name: str) -> AppRole | None:
        """A role; None when there is none of that name."""
        try:
            data = data_of(self._approle.read_role(name, mount_point=mount))
        except VaultRefusedError as error:
            if is_missing(error):
                return None
            raise
        return AppRole(
            token_policies=tuple(sorted(texts(data, "token_policies"))),
            token_no_default_policy=data.get("token_no_default_policy") is True,
            token_period_s=number(data, "token_period"),
            token_type=str(data.get("token_type") or ""),
            secret_id_num_uses=number(data, "secret_id_num_uses"),
            secret_id_ttl_s=number(data, "secret_id_ttl"),
            secret_id_bound_cidrs=_networks(data.get("secret_id_bound_cidrs")),
            token_bound_cidrs=_networks(data.get("token_bound_cidrs")),
            bind_secret_id=data.get("bind_secret_id") is not False,
        )

    def write_role(self, mount: str, name: str, role: AppRole) -> None:
        """Makes a role or changes it."""
        self._approle.create_or_update_approle(
            name,
            bind_secret_id=role.bind_secret_id,
            secret_id_bound_cidrs=list(role.secret_id_bound_cidrs),
            secret_id_num_uses=role.secret_id_num_uses,
            secret_id_ttl=f"{role.secret_id_ttl_s}s",
            token_policies=list(role.token_policies),
            token_bound_cidrs=list(role.token_bound_cidrs),
            token_no_default_policy=role.token_no_default_policy,
            token_period=f"{role.token_period_s}s",
            token_type=role.token_type,
            mount_point=mount,
        )

    def read_role_id(self, mount: str, name: str) -> str:
        """The role's id. Not a secret by itself."""
        return str(data_of(self._approle.read_role_id(name, mount_point=mount))["role_id"])

    def wrap_secret_id(self, mount: str, name: str, ttl_s: int) -> WrappingToken:
        """A new secret id that nobody here sees: the token that opens it once, within `ttl_s`."""
        info = self._approle.generate_secret_id(name, mount_point=mount, wrap_ttl=ttl_s).get("wrap_info")
        if not isinstance(info, dict) or not info.get("token"):
            raise ProtectorRefusedError("Vault did not wrap the secret id it was asked to wrap")
        return WrappingToken(Secret(info["token"].encode()), str(info.get("creation_path")), int(info.get("ttl", 0)))

    # The server

    def find_audit_devices(self) -> list[str] | None:
        """Paths of the audit devices; None when the caller may not see them."""
        try:
            answer = self._sys.list_enabled_audit_devices()
        except VaultRefusedError:
            return None
        return sorted(data_of(answer) or (path for path in answer if path.endswith("/")))

    def find_raft_peers(self) -> list[RaftPeer] | None:
        """The servers of raft storage; None when the storage is another or the caller may not see them."""
        try:
            servers = data_of(self._sys.read_raft_config())["config"]["servers"]
        except (VaultRefusedError, KeyError, TypeError):
            return None
        return [
            RaftPeer(str(each.get("node_id")), each.get("voter") is True, each.get("leader") is True)
            for each in servers
        ]


def _mounts(answer: Mapping[str, Any]) -> dict[str, Mount]:
    return {
        path.rstrip("/"): Mount(str(each.get("type")), str(each.get("accessor", "")), each.get("options") or {})
        for path, each in data_of(answer).items()
        if isinstance(each, dict)
    }


def _networks(cidrs: Sequence[str] | None) -> tuple[str, ...]:
    """With their length always said: Vault leaves /32 out of what it was given."""
    return tuple(sorted(str(ipaddress.ip_network(cidr)) for cidr in cidrs or ()))
