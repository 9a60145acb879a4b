"""`ringfence keystore`: where keys rest and what protects them. Commands for those who keep the key server alive.

They open the key store themselves, as another instance of the KMS would, with the settings of kms.yaml; servers on it
go on serving, but for `rotate-root`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import click

from ringfence_agent.cli.keystore_backup import backup, drill_command, restore_command, verify
from ringfence_agent.cli.keystore_options import StorePlace, root_key_of, store_options
from ringfence_agent.keystore.new_root_key import protect_with_file
from ringfence_agent.keystore.protectors.file import FileProtector
from ringfence_agent.keystore.slots import FILE_SCHEME, Slot
from ringfence_agent.keystore.sql.slot_changes import SlotUse
from ringfence_agent.kms.config import find_places
from ringfence_agent.kms.protector_config import ProtectorName, open_remote
from ringfence_zones.cli.component_group import ComponentGroup
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import counted, print_json, print_table, shown
from ringfence_zones.errors import InputError

_FILE = click.Path(path_type=Path)
_PROBE_S = 1.0
_LONG_RUN = 20


@click.group(cls=ComponentGroup)
def keystore() -> None:
    """Where keys rest, and what protects them."""


@keystore.command()
@store_options
@global_options
def slots(context: CommandContext, *, place: StorePlace) -> None:
    """Show what opens the key store, and which of it seals new keys; and how many versions no slot seals, for Vault
    holds them (custody transit).
    """
    with place.opened() as store:
        uses = store.slots.describe()
        with store.snapshot() as snapshot:
            held = len(snapshot.held)
    if context.json:
        print_json({"schema": 1, "slots": [_slot_json(use) for use in uses], "held": held})
        return
    rows = [
        (
            str(use.slot.id),
            use.slot.scheme,
            shown(use.slot.label),
            str(use.versions),
            "active" if use.is_active else "",
            "" if use.has_protector else "not set up here",
        )
        for use in uses
    ]
    print_table(("SLOT", "PROTECTOR", "", "VERSIONS", "", ""), rows)
    if held:
        click.echo(f"{counted(held, 'version')} more: held by Vault (custody transit), in no slot")


@keystore.command()
@click.option(
    "--with", "name", required=True, type=click.Choice(["file", "vault-transit", "aws-kms"]), help="the protector"
)
@click.option(
    "--new-root-key",
    type=_FILE,
    metavar="FILE",
    help="with --with file: the root key file to add, made when it is not there; else the one that is in use",
)
@store_options
@global_options
def protect(context: CommandContext, *, name: ProtectorName, new_root_key: Path | None, place: StorePlace) -> None:
    """Give the store another protector, and seal new keys with it.

    Every server on the store has to be set up for it before (`protector` in kms.yaml, restarted): the others refuse
    creates and rolls, and cannot open new keys. What is sealed already stays as it is: `ringfence keystore rewrap`
    moves it.

    A protector that has a slot already is only made the active one. So a store may hold keys under several, for as
    long as nobody runs rewrap: each version stays under the protector that was active when it was made.
    """
    if name != FILE_SCHEME and new_root_key is not None:
        raise InputError("--new-root-key FILE goes with --with file, and with nothing else")
    with place.opened() as store:
        if new_root_key is not None:
            slot = protect_with_file(store.slots, new_root_key.absolute())
        elif name == FILE_SCHEME:
            slot = store.slots.protect_with(FileProtector.from_file(root_key_of(place.settings)))
        else:
            protectors = open_remote(place.settings.protectors.with_one(name), name)
            slot = store.slots.protect_with(protectors[0])
    _print_slot(context, slot, f"new keys are sealed by {slot}")


@keystore.command()
@store_options
@global_options
def rewrap(context: CommandContext, *, place: StorePlace) -> None:
    """Move every key version to the active slot, one at a time.

    Servers go on serving. May be interrupted and run again: it does what is left to do.
    """
    with place.opened() as store:
        moved = store.slots.rewrap(_progress())
        active = next(use.slot for use in store.slots.describe() if use.is_active)
    if context.json:
        print_json({"schema": 1, "moved": moved, "slot": active.id})
        return
    click.echo(shown(f"{counted(moved, 'version')} moved; all are sealed by {active}"))


@keystore.command()
@click.argument("slot_id", metavar="SLOT", type=click.IntRange(1))
@store_options
@global_options
def unprotect(context: CommandContext, *, slot_id: int, place: StorePlace) -> None:
    """Take a slot away that seals nothing any more.

    Another slot has to open the store here and now. After a local slot is gone its root key file opens nothing that is
    made from now on; whoever copied file and store before still has what was in them: see `ringfence keystore
    rotate-root`.
    """
    with place.opened() as store:
        slot = store.slots.remove(slot_id)
    _print_slot(context, slot, f"{slot} is gone")


@keystore.command("rotate-root")
@store_options
@global_options
def rotate_root(context: CommandContext, *, place: StorePlace) -> None:
    """Give the store a new root: everything in it is sealed again, in one transaction. Stop every server first.

    For when a root key file may have been seen by somebody, after it was replaced. Needs the protectors of all slots.
    Sessions of clients end; delegation tokens stay good. Backups from before open with the root of before.
    """
    _require_stopped(place)
    with place.opened() as store:
        store.slots.give_new_root()
    with place.opened() as store:
        count = len(store.slots.describe())
    if context.json:
        print_json({"schema": 1, "slots": count})
        return
    click.echo(f"the store has a new root, sealed for {counted(count, 'slot')}; start the key servers again")


def _require_stopped(place: StorePlace) -> None:
    path = find_places(place.options).admin_socket
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise InputError(
        f"a key server answers at {path}",
        hint="stop every key server on this store first: one that runs on refuses everything until it is restarted",
    )


def _progress() -> Callable[[int, int], None]:
    """Says each tenth of a long run on standard error."""
    said = 0

    def report(done: int, total: int) -> None:
        nonlocal said
        if total >= _LONG_RUN and done * 10 // total > said:
            said = done * 10 // total
            click.echo(f"moving: {done} of {total}", err=True)

    return report


def _print_slot(context: CommandContext, slot: Slot, sentence: str) -> None:
    if context.json:
        print_json({"schema": 1, "slot": slot.id, "protector": slot.scheme, "label": slot.label})
        return
    click.echo(shown(sentence))


def _slot_json(use: SlotUse) -> dict[str, object]:
    return {
        "slot": use.slot.id,
        "protector": use.slot.scheme,
        "label": use.slot.label,
        "active": use.is_active,
        "set_up_here": use.has_protector,
        "versions": use.versions,
    }


for _command in (backup, drill_command, restore_command, verify):
    keystore.add_command(_command)
