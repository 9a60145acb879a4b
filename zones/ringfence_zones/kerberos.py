"""Kerberos for our own clients: whose tickets they use, and what to type when there are none.

A client logs in from the user's ticket cache, or from a keytab that its configuration names; a keytab is logged in
from again by itself, a cache is renewed by whoever filled it. There is no third way: a cluster with Kerberos is never
asked under a claimed name. This module loads nothing; `gssapi` does when the first token is made.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ringfence_zones.config_file import AbsolutePath, ConfigModel
from ringfence_zones.errors import AuthenticationError, ConfigError, InputError

if TYPE_CHECKING:
    from ringfence_zones.gssapi import Initiator

AUTHENTICATION = "hadoop.security.authentication"


class KerberosKeytab(ConfigModel):
    """The block `kerberos:` of client.yaml and agent.yaml."""

    principal: str
    keytab: AbsolutePath


@dataclass(frozen=True, slots=True)
class KerberosLogin:
    """The ticket cache of the environment when both are None, else this principal's key in this keytab."""

    principal: str | None = None
    keytab: Path | None = None

    @classmethod
    def of(cls, block: KerberosKeytab | None) -> KerberosLogin:
        """The login that a configuration file asks for; the ticket cache without a block."""
        return cls() if block is None else cls(block.principal, block.keytab)

    @property
    def command(self) -> str:
        """What gets a ticket, or shows why a keytab gives none."""
        if self.keytab is None:
            return "kinit"
        return f"kinit -k -t {shlex.quote(str(self.keytab))} {shlex.quote(str(self.principal))}"

    def check(self) -> None:
        """Raises ConfigError for a keytab that this process cannot read: Java's and MIT's own words hide the file."""
        if self.keytab is None:
            return
        try:
            with self.keytab.open("rb"):
                pass
        except OSError as error:
            raise ConfigError(
                f"cannot read the keytab {self.keytab}: {error.strerror}",
                hint="run as its owner, or take the kerberos block out of the configuration and use a ticket: kinit",
            ) from error

    @contextmanager
    def initiate(self, host: str) -> Iterator[Initiator]:
        """One exchange with the service HTTP/`host`. Raises AuthenticationError when there is no ticket for it."""
        from ringfence_zones.gssapi import SERVICE, Initiator  # noqa: PLC0415 - only a secure cluster needs it

        self.check()
        cache = None if self.keytab is None else self._cache_name(self.keytab)
        try:
            initiator = Initiator(SERVICE, host, cache=cache, client_keytab=self.keytab, principal=self.principal)
        except AuthenticationError as error:
            raise self.no_ticket(error.message) from error
        with initiator:
            yield initiator

    def _cache_name(self, keytab: Path) -> str:
        """A keytab's tickets stay in this process; the user's own cache is never written to.

        One for each keytab: two realms may have a principal of the same name.
        """
        digest = hashlib.sha256(f"{keytab}\0{self.principal}".encode(errors="surrogateescape")).hexdigest()
        return f"MEMORY:ringfence-{digest}"

    def no_ticket(self, why: str) -> AuthenticationError:
        """The error for a login that Kerberos does not give; `why` is the library's reason."""
        if self.keytab is not None:
            return AuthenticationError(
                f"the keytab {self.keytab} gives no ticket for {self.principal}: {why}",
                hint="this shows what is wrong with it",
                command=self.command,
            )
        return AuthenticationError(
            f"this cluster uses Kerberos, and there is no valid ticket here: {why}",
            hint="get one, then run the same command again",
            command=self.command,
        )


def uses_kerberos(conf: Mapping[str, str]) -> bool:
    """Whether core-site.xml asks for more than a claimed name (`hadoop.security.authentication`)."""
    return conf.get(AUTHENTICATION, "simple").lower() != "simple"


def refuse_claimed_user(as_user: str | None) -> None:
    """Raises InputError when somebody is named on a cluster where only a ticket counts."""
    if as_user is not None:
        raise InputError(
            f"--as {as_user} is for simple authentication, and this cluster uses Kerberos",
            hint="get a ticket as that user instead",
            command=f"kinit {as_user}",
        )
