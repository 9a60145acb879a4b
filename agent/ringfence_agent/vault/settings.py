"""Where Vault or OpenBao is and who we are there: the `vault` block of kms.yaml.

Rules:

1. Addresses are https; plain http only to this machine itself, for a token would cross the network in clear.
2. No value is a secret: tokens, secret ids and JWTs stand in files.
3. Every node is named, not a load balancer: only then can the active node be told from its standbys.
4. With the socket of a Vault Agent (or Proxy) there are no addresses: it knows them, and holds the token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ringfence_zones.config_file import AbsolutePath, ConfigModel
from ringfence_zones.http_origin import find_origin
from ringfence_zones.kms_uri import is_loopback

AuthMethod = Literal["approle", "aws_iam", "jwt", "token_file", "agent"]

WRAP_KEY = "z-wrap"
"""The Transit key of a cluster under which the zone keys of envelope custody rest."""

DEFAULT_TOKEN_FILE = Path("/var/lib/ringfence/vault-token")
_DEFAULT_KV_MOUNT = "kv"
_DEFAULT_PORTS = {"http": 80, "https": 443}
# It becomes part of mounts, policies, roles and paths.
_CLUSTER = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?")
_MOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_ROLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# Where Vault has mounted something of its own.
_VAULTS_OWN = frozenset({"auth", "cubbyhole", "identity", "sys"})
_AUTH_MOUNTS: dict[str, str] = {"approle": "approle", "aws_iam": "aws", "jwt": "jwt"}
# What a method cannot do without, and what it alone has a use for.
_NEEDED: dict[str, tuple[str, ...]] = {
    "approle": ("role_id_file",),
    "aws_iam": ("role", "region", "server_id"),
    "jwt": ("role", "jwt_file"),
    "token_file": (),
    "agent": ("socket",),
}
_ALLOWED: dict[str, tuple[str, ...]] = {
    "approle": ("mount", "role", "role_id_file", "wrapped_secret_id_file", "secret_id_file"),
    "aws_iam": ("mount", "role", "region", "server_id"),
    "jwt": ("mount", "role", "jwt_file"),
    "token_file": (),
    "agent": ("socket",),
}


class VaultAuthBlock(ConfigModel):
    """`vault.auth`: how the key server logs in.

    approle     `role_id_file`, and one of `wrapped_secret_id_file` (a wrapping token that opens once; the default way)
                and `secret_id_file`; `role` names the role that the wrapped one must have been made for
    aws_iam     `role`, `region` of the STS that signs, `server_id` as Vault is configured; HashiCorp's Vault only
    jwt         `role`, `jwt_file`
    token_file  somebody else keeps a token in `vault.token_file`
    agent       `socket` of a Vault Agent or Proxy that adds the token itself
    """

    method: AuthMethod = "approle"
    mount: str | None = None
    role: str | None = None
    role_id_file: AbsolutePath | None = None
    wrapped_secret_id_file: AbsolutePath | None = None
    secret_id_file: AbsolutePath | None = None
    region: str | None = Field(None, pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")
    server_id: str | None = Field(None, pattern=r"^[\x21-\x7e]{1,256}$")
    jwt_file: AbsolutePath | None = None
    socket: AbsolutePath | None = None

    @field_validator("mount")
    @classmethod
    def _mount(cls, value: str | None) -> str | None:
        return None if value is None else _checked(value, _MOUNT, "a path where an auth method is mounted")

    @field_validator("role")
    @classmethod
    def _role(cls, value: str | None) -> str | None:
        return None if value is None else _checked(value, _ROLE, "the name of a role")

    @model_validator(mode="after")
    def _complete(self) -> VaultAuthBlock:
        given = {name for name in VaultAuthBlock.model_fields if name != "method" and getattr(self, name) is not None}
        missing = [name for name in _NEEDED[self.method] if name not in given]
        if missing:
            raise ValueError(f"{self.method} needs {' and '.join(missing)}")
        if useless := sorted(given - set(_ALLOWED[self.method])):
            raise ValueError(f"{self.method} has no use for {' and '.join(useless)}")
        if self.method == "approle" and (self.wrapped_secret_id_file is None) == (self.secret_id_file is None):
            raise ValueError("approle needs one of wrapped_secret_id_file and secret_id_file")
        return self


class VaultBlock(ConfigModel):
    """`vault:` in kms.yaml.

    addresses      of every node; the active one is found by asking
    cluster        whose keys these are; part of the names of mounts, policies and roles
    namespace      of OpenBao or Vault Enterprise
    ca_file        PEM of a private authority; else the system's
    transit_mount  `transit-CLUSTER` unless named
    kv_mount       of a KV version 2 engine
    token_file     where the token stands that the server's processes share; written by the login
    server_cores   of a Vault node: so many batches are sent at once, more would only queue there
    """

    addresses: list[str] = Field(default_factory=list)
    cluster: str
    namespace: str | None = None
    ca_file: AbsolutePath | None = None
    transit_mount: str | None = None
    kv_mount: str = _DEFAULT_KV_MOUNT
    token_file: AbsolutePath = DEFAULT_TOKEN_FILE
    server_cores: int = Field(2, ge=1, le=64)
    auth: VaultAuthBlock

    @field_validator("addresses")
    @classmethod
    def _addresses(cls, value: list[str]) -> list[str]:
        addresses = [_address(text) for text in value]
        if len(set(addresses)) != len(addresses):
            raise ValueError("names an address twice")
        return addresses

    @field_validator("cluster")
    @classmethod
    def _cluster(cls, value: str) -> str:
        return _checked(value, _CLUSTER, "a name of at most 48 lower-case letters, digits and inner hyphens")

    @field_validator("namespace", "transit_mount", "kv_mount")
    @classmethod
    def _path(cls, value: str | None) -> str | None:
        return None if value is None else _checked(value, _MOUNT, "a path of letters, digits and ._- between slashes")

    @field_validator("transit_mount", "kv_mount")
    @classmethod
    def _mountable(cls, value: str | None) -> str | None:
        if value is not None and value.partition("/")[0] in _VAULTS_OWN:
            raise ValueError(f"must be a mount of its own: {' and '.join(sorted(_VAULTS_OWN))} are Vault's")
        return value

    @model_validator(mode="after")
    def _reachable(self) -> VaultBlock:
        method = self.auth.method
        if method == "agent" and self.addresses:
            raise ValueError("names addresses, but with auth.method agent its socket stands for them: leave them out")
        if method != "agent" and not self.addresses:
            raise ValueError(f"names no addresses, and auth.method {method} needs those of every node")
        if self.kv_mount == (self.transit_mount or f"transit-{self.cluster}"):
            raise ValueError(f"names {self.kv_mount} as transit_mount and as kv_mount: they are two engines")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSettings:
    """The block with its defaults filled in. `agent_socket` is set, and `addresses` empty, with the method agent."""

    addresses: tuple[str, ...]
    cluster: str
    transit_mount: str
    kv_mount: str
    auth: VaultAuthBlock
    token_file: Path = DEFAULT_TOKEN_FILE
    namespace: str | None = None
    ca_file: Path | None = None
    agent_socket: Path | None = None
    server_cores: int = 2
    keystore_prefix: str | None = None
    """Where in the KV engine the key store is; None when it is elsewhere, and that engine of no concern."""

    @property
    def label(self) -> str:
        """How messages name this Vault."""
        return f"the Vault Agent at {self.agent_socket}" if self.agent_socket else ", ".join(self.addresses)

    @property
    def auth_mount(self) -> str:
        """Where the auth method is mounted, without `auth/`."""
        return self.auth.mount or _AUTH_MOUNTS.get(self.auth.method, self.auth.method)

    @property
    def role(self) -> str:
        """The role to log in as; what `ringfence vault setup` makes unless one is named."""
        return self.auth.role or f"ringfence-kms-{self.cluster}"


def vault_settings(block: VaultBlock) -> VaultSettings:
    """The block's settings; nothing is read or connected."""
    return VaultSettings(
        addresses=tuple(block.addresses),
        cluster=block.cluster,
        transit_mount=block.transit_mount or f"transit-{block.cluster}",
        kv_mount=block.kv_mount,
        auth=block.auth,
        token_file=block.token_file,
        namespace=block.namespace,
        ca_file=block.ca_file,
        agent_socket=block.auth.socket,
        server_cores=block.server_cores,
    )


def _checked(value: str, pattern: re.Pattern[str], form: str) -> str:
    if pattern.fullmatch(value) is None:
        raise ValueError(f"must be {form}")
    return value


def _address(text: str) -> str:
    origin = find_origin(text)
    if origin is None:
        raise ValueError("must hold addresses like https://vault1.example.com:8200")
    if origin.scheme == "http" and not is_loopback(origin.host):
        raise ValueError(
            f"must be https for {origin.host}: over plain http the token and the keys would travel in clear"
        )
    return f"{origin.scheme}://{origin.bracketed_host}:{origin.port or _DEFAULT_PORTS[origin.scheme]}"
