"""`ringfence kms harden backup` and `restore`: the keys of a hardened KMS off this node, and back."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import click

from ringfence_bootstrap.account.connection import AwsPlace, Connection
from ringfence_bootstrap.cli.harden_runs import (
    FILE,
    NOTHING_COLLECTED,
    backup_place,
    connect,
    done,
    get_hardened,
    provers_option,
    recover,
    region_option,
    show,
    sse_option,
    state_option,
    yes_option,
)
from ringfence_bootstrap.cli.journal_runs import saying
from ringfence_bootstrap.journal import Journal, locked, run
from ringfence_bootstrap.stock_kms.backing_up import back_up
from ringfence_bootstrap.stock_kms.backup import read_private_key, unseal
from ringfence_bootstrap.stock_kms.backup_places import BucketPlace, read_backup_file
from ringfence_bootstrap.stock_kms.restoring import remove_copies, restore_steps
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import print_json, shown
from ringfence_zones.errors import InputError


@click.command()
@state_option
@click.option("--to", metavar="PLACE", help="a directory, or s3://BUCKET/PREFIX  [as it was hardened]")
@click.option("--key", type=FILE, metavar="PEM", help="the RSA public key  [as it was hardened]")
@sse_option
@region_option
@global_options
def backup(
    context: CommandContext,
    *,
    state: Path,
    to: str | None,
    key: Path | None,
    sse_kms_key: str | None,
    region: str | None,
) -> None:
    """Back the key store up, unless this very file is backed up there already. Units run it at each change."""
    _, hardening, _ = get_hardened(state.absolute())
    public = key or hardening.backup_key
    sealed_by = sse_kms_key or hardening.backup_sse_key
    place = backup_place(to or hardening.backup_to, sealed_by, region or hardening.backup_region)
    if public is None or place is None:
        raise InputError("no place for backups was named", hint="--to PLACE --key PEM")
    name, is_new = back_up(hardening, public, place)
    if context.json:
        print_json({"schema": 1, "backup": name, "new": is_new})
    elif name is None:
        click.echo("no key was made yet: there is nothing to back up")
    else:
        click.echo(f"{shown(name)} {'was made' if is_new else 'is there already'}")


@click.command()
@click.argument("source", metavar="BACKUP")
@click.option("--private-key", type=FILE, required=True, metavar="PEM", help="of the key pair that backups are for")
@provers_option
@state_option
@region_option
@yes_option
@global_options
def restore(
    context: CommandContext,
    *,
    source: str,
    private_key: Path,
    provers: Sequence[str],
    state: Path,
    region: str | None,
    yes: bool,
) -> None:
    """Bring the keys of a BACKUP (a file, or s3://BUCKET/PREFIX/NAME) into the hardened KMS of this machine.

    The key store that is there is put aside, never over: what was made since the backup is in it alone. On a new
    cluster: harden its KMS first, then restore.
    """
    state = state.absolute()
    say = saying(context)
    with locked(state):
        recover(context, state, provers, say)
        _, hardening, authority = get_hardened(state)
        content = unseal(_fetch(source, region or hardening.backup_region), read_private_key(private_key), source)
        stamp = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}"
        after = connect(context, provers, authority)
        steps = restore_steps(hardening, content, stamp, after)
        show(context, "restore", hardening, steps, NOTHING_COLLECTED, yes=yes)
        if not yes:
            return
        details = {**hardening.to_json(), "authority": str(authority), "stamp": stamp}
        run(Journal(state / "restore.json"), details, steps, say)
        remove_copies(hardening)
    done(context, f"the KMS answers at {hardening.secure_uri} with the keys of {source}", None, [])


def _fetch(source: str, region: str | None) -> bytes:
    if not source.startswith("s3:"):
        return read_backup_file(Path(source))
    prefix, _, name = source.rpartition("/")
    return BucketPlace(prefix + "/", None, Connection(AwsPlace(region))).get(name)
