"""What the commands of `ringfence kms harden` share: options, the journal, who calls the KMS, what they show."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from ringfence_bootstrap.account.connection import AwsPlace, Connection
from ringfence_bootstrap.cli.journal_runs import show_steps
from ringfence_bootstrap.journal import DONE, RUNNING, Journal, Step, roll_back
from ringfence_bootstrap.stock_kms.backup_places import BackupPlace, BucketPlace, DirectoryPlace
from ringfence_bootstrap.stock_kms.harden_steps import harden_steps, undo_steps
from ringfence_bootstrap.stock_kms.hardening import Hardening
from ringfence_bootstrap.stock_kms.restoring import restore_steps
from ringfence_bootstrap.takeover.exchange import Connect
from ringfence_bootstrap.takeover.proof import Collected
from ringfence_zones.cli.context import CommandContext
from ringfence_zones.cli.render import counted, print_json, shown
from ringfence_zones.client_config import read_http_access
from ringfence_zones.errors import ConfigError, RolledBackError
from ringfence_zones.http_session import HttpAccess
from ringfence_zones.kms_material import KmsMaterialClient
from ringfence_zones.tls_trust import TlsTrust

DEFAULT_STATE = Path("/var/lib/ringfence-stock-kms")
NOTHING_COLLECTED = Collected((), ())
FILE = click.Path(path_type=Path)
state_option = click.option(
    "--state-dir", "state", type=FILE, default=DEFAULT_STATE, metavar="DIR", help=f"the journal  [{DEFAULT_STATE}]"
)
yes_option = click.option("--yes", is_flag=True, help="go on; without it the plan is shown and nothing is changed")
provers_option = click.option(
    "--prove-as",
    "provers",
    multiple=True,
    metavar="USER",
    help="who opens EDEKs for the proof, a reader of the zones by the policy; may be repeated (simple authentication)",
)
region_option = click.option("--region", metavar="REGION", help="of the bucket  [the SDK's own]")
sse_option = click.option("--sse-kms-key", metavar="ARN", help="for backups in S3  [the bucket's default key]")


def get_hardened(state: Path) -> tuple[Journal, Hardening, Path]:
    """The hardening whose journal is in `state`, and its certificate's authority. Raises ConfigError without one."""
    journal = Journal(state / "harden.json")
    found = journal.find()
    if found is None or found[0] != DONE:
        raise ConfigError(
            f"no KMS of this machine was hardened (there is no such journal in {state})",
            hint="name the directory that `ringfence kms harden` was given with --state-dir",
        )
    return journal, Hardening.from_json(found[1]), Path(found[1]["authority"])


def recover(context: CommandContext, state: Path, provers: Sequence[str], say: Callable[[str], None]) -> None:
    """Rolls back what a process that died left half done, and ends the command then: things are not as they looked."""
    for name in ("harden", "undo", "restore"):
        journal = Journal(state / f"{name}.json")
        found = journal.find()
        if found is None or found[0] != RUNNING:
            continue
        hardening, authority = Hardening.from_json(found[1]), Path(found[1]["authority"])
        before, after = connect(context, provers), connect(context, provers, authority)
        steps: list[Step]
        if name == "harden":
            steps = harden_steps(hardening, None, NOTHING_COLLECTED, before, after)
        elif name == "undo":
            steps = undo_steps(hardening, found[1]["notes"], NOTHING_COLLECTED, before, after)
        else:
            steps = restore_steps(hardening, None, str(found[1]["stamp"]), after)
        why = f"an earlier {name} was interrupted"
        told = roll_back(journal, steps, why, say)
        raise RolledBackError(
            f"{why}; everything is as it was before it{told}", hint="look at the plan again, then give --yes again"
        )


def access_of(context: CommandContext, authority: Path | None) -> HttpAccess:
    """Who this process is, and whom it trusts: `authority` alone when it is given."""
    access = read_http_access(context.hadoop_conf, os.environ)
    return access if authority is None else HttpAccess(access.kerberos, TlsTrust(authority.absolute()))


def connect(context: CommandContext, provers: Sequence[str], authority: Path | None = None) -> Connect:
    """Calls a KMS as each of `provers`, as the command's own user without any."""
    access = access_of(context, authority)
    users = list(dict.fromkeys(provers)) or [context.user]
    return lambda uri: [KmsMaterialClient(uri, user, access=access) for user in users]


def backup_place(to: str | None, sse_kms_key: str | None, region: str | None) -> BackupPlace | None:
    """Where `--backup-to` or `--to` points; None when it was not given."""
    if to is None:
        return None
    if not to.startswith("s3:"):
        return DirectoryPlace(Path(to))
    return BucketPlace(to, sse_kms_key, Connection(AwsPlace(region)))


def show(
    context: CommandContext, verb: str, hardening: Hardening, steps: Sequence[Step], collected: Collected, *, yes: bool
) -> None:
    """The plan on standard output, or beside what is done with `--yes`."""
    if context.json:
        if not yes:
            told = {"edeks": len(collected.proofs), "unproven_keys": list(collected.unproven)}
            listed_steps = [{"name": step.name, "title": step.title} for step in steps]
            print_json({"schema": 1, "plan": verb, **hardening.to_json(), "steps": listed_steps, "proofs": told})
        return
    click.echo(f"{verb} the KMS of {shown(str(hardening.kms_conf))}", err=yes)
    click.echo(f"  to be proven: {counted(len(collected.proofs), 'EDEK')}", err=yes)
    if collected.unproven:
        click.echo(f"  not to be proven: {counted(len(collected.unproven), 'key')}", err=yes)
    if not yes:
        show_steps(steps)


def done(context: CommandContext, outcome: str, way_back: str | None, notes: Sequence[str]) -> None:
    """The outcome, the command that goes back, and what is left to do."""
    if context.json:
        print_json({"schema": 1, "outcome": outcome, "way_back": way_back, "notes": list(notes)})
        return
    click.echo(shown(outcome) + (f"; `{way_back}` goes back" if way_back else ""))
    for note in notes:
        click.echo(shown(note))
