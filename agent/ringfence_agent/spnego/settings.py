"""How a server takes Kerberos: the block that kms.yaml and agent.yaml share, and what it comes to.

Refused: a keytab that others can read, and a principal that is not one of HTTP.
"""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ringfence_agent.spnego.auth_to_local import AuthToLocal, Mechanism
from ringfence_zones import gssapi
from ringfence_zones.config_file import AbsolutePath, ConfigModel
from ringfence_zones.errors import ConfigError
from ringfence_zones.gssapi import Acceptor, ChannelBinding

_log = logging.getLogger(__name__)


class KerberosBlock(ConfigModel):
    """`authentication.kerberos` of kms.yaml, `spnego` of agent.yaml.

    `principals` are full or without realm; none of them: every HTTP one of the keytab.
    """

    keytab: AbsolutePath
    principals: list[str] = Field(default_factory=list)
    auth_to_local: str = "DEFAULT"
    auth_to_local_mechanism: str = Field("hadoop", pattern="^(hadoop|mit)$")
    channel_binding: str = Field("opportunistic", pattern="^(off|opportunistic|required)$")


@dataclass(frozen=True, slots=True)
class KerberosSettings:
    """Kerberos as it was decided. `principals` is None for every `HTTP/...` of the keytab."""

    keytab: Path
    principals: tuple[str, ...] | None
    rules: str
    mechanism: Mechanism
    channel_binding: ChannelBinding

    def open_acceptor(self) -> Acceptor:
        """Raises ConfigError when the keytab or the library cannot be used."""
        principals = None if self.principals is None else [gssapi.full_name(name) for name in self.principals]
        return Acceptor(self.keytab, principals, self.channel_binding)

    def open_names(self) -> AuthToLocal:
        """Raises ConfigError for rules that cannot be understood, or without a default realm."""
        return AuthToLocal(self.rules, gssapi.default_realm(), self.mechanism)

    def check(self) -> None:
        """Raises ConfigError for what would stop every worker; warns of rules that make superusers of any host."""
        self.open_acceptor().close()
        for principal in self.principals or ():
            gssapi.require_key(self.keytab, principal)
        names = self.open_names()
        for service in ("hdfs", "yarn", "hive"):
            short = names.maps_any_host(service)
            if short == service:
                _log.warning("auth_to_local takes %s/<any host> for the user %s", service, short)


def kerberos_settings(block: KerberosBlock) -> KerberosSettings:
    """What the block comes to. Raises ConfigError."""
    require_private(block.keytab, "keytab")
    principals = block.principals
    wrong = [name for name in principals if not name.startswith("HTTP/")]
    if wrong:
        raise ConfigError(f"{wrong[0]} is no principal for HTTP", hint="name HTTP/<host of the server's URL>, or *")
    return KerberosSettings(
        block.keytab,
        tuple(principals) or None,
        block.auth_to_local,
        Mechanism(block.auth_to_local_mechanism),
        ChannelBinding(block.channel_binding),
    )


def require_private(path: Path, what: str) -> None:
    """Raises ConfigError unless the file is there and nobody but its owner (of a keytab: and its group) reads it."""
    try:
        state = path.stat()
    except OSError as error:
        raise ConfigError(f"cannot read the {what} {path}: {error.strerror}") from error
    if not stat.S_ISREG(state.st_mode):
        raise ConfigError(f"the {what} {path} is not a regular file")
    if state.st_mode & 0o007 or (what != "keytab" and state.st_mode & 0o077):
        raise ConfigError(f"the {what} {path} can be read by others", command=f"chmod 0600 {path}")
    if state.st_uid not in (0, os.geteuid()) and state.st_mode & 0o022:
        raise ConfigError(f"the {what} {path} can be written by others", command=f"chmod 0600 {path}")
