"""`ringfence keystore backup|verify|restore|drill`: that a store's keys are never lost, and that this was tried.

The commands open the store or the backup themselves, with the protectors of kms.yaml; no key server has to run, and one
may. Whoever runs them has the root of trust: root, or the service's user.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ringfence_agent import process_hygiene
from ringfence_agent.cli.keystore_held import HeldCheck, check_held, drill_verdict
from ringfence_agent.cli.keystore_options import StorePlace, protectors_of, store_options
from ringfence_agent.keystore.backup.drill import KeyDrill, drill
from ringfence_agent.keystore.backup.file_format import BackupFile, Manifest
from ringfence_agent.keystore.backup.high_water import Mark, find_mark, raise_mark
from ringfence_agent.keystore.backup.make import BackupMade, make_backup
from ringfence_agent.keystore.backup.place import S3Options
from ringfence_agent.keystore.backup.places import find_change_beside, opened_backup, parse_place
from ringfence_agent.keystore.backup.restore import Restored, Seen, restore
from ringfence_agent.keystore.backup.targets import find_target
from ringfence_agent.keystore.backup.unpacked import check_opened_by, unpacked
from ringfence_agent.keystore.open import local_path
from ringfence_agent.keystore.ownership import acting_as_owner
from ringfence_agent.keystore.protectors.file import FileProtector
from ringfence_agent.keystore.snapshot import StoreFacts
from ringfence_agent.kms.audit.offline import RESTORE, record_restore
from ringfence_agent.kms.audit.reader import find_files
from ringfence_agent.kms.audit.record import OK, utc_text
from ringfence_zones.cli import exits
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import counted, print_json, print_table, shown
from ringfence_zones.config_file import parse_duration_s
from ringfence_zones.errors import ConfigError, InputError, StoreRollbackError

SCHEMA = 1
_BACKUP = "BACKUP"
_CHANGES = ("CREATE_KEY", "ROLL_NEW_VERSION", "DELETE_KEY", "UNDELETE_KEY", "PUBLISH_POLICY")
_SHOWN_CHANGES = 20


@click.command()
@store_options
@click.option("--to", "to", metavar="PLACE", help="FILE, DIR or s3://BUCKET/PREFIX  [backup.to of kms.yaml]")
@click.option("--sse-kms-key", metavar="KEY", help="the AWS KMS key that S3 seals the object with")
@click.option("--lock-for", metavar="TIME", help="Object Lock holds the object so long, 30d for example")
@global_options
def backup(
    context: CommandContext, *, place: StorePlace, to: str | None, sse_kms_key: str | None, lock_for: str | None
) -> None:
    """Back up the key store, while key servers serve from it.

    One file, with everything that is needed but the root of trust: keep that elsewhere. Material stays wrapped as it
    is. Nothing is ever written over.
    """
    found = place.settings
    options = S3Options(kms_key_id=sse_kms_key, lock_s=_duration_s(lock_for))
    if to is None:
        if found.backup is None:
            raise InputError("nobody says where the backup goes", hint="give --to PLACE, or set backup.to in kms.yaml")
        to, options = found.backup.to, found.backup.s3 if options == S3Options() else options
    target = parse_place(to, options)
    with place.opened() as store:
        made = make_backup(store, target)
        path = local_path(found.keystore)
        is_beside = path is not None and target.is_beside(path)
    _print_backup(context, made, is_beside=is_beside)


@click.command()
@store_options
@click.argument("backup_file", metavar=f"[{_BACKUP}]", required=False)
@global_options
@click.pass_context
def verify(
    click_context: click.Context, context: CommandContext, *, place: StorePlace, backup_file: str | None
) -> None:
    """Verify all of the key store, while key servers serve from it, or of a BACKUP: a file or an S3 object.

    Every row's tag and the sealed ledger over all rows; of a backup also its digest and its signature. Whether keys can
    be opened is for `ringfence keystore drill`. Of keys that Vault holds, Vault is asked whether it has every version
    that is on record; exit 3 when it has not.
    """
    held = _verify(context, place, backup_file)
    click_context.exit(exits.FINDINGS if held.problems else exits.DONE)


def _verify(context: CommandContext, place: StorePlace, backup_file: str | None) -> HeldCheck:
    if backup_file is None:
        with place.opened() as store, store.snapshot() as snapshot:
            held = check_held(place.settings, snapshot.held)
            _print_verified(context, store.label, snapshot.facts, None, held)
        return held
    process_hygiene.forbid_core_dumps()
    found = place.backup_settings
    with (
        opened_backup(backup_file) as opened_file,
        acting_as_owner(found.keystore, found.protectors.vault),
        unpacked(opened_file, protectors_of(found)) as opened,
        opened.snapshot() as snapshot,
    ):
        _check_named_root_key(place, opened_file)
        held = check_held(found, snapshot.held)
        _print_verified(context, backup_file, snapshot.facts, opened_file.manifest, held)
    return held


@click.command("restore")
@store_options
@click.argument("backup_file", metavar=_BACKUP)
@click.option("--to", "to", metavar="URI", help="where the key store is to be  [--keystore, else that of kms.yaml]")
@click.option("--allow-rollback", is_flag=True, help="restore although later changes were seen: they are lost")
@click.option(
    "--audit-directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="this node's audit log  [as the KMS has it]",
)
@global_options
def restore_command(
    context: CommandContext,
    *,
    place: StorePlace,
    backup_file: str,
    to: str | None,
    allow_rollback: bool,
    audit_directory: Path | None,
) -> None:
    """Make a key store from BACKUP, a file or an S3 object, where none is.

    The root of trust has to be there: the root key file from its own backup, or Vault or AWS KMS. A store that is there
    is left alone. When this node, or whoever made the backups beside BACKUP, has seen later changes, nothing is
    restored without --allow-rollback. May be repeated after any interruption.
    """
    process_hygiene.forbid_core_dumps()
    found = place.at(to).settings
    marks = audit_directory or found.audit_directory
    with opened_backup(backup_file) as opened, acting_as_owner(found.keystore, found.protectors.vault):
        seen = _seen(backup_file, opened.manifest, marks)
        lost = _lost_changes(marks, opened.manifest)
        target = find_target(found.keystore, found.keystore_password_file, found.protectors.vault)
        try:
            done = restore(opened, protectors_of(found), target, seen, allow_rollback=allow_rollback)
        except StoreRollbackError:
            _print_lost(lost)
            raise
        _note_restored(marks, target.label, backup_file, opened.manifest, done)
    _print_restored(context, target.label, backup_file, done, lost if done.undone else [])


@click.command("drill")
@store_options
@click.argument("backup_file", metavar=_BACKUP)
@global_options
@click.pass_context
def drill_command(
    click_context: click.Context, context: CommandContext, *, place: StorePlace, backup_file: str
) -> None:
    """Rehearse a restore: open BACKUP alone and decrypt a canary EDEK of every key version; exit 3 when any fails.

    Of a key that Vault holds the backup has the record alone, and nothing of the key: back up Vault itself.

    BACKUP is a file or an S3 object. It is opened in a private place, in memory where there is a tmpfs, which is
    removed afterwards. The key store itself is not looked at.
    """
    process_hygiene.forbid_core_dumps()
    found = place.backup_settings
    with opened_backup(backup_file) as opened, acting_as_owner(found.keystore, found.protectors.vault):
        keys = drill(opened, protectors_of(found))
        _check_named_root_key(place, opened)
        manifest = opened.manifest
    _print_drill(context, backup_file, manifest, keys)
    click_context.exit(exits.DONE if all(key.passed for key in keys) else exits.FINDINGS)


def _check_named_root_key(place: StorePlace, opened: BackupFile) -> None:
    """Whoever names a root key file wants to know of that file, also where another protector of kms.yaml opens all."""
    if place.options.root_key is not None:
        check_opened_by(opened, FileProtector.from_file(place.options.root_key))


def _duration_s(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise InputError(f"--lock-for {error}") from None


def _seen(backup_file: str, manifest: Manifest, marks: Path) -> list[Seen]:
    """What this node and the backups beside this one know of the store."""
    seen = []
    mark = find_mark(marks, manifest.store_id)
    if mark is not None:
        seen.append(Seen(f"the key server's audit directory {marks}", mark.change_number))
    beside = find_change_beside(backup_file, manifest.store_id)
    if beside is not None:
        seen.append(Seen("the place of the backups", beside))
    return seen


def _lost_changes(directory: Path, manifest: Manifest) -> list[dict[str, Any]]:
    """What this node's audit log has of changes after the backup."""
    try:
        records = find_files([directory]).read(utc_text(manifest.made_ms / 1000))
        return [
            each.fields for each in records if each.fields.get("op") in _CHANGES and each.fields.get("outcome") == OK
        ]
    except OSError:
        return []


def _note_restored(marks: Path, target: str, source: str, manifest: Manifest, done: Restored) -> None:
    """On record, and seen by this node from here on. That the store is there is not undone when this cannot be.

    An earlier run that did it all may have been killed before it said so.
    """
    number = done.facts.change_number
    try:
        if not (done.was_there and _is_on_record(marks, target, source, manifest)):
            record_restore(marks, target, source, number, done.undone)
        raise_mark(marks, done.facts.store_id, Mark(number, time.time_ns() // 1_000_000))
    except (OSError, ConfigError) as error:
        click.echo(shown(f"the key store is restored, but that is not on record in {marks}: {error}"), err=True)


def _is_on_record(directory: Path, target: str, source: str, manifest: Manifest) -> bool:
    records = find_files([directory]).read(utc_text(manifest.made_ms / 1000))
    looked_for = {"op": RESTORE, "keystore": target, "backup": source}
    return any({name: each.fields.get(name) for name in looked_for} == looked_for for each in records)


def _print_backup(context: CommandContext, made: BackupMade, *, is_beside: bool) -> None:
    manifest = made.manifest
    if context.json:
        told = {"file": made.where, **manifest_json(manifest), "without_canary": made.missing, "same_disk": is_beside}
        print_json({"schema": SCHEMA, **told})
        return
    click.echo(shown(f"{made.where}: {_about(manifest)}"))
    if made.missing:
        click.echo(shown(f"{counted(made.missing, 'key version')} without a canary: {made.why}"), err=True)
    if is_beside:
        click.echo("it is on the key store's own disk, and is lost with it: copy it elsewhere", err=True)


def _print_verified(
    context: CommandContext, place: str, facts: StoreFacts, manifest: Manifest | None, held: HeldCheck
) -> None:
    if context.json:
        told = {**_facts_json(facts), "held": held.to_json(), "backup": manifest_json(manifest)}
        print_json({"schema": SCHEMA, "verified": place, **told})
        return
    click.echo(shown(f"{place}: genuine, {_counts(facts)}, change {facts.change_number}"))
    if manifest is not None:
        click.echo(shown(f"made {utc_text(manifest.made_ms / 1000)} from {manifest.source} by {manifest.product}"))
    held.print()


def _print_restored(
    context: CommandContext, target: str, source: str, done: Restored, lost: Sequence[dict[str, Any]]
) -> None:
    if context.json:
        told = {"keystore": target, "backup": source, "was_there": done.was_there, "undone": done.undone}
        print_json({"schema": SCHEMA, **told, **_facts_json(done.facts), "lost": lost})
        return
    _print_lost(lost)
    verb = "was restored already" if done.was_there else "restored"
    click.echo(shown(f"{target}: {verb}, {_counts(done.facts)}, change {done.facts.change_number}"))


def _print_lost(lost: Sequence[dict[str, Any]]) -> None:
    """On standard error: what is undone, as far as this node's audit log knows."""
    for each in lost[-_SHOWN_CHANGES:]:
        version = "" if each.get("version") is None else f"@{each['version']}"
        click.echo(shown(f"undone: {each['time']} {each['op']} {each.get('key') or ''}{version}"), err=True)


def _print_drill(context: CommandContext, source: str, manifest: Manifest, keys: Sequence[KeyDrill]) -> None:
    if context.json:
        told = [
            {
                "name": key.key_name,
                "versions": key.versions,
                "held": key.held,
                "passed": key.passed,
                "problems": [{"version": number, "problem": text} for number, text in sorted(key.problems.items())],
            }
            for key in keys
        ]
        print_json({"schema": SCHEMA, "backup": source, **manifest_json(manifest), "keys": told})
        return
    rows = [(key.key_name, str(len(key.versions)), drill_verdict(key)) for key in keys]
    if rows:
        print_table(("KEY", "VERSIONS", ""), rows)
    failed, held = sum(not key.passed for key in keys), sum(bool(key.held) for key in keys)
    unproven = f", {held} held by Vault and not proven" if held else ""
    click.echo(shown(f"{source}: {counted(len(keys), 'key')}, {failed or 'none'} failed{unproven}"))


def manifest_json(manifest: Manifest | None) -> dict[str, Any]:
    """What programs are told of a backup; empty without one."""
    if manifest is None:
        return {}
    return {
        "store_id": manifest.store_id,
        "source": manifest.source,
        "made": utc_text(manifest.made_ms / 1000),
        "change_number": manifest.change_number,
        "policy_revision": manifest.policy_revision,
        "rows": manifest.rows,
        "product": manifest.product,
    }


def _facts_json(facts: StoreFacts) -> dict[str, Any]:
    return {
        "store_id": facts.store_id,
        "change_number": facts.change_number,
        "policy_revision": facts.policy_revision,
        "keys": facts.keys,
        "versions": facts.versions,
    }


def _counts(facts: StoreFacts) -> str:
    return f"{counted(facts.keys, 'key')}, {counted(facts.versions, 'version')}"


def _about(manifest: Manifest) -> str:
    versions = counted(manifest.rows.get("key_version", 0), "key version")
    return f"change {manifest.change_number}, {versions}, policy revision {manifest.policy_revision}"
