"""`ringfence keystore`: where keys rest and what protects them. Commands for those who keep the key server alive.

They open the key store themselves, as another instance of the KMS would, with the settings of kms.yaml; servers on it
go on serving, but for `rotate-root`.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import click

from ringfence_agent import process_hygiene
from ringfence_agent.cli.kms_options import config_option, keystore_option, root_key_option
from ringfence_agent.keystore.new_root_key import protect_with_file
from ringfence_agent.keystore.open import open_protected
from ringfence_agent.keystore.slots import FILE_SCHEME, Slot
from ringfence_agent.keystore.sql.ownership import acting_as_owner
from ringfence_agent.keystore.sql.slot_changes import SlotUse
from ringfence_agent.keystore.sql.store import SqlKeyStore
from ringfence_agent.kms.config import Options, StoreSettings, find_places, load_store_settings
from ringfence_agent.kms.protector_config import ProtectorName, open_protectors, open_remote
from ringfence_agent.cli.keystore_backup import backup, drill_command, restore_command, verify
from ringfence_zones.cli.component_group import ComponentGroup
from ringfence_zones.cli.context import CommandContext, global_options, hadoop_conf_given
from ringfence_zones.cli.render import counted, print_json, print_table, shown
from ringfence_zones.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")

_FILE = click.Path(path_type=Path)
_PROBE_S = 1.0
_LONG_RUN = 20


@click.group(cls=ComponentGroup)
def keystore() -> None:
    """Where keys rest, and what protects them."""


@dataclass(frozen=True)
class StorePlace:
    """Which store a command works on, as it was told."""

    options: Options

    @functools.cached_property
    def settings(self) -> StoreSettings:
        """From kms.yaml and the command's options."""
        return load_store_settings(self.options)

    @contextmanager
    def opened(self) -> Iterator[SqlKeyStore]:
        """The store, with the rights of its owner."""
        process_hygiene.forbid_core_dumps()
        found = self.settings
        with acting_as_owner(found.keystore):
            protectors = open_protectors(found.protectors)
            store = open_protected(
                found.keystore, found.root_key, False, found.keystore_password_file, protectors
            )
            with closing(store):
                yield store


def store_options(command: Callable[P, R]) -> Callable[..., R]:
    """The options that say which store; the command gets them as `place`."""

    @config_option
    @keystore_option
    @root_key_option
    @click.option("--keystore-password-file", type=_FILE, metavar="FILE", help="password for a database server")
    @functools.wraps(command)
    def with_place(
        *args: object,
        config: Path | None,
        keystore: str | None,
        root_key: Path | None,
        keystore_password_file: Path | None,
        **rest: object,
    ) -> R:
        options = Options(
            config=config,
            hadoop_conf=hadoop_conf_given(),
            keystore=keystore,
            root_key=root_key,
            keystore_password_file=keystore_password_file,
        )
        return cast("Callable[..., R]", command)(*args, place=StorePlace(options), **rest)

    return with_place


@keystore.command()
@store_options
@global_options
def slots(context: CommandContext, *, place: StorePlace) -> None:
    """Show what opens the key store, and which of it seals new keys."""
    with place.opened() as store:
        uses = store.slots.describe()
    if context.json:
        print_json({"schema": 1, "slots": [_slot_json(use) for use in uses]})
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


@keystore.command()
@click.option(
    "--with", "name", required=True, type=click.Choice(["file", "vault-transit", "aws-kms"]), help="the protector"
)
@click.option("--new-root-key", type=_FILE, metavar="FILE", help="root key file to add; made when it is not there")
@store_options
@global_options
def protect(context: CommandContext, *, name: ProtectorName, new_root_key: Path | None, place: StorePlace) -> None:
    """Give the store another protector, and seal new keys with it.

    Every server on the store has to be set up for it before (`protector` in kms.yaml, restarted): the others refuse
    creates and rolls, and cannot open new keys. What is sealed already stays as it is: `ringfence keystore rewrap` moves it.
    """
    if (name == FILE_SCHEME) != (new_root_key is not None):
        raise InputError("--new-root-key FILE goes with --with file, and with nothing else")
    with place.opened() as store:
        if new_root_key is not None:
            slot = protect_with_file(store.slots, new_root_key.absolute())
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
    made from now on; whoever copied file and store before still has what was in them: see `ringfence keystore rotate-root`.
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
        hint="stop every key server on this store first: one that runs on would refuse everything until it is restarted",
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
