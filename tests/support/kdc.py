"""A Kerberos realm for tests: one real MIT KDC for the session, private to it.

A test asks for principals by name and gets keytabs and ticket caches; nothing of the machine's own Kerberos is used.
Missing Kerberos programs fail the test: nothing here skips.
"""

from __future__ import annotations

import itertools
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from ringfence_bootstrap.sandbox import processes
from ringfence_bootstrap.sandbox.kdc import DEFAULT_REALM, Realm

_READY_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 10.0


class Kdc:
    """A running realm; principals are made when they are first asked for."""

    def __init__(self, realm: Realm) -> None:
        self.realm = realm
        self._numbers = itertools.count()
        self._principals: set[str] = set()

    @property
    def environment(self) -> dict[str, str]:
        """KRB5_CONFIG, for a server or for a client that has its own ticket cache."""
        return self.realm.environment

    def principal(self, name: str, *, max_life_s: int | None = None) -> str:
        """`name` in the realm, made when it is not there yet; returns the full name, with the realm."""
        if name not in self._principals:
            self.realm.add_principal(name, max_life_s=max_life_s)
            self._principals.add(name)
        return f"{name}@{self.realm.name}"

    def keytab(self, *names: str) -> Path:
        """A new keytab file with the keys of these principals."""
        for name in names:
            self.principal(name)
        return self.realm.keytab(f"{next(self._numbers)}", names)

    def kinit(self, name: str, *, lifetime_s: int | None = None) -> dict[str, str]:
        """KRB5_CONFIG and KRB5CCNAME of a new cache that holds a ticket of this principal, and no other."""
        cache = self.realm.directory / f"cache-{next(self._numbers)}"
        return self.realm.kinit(name, self.keytab(name), cache, lifetime_s=lifetime_s)


@contextmanager
def running_kdc(directory: Path, name: str = DEFAULT_REALM) -> Iterator[Kdc]:
    """A realm in `directory` with its KDC running; stopped at the end, whatever happened."""
    realm = Realm(directory, _free_port(), name)
    realm.create()
    log = directory / "kdc.log"
    process = processes.start(realm.server_command, {**_clean(os.environ), **realm.server_environment}, directory, log)
    try:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not _listens(realm.port):
            if not processes.is_alive(process) or time.monotonic() > deadline:
                pytest.fail(f"the KDC did not start:\n{log.read_text()}")
            time.sleep(0.02)
        yield Kdc(realm)
    finally:
        processes.stop([process], _STOP_TIMEOUT_S)


@pytest.fixture(scope="session")
def kdc() -> Iterator[Kdc]:
    """The session's realm. Ask for principals of your own, so that tests do not meet each other's."""
    with tempfile.TemporaryDirectory(prefix="rf-kdc-") as parent, running_kdc(Path(parent) / "realm") as running:
        yield running


def _clean(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith("KRB5")}


def _listens(port: int) -> bool:
    with socket.socket() as candidate:
        return candidate.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as candidate:
        candidate.bind(("127.0.0.1", 0))
        port: int = candidate.getsockname()[1]
        return port
