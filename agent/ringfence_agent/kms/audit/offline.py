"""Audit records of commands that handle keys without the server: into the same log, under a number of their own."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from ringfence_agent.kms.audit.file import Seat
from ringfence_agent.kms.audit.reader import JSON_SUFFIX, last_sequence
from ringfence_agent.kms.audit.record import OK, Decision, Details, JsonLines
from ringfence_zones.errors import StoreUnavailableError
from ringfence_zones.keys import KeyMetadata

RESTORE = "RESTORE_KEYSTORE"
_IDENTITY = "admin"


def record_exports(directory: Path, keys: Sequence[KeyMetadata], target: Path) -> None:
    """One record per key, on disk when this returns. Raises ConfigError, StoreUnavailableError.

    They say EXPORT_KEY, by the user the kernel knows the caller as, with the file that the keys are about to go to.
    """
    try:
        _append(directory, [_decision("EXPORT_KEY", key.name, key.versions - 1) for key in keys], {"file": str(target)})
    except OSError as error:
        raise StoreUnavailableError(
            f"the export cannot be put on record in {directory}: {error.strerror}; nothing was exported",
            hint="make room, or name another --audit-directory",
        ) from error


def record_restore(directory: Path, keystore: str, backup: str, change_number: int, undone: int) -> None:
    """That a store was restored, RESTORE; `undone` counts changes that it is without. Raises ConfigError,
    OSError.
    """
    details: Details = {"keystore": keystore, "backup": backup, "change_number": change_number, "undone": undone}
    _append(directory, [_decision(RESTORE, None, None)], details)


def _append(directory: Path, decisions: Sequence[Decision], details: Details) -> None:
    seat = Seat(directory)
    try:
        with closing(seat.file(JSON_SUFFIX)) as file:
            lines, sequence = JsonLines(seat.number), last_sequence(directory, seat.number)
            text = b"".join(
                lines.line(time.time(), sequence + 1 + index, decision, details)
                for index, decision in enumerate(decisions)
            )
            file.append(text)
    finally:
        seat.leave()


def _decision(op: str, key: str | None, version: int | None) -> Decision:
    return Decision(
        op=op,
        key=key,
        version=version,
        user=f"uid {os.getuid()} ({getpass.getuser()})",
        real_user=None,
        principal=None,
        identity=_IDENTITY,
        address=None,
        status=None,
        outcome=OK,
        rule="the root key's file",
        revision=0,
    )
