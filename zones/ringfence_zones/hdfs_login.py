"""Who Hadoop's Java client is: a claimed name, the ticket cache, or a keytab; and how that lasts beyond one ticket.

Hadoop's `UserGroupInformation` renews a keytab login when it is asked to before a call, and reads a ticket cache once.
So a process that lives longer than a ticket calls `refresh` before it talks: a keytab is logged in from again when four
fifths of the ticket's life are over, a cache is read again when its file was replaced (kinit, k5start, sssd).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringfence_zones.hdfs_jvm import Jvm, read_failure
from ringfence_zones.kerberos import KerberosLogin

_USERS = "org.apache.hadoop.security.UserGroupInformation"
_DEFAULT_CACHE = "/tmp/krb5cc_{uid}"  # noqa: S108 - MIT's own default, only looked at


class JavaLogin:
    """The login of this process's JVM; a process has one. Raises what Java throws unless said otherwise."""

    def __init__(
        self,
        jvm: Jvm,
        java_conf: Any,
        kerberos: KerberosLogin | None,
        as_user: str | None,
        environ: Mapping[str, str],
    ) -> None:
        """Logs in. `as_user` is for simple authentication. Raises AuthenticationError without a valid ticket."""
        self._jvm = jvm
        self._kerberos = kerberos
        self._lock = threading.Lock()
        self._cache = _cache_file(environ) if kerberos is not None and kerberos.keytab is None else None
        self._cache_state = _identity(self._cache)
        users = jvm.java_class(_USERS)
        users.setConfiguration(java_conf)
        if as_user is not None:
            users.setLoginUser(users.createRemoteUser(as_user))
        if kerberos is not None:
            self._log_in(kerberos)
        self.user = str(users.getCurrentUser().getShortUserName())

    def _log_in(self, kerberos: KerberosLogin) -> None:
        users = self._jvm.java_class(_USERS)
        kerberos.check()
        try:
            if kerberos.keytab is not None:
                users.loginUserFromKeytab(kerberos.principal, str(kerberos.keytab))
            has_ticket = bool(users.getLoginUser().hasKerberosCredentials())
        except self._jvm.exception as error:
            raise kerberos.no_ticket(read_failure(error).sentence) from None
        if not has_ticket:
            where = self._cache or "the default cache"
            raise kerberos.no_ticket(f"{where} holds none that has not expired")

    def refresh(self) -> None:
        """Renews the login when it is time to. Thread-safe. Raises AuthenticationError when it cannot be renewed."""
        if self._kerberos is None:
            return
        users = self._jvm.java_class(_USERS)
        try:
            if self._kerberos.keytab is not None:
                users.getLoginUser().checkTGTAndReloginFromKeytab()
                return
            with self._lock:
                state = _identity(self._cache)
                if state == self._cache_state:
                    return
                users.getLoginUser().reloginFromTicketCache()
                self._cache_state = state
        except self._jvm.exception as error:
            raise self._kerberos.no_ticket(read_failure(error).sentence) from None


def _cache_file(environ: Mapping[str, str]) -> Path | None:
    """The file that Java reads tickets from; None for a kind of cache that it cannot read."""
    name = environ.get("KRB5CCNAME") or _DEFAULT_CACHE.format(uid=os.getuid())
    path = Path(name.removeprefix("FILE:"))
    return path if path.is_absolute() else None


def _identity(path: Path | None) -> tuple[int, int] | None:
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
