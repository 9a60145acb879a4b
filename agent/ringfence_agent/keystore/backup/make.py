"""Makes a backup: one state of a store, verified, with a canary for every key version, written durably to its place.

The store goes on serving: rows are read over a connection of their own, and others change what they like meanwhile.

A canary takes the material of its version, and so the protector. Canaries that an earlier backup has are taken over, so
only new versions are opened. A protector that cannot be asked does not stop a backup: it is made without the canaries
that are missing, and says how many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from ringfence_agent.keystore.backup import canary, file_format
from ringfence_agent.keystore.backup.canary import (
    Canaries,
    Canary,
    canary_of,
    canary_record,
    make_canary,
    row_digest,
)
from ringfence_agent.keystore.backup.file_format import BodyDigest, Manifest, write_file, write_records
from ringfence_agent.keystore.backup.place import BackupPlace, unnamed_file
from ringfence_agent.keystore.backup.places import opened_backup
from ringfence_agent.keystore.backup.records import MalformedRecordError
from ringfence_agent.keystore.snapshot import BackedUpStore, Pause, SealedVersion, StoreSnapshot, paced
from ringfence_zones.errors import (
    BackupError,
    InputError,
    ProtectorRefusedError,
    ProtectorUnavailableError,
    StoreTamperedError,
)
from ringfence_zones.secret import Secret

_BATCH = 128


@dataclass(frozen=True, slots=True)
class BackupMade:
    """A backup that is there. `missing` counts key versions without a canary, and `why` is the protector's reason."""

    where: str
    manifest: Manifest
    canaries: Canaries
    missing: int = 0
    why: str | None = None


def make_backup(
    store: BackedUpStore,
    place: BackupPlace,
    known: Canaries | None = None,
    *,
    pause: Pause = lambda: None,
    clock: Callable[[], float] = time.time,
) -> BackupMade:
    """`known` are canaries from before; without any, those of the place's newest backup are looked for.

    Raises BackupError, StoreTamperedError (what is not genuine is not backed up), StoreUnavailableError, InputError.
    """
    place.check()
    key, digest_key = store.derive_secret(file_format.PURPOSE), store.derive_secret(canary.PURPOSE)
    with unnamed_file() as body, unnamed_file() as whole:
        digest = BodyDigest()
        with store.snapshot(pause) as snapshot:
            write_records(body, snapshot.rows(), digest)
        # From here on the store's rows are not held: protector and place may take their time.
        if known is None:
            known = _canaries_of_newest(place, snapshot.facts.store_id, key)
        canaries, why = _canaries(snapshot, known, digest_key, pause)
        write_records(body, map(canary_record, paced(canaries.values(), pause)), digest)
        manifest = _manifest(snapshot, store.label, digest, int(clock() * 1000))
        write_file(whole, manifest, key, body)
        where = place.put(manifest, whole)
    return BackupMade(where, manifest, canaries, len(snapshot.versions) - len(canaries), why)


def _manifest(snapshot: StoreSnapshot, source: str, digest: BodyDigest, made_ms: int) -> Manifest:
    facts = snapshot.facts
    return Manifest(
        product=f"ringfence {version('ringfence')}",
        source=source,
        made_ms=made_ms,
        store_id=facts.store_id,
        store_created_ms=facts.created_ms,
        schema_version=facts.schema_version,
        change_number=facts.change_number,
        policy_revision=facts.policy_revision,
        protector=facts.protector,
        protector_header=facts.protector_header.hex(),
        columns={table: list(columns) for table, columns in snapshot.columns.items()},
        rows=digest.rows,
        body_bytes=digest.body_bytes,
        sha256=digest.sha256,
    )


def _canaries(
    snapshot: StoreSnapshot, known: Canaries, digest_key: Secret, pause: Pause
) -> tuple[dict[tuple[str, int], Canary], str | None]:
    """As many as can be had, and the reason when that is not all."""
    found: dict[tuple[str, int], Canary] = {}
    wanted = []
    for sealed in paced(snapshot.versions, pause):
        here = known.get((sealed.key_name, sealed.version))
        if here is not None and here.row == row_digest(sealed):
            found[here.key_name, here.version] = here
        else:
            wanted.append(sealed)
    why = None
    for batch in batched(wanted):
        try:
            materials = snapshot.open_versions(batch)
        except (ProtectorUnavailableError, ProtectorRefusedError, StoreTamperedError) as error:
            why = error.message
            break
        for sealed, material in paced(zip(batch, materials, strict=True), pause):
            found[sealed.key_name, sealed.version] = make_canary(sealed, material, digest_key)
    return found, why


def batched(versions: Sequence[SealedVersion]) -> Iterator[Sequence[SealedVersion]]:
    """As many at once as a protector takes in one call."""
    for start in range(0, len(versions), _BATCH):
        yield versions[start : start + _BATCH]


def _canaries_of_newest(place: BackupPlace, store_id: str, key: Secret) -> Canaries:
    """None is no fault: then they are made anew."""
    try:
        newest = place.find_newest(store_id)
        if newest is None:
            return {}
        with opened_backup(newest) as backup:
            return read_canaries(backup) if backup.is_signed_with(key) else {}
    except (BackupError, InputError):
        return {}


def read_canaries(backup: file_format.BackupFile) -> Canaries:
    """The canaries in a backup. Raises BackupError."""
    found = {}
    try:
        for record in backup.records():
            if record.kind == canary.KIND:
                each = canary_of(record)
                found[each.key_name, each.version] = each
    except MalformedRecordError:
        raise BackupError(f"backup {backup.label} is damaged: a canary in it cannot be read") from None
    return found
