"""Names of backups: they sort by store, change number and time."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from ringfence_agent.keystore.backup.file_format import SUFFIX, Manifest

_NAME = re.compile(r"ringfence-(?P<store>[0-9a-f]{16})-(?P<change>\d{10})-\d{8}T\d{9}Z" + re.escape(SUFFIX))
_SHOWN_ID = 16


def backup_name(manifest: Manifest) -> str:
    """The name of a new backup; its time is UTC, to the millisecond."""
    seconds, milliseconds = divmod(manifest.made_ms, 1000)
    made = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds)) + f"{milliseconds:03d}Z"
    return f"{name_prefix(manifest.store_id)}{manifest.change_number:010d}-{made}{SUFFIX}"


def name_prefix(store_id: str) -> str:
    """What the names of a store's backups begin with."""
    return f"ringfence-{store_id[:_SHOWN_ID]}-"


def change_number_of(name: str, store_id: str) -> int | None:
    """The change number in a backup's name, None for another store's and for what is no backup."""
    match = _NAME.fullmatch(name)
    return int(match["change"]) if match is not None and match["store"] == store_id[:_SHOWN_ID] else None


def newest_of(names: Iterable[str], store_id: str) -> str | None:
    """The name of the newest backup of a store among names."""
    return max((name for name in names if change_number_of(name, store_id) is not None), default=None)


def is_backup_name(name: str) -> bool:
    """Whether this is the name of a backup of any store."""
    return _NAME.fullmatch(name) is not None
