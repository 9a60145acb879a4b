"""Root works on a store as the store's owner does, so that no file of it ends up as root's.

A store elsewhere has no owner here; one that Vault keeps or opens is worked on as whoever owns the key server's token.

A store's directory belongs to the service's user, who could put anything there: root touches it only with that user's
rights. What root alone may read, a stock KMS's key store say, is read outside.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager

from ringfence_agent.keystore.open import local_path
from ringfence_agent.vault.settings import VaultSettings
from ringfence_zones.errors import InputError
from ringfence_zones.user_rights import acting_as


@contextmanager
def acting_as_owner(uri: str, vault: VaultSettings | None = None) -> Iterator[None]:
    """As root: the rights of whoever owns the directory of an SQLite store, or else of the token for Vault, within the
    block. Else nothing changes.

    The rights are the process's: no other thread may need root's meanwhile.
    """
    uid, gid = _find_owner(uri, vault)
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    with acting_as(uid, gid, _groups_of(uid, gid)):
        yield


def _find_owner(uri: str, vault: VaultSettings | None) -> tuple[int, int]:
    try:
        path = local_path(uri)
        if path is None and vault is not None and vault.agent_socket is None:
            path = vault.token_file
        found = path.parent.stat() if path is not None else None
    except (InputError, OSError):
        found = None  # the open says what is wrong
    if found is None:
        return 0, 0
    return found.st_uid, found.st_gid


def _groups_of(uid: int, gid: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return [gid]
