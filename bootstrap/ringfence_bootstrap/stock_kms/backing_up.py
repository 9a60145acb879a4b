"""A backup of the key store as it is, unless there is one already."""

from __future__ import annotations

import datetime
from pathlib import Path

from ringfence_bootstrap.stock_kms.backup import Content, backup_name, is_backup_of, read_public_key, seal
from ringfence_bootstrap.stock_kms.backup_places import BackupPlace
from ringfence_bootstrap.stock_kms.hardening import Hardening
from ringfence_bootstrap.stock_kms.key_store import is_being_written, read_key_store, read_password
from ringfence_zones.secret import Secret


def back_up(hardening: Hardening, public: Path, place: BackupPlace) -> tuple[str | None, bool]:
    """The name of the backup of the key store as it is, and whether it was made now; no name before the first key."""
    names = place.names()
    if not names and not hardening.key_store.exists() and not is_being_written(hardening.key_store):
        return None, False
    content = read_key_store(hardening.key_store)
    there = next((name for name in names if is_backup_of(name, content)), None)
    if there is not None:
        return there, False
    now = datetime.datetime.now(datetime.UTC)
    made = seal(Content(Secret(content), read_password(hardening.password)), read_public_key(public), now)
    name = backup_name(content, now)
    place.put(name, made)
    return name, True
