"""Restores a store from a backup, to where no store is, and never back in time unknowingly.

Rules:

1. The backup is unpacked and verified first (`unpacked`); then its rows are written to their place, all or none
   (`targets`), and what is there is opened and verified as any store.
2. A store that is there is left alone. When it is what this backup gives, because an earlier run was interrupted at its
   end, that is success.
3. Where a later state of the store was seen (`high_water`), a restore would undo changes. It is refused, unless rolling
   back is allowed: then the store's change number goes on above all that was seen, so that it never means two states.
   Version numbers cannot go on like that: a version that is lost is made again by the next roll, with other material,
   and EDEKs of the lost one then open to garbage.
4. Numbers of delegation tokens go on far above the backup's; tokens themselves are not restored.

Material is copied as it rests. Neither the root of trust nor any key is written or read in clear.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from ringfence_agent.keystore.backup.file_format import BackupFile
from ringfence_agent.keystore.backup.records import encode_record
from ringfence_agent.keystore.backup.targets import RestoreTarget
from ringfence_agent.keystore.backup.unpacked import table_rows, told_of_room, unpacked
from ringfence_agent.keystore.protector import Protector
from ringfence_agent.keystore.rows.kinds import KEY_VERSION, POLICY_REVISION, ZONE_KEY
from ringfence_agent.keystore.snapshot import StoreFacts, StoreSnapshot
from ringfence_agent.keystore.sql.store import SqlKeyStore
from ringfence_zones.errors import BackupError, RingfenceError, StoreRollbackError

# More than are issued between a backup and a restore; a token's number has 31 bits.
_SKIPPED_SEQUENCES = 1_000_000
_COMPARED = frozenset({ZONE_KEY.table, KEY_VERSION.table, POLICY_REVISION.table})


@dataclass(frozen=True, slots=True)
class Seen:
    """That a store was seen at a change number, and where that is known from."""

    where: str
    change_number: int


@dataclass(frozen=True, slots=True)
class Restored:
    """The store as it is now. `was_there` when an earlier run had done it all; `undone` counts changes rolled back."""

    facts: StoreFacts
    was_there: bool
    undone: int


def restore(
    backup: BackupFile,
    protectors: Sequence[Protector],
    target: RestoreTarget,
    seen: Sequence[Seen],
    *,
    allow_rollback: bool = False,
) -> Restored:
    """Raises StoreRollbackError, BackupError for a target that is taken, and what opening a store raises."""
    newest = max(seen, key=lambda each: each.change_number, default=None)
    undone = max(0, newest.change_number - backup.manifest.change_number) if newest is not None else 0
    with unpacked(backup, protectors) as store:
        if target.is_there():
            facts = _check_same(store, backup, target, protectors)
            # Above all that was seen: an earlier run undid changes, and died before anybody was told.
            told = newest is None or facts.change_number <= newest.change_number
            return Restored(facts, was_there=True, undone=0 if told else undone)
        if undone and newest is not None:
            if not allow_rollback:
                raise _would_roll_back(backup, newest)
            with told_of_room(backup):
                store.skip_changes(newest.change_number + 1)
        with told_of_room(backup):
            store.skip_sequences(_SKIPPED_SEQUENCES)
        with store.snapshot() as snapshot:
            target.write(table_rows(snapshot.rows()), snapshot.facts.schema_version, protectors)
            return Restored(snapshot.facts, was_there=False, undone=undone)


def _would_roll_back(backup: BackupFile, newest: Seen) -> StoreRollbackError:
    number = backup.manifest.change_number
    return StoreRollbackError(
        f"backup {backup.label} holds the key store up to change {number}, but {newest.where} has seen it at change"
        f" {newest.change_number}: {newest.change_number - number} changes would be undone",
        backup_number=number,
        seen_number=newest.change_number,
        hint="restore a later backup; if there is none, --allow-rollback does it all the same: files written with a key"
        " version that is lost can never be read again",
    )


def _check_same(
    store: SqlKeyStore, backup: BackupFile, target: RestoreTarget, protectors: Sequence[Protector]
) -> StoreFacts:
    """What is there, when its keys and policies are those of the backup. Raises BackupError."""
    try:
        opened = target.open(protectors)
    except RingfenceError as error:
        raise _taken(f"{target.label} is there already, and does not open: {error.message}") from error
    with closing(opened), opened.snapshot() as there, store.snapshot() as wanted:
        found, theirs = there.facts, backup.manifest
        if found.store_id != theirs.store_id:
            raise _taken(
                f"{target.label} holds another key store, {found.store_id}; the backup is of {theirs.store_id},"
                f" {theirs.source}"
            )
        if _digest(there) != _digest(wanted) or found.change_number < theirs.change_number:
            raise _taken(
                f"{target.label} holds this key store already, at change {found.change_number}; the backup has it at"
                f" change {theirs.change_number}"
            )
        return found


def _taken(what: str) -> BackupError:
    return BackupError(
        f"{what}; a restore never writes over a store",
        hint="move the old store away, all of it, and keep it; or name another place with --to",
    )


def _digest(snapshot: StoreSnapshot) -> bytes:
    digest = hashlib.sha256(snapshot.facts.store_id.encode())
    for record in snapshot.rows():
        if record.kind in _COMPARED:
            digest.update(encode_record(record))
    return digest.digest()
