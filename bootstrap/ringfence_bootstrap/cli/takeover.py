"""`ringfence kms takeover` and `ringfence kms return`: our KMS in the stock one's place, and back.

Both show what they would do and change nothing unless `--yes` is given.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from ringfence_bootstrap.cli.journal_runs import saying, show_steps
from ringfence_bootstrap.journal import DONE, RUNNING, Journal, Step, Undo, locked, roll_back, run
from ringfence_bootstrap.takeover.exchange import Connect, Places, return_steps, takeover_steps
from ringfence_bootstrap.takeover.files import find_file_edeks
from ringfence_bootstrap.takeover.proof import Collected, FileEdek, collect
from ringfence_bootstrap.takeover.services import choose_service, find_account
from ringfence_bootstrap.takeover.stock import read_stock_kms
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import counted, listed, print_json, shown
from ringfence_zones.client_config import read_http_access
from ringfence_zones.custody import custody_word
from ringfence_zones.errors import ConfigError, InputError, InstallError, RolledBackError
from ringfence_zones.http_session import HttpAccess
from ringfence_zones.kerberos import KerberosLogin
from ringfence_zones.keys import KeyMetadata
from ringfence_zones.kms_material import KmsMaterialClient

# Not below /var/lib/ringfence: that is the service's user's, and the journal holds commands that root will run.
DEFAULT_STATE = Path("/var/lib/ringfence-takeover")
DEFAULT_CONFIG = Path("/etc/ringfence/kms.yaml")
DEFAULT_KMS_CONF = Path("/etc/hadoop-kms/conf")
DEFAULT_KEYSTORE = "sqlite:////var/lib/ringfence/keys.db"
DEFAULT_UNIT = "ringfence-kms.service"
_SHOWN_KEYS = 5
_NOTHING_COLLECTED = Collected((), ())

_PATH = click.Path(path_type=Path)


def _read_keytabs(
    _context: click.Context, _parameter: click.Parameter, given: Sequence[str]
) -> tuple[KerberosLogin, ...]:
    logins = []
    for text in given:
        principal, _, file = text.rpartition("=")
        if not principal or not Path(file).is_absolute():
            raise click.BadParameter(f"{text} is not of the form PRINCIPAL=/ABSOLUTE/FILE")
        logins.append(KerberosLogin(principal, Path(file)))
    return tuple(logins)


_state = click.option(
    "--state-dir", "state", type=_PATH, default=DEFAULT_STATE, metavar="DIR", help=f"the journal  [{DEFAULT_STATE}]"
)
_yes = click.option("--yes", is_flag=True, help="go on; without it the plan is shown and nothing is changed")
_provers = click.option(
    "--prove-as",
    "provers",
    multiple=True,
    metavar="USER",
    help="who opens EDEKs for the proof, with DECRYPT_EEK on the keys; may be repeated (simple authentication)",
)
_keytabs = click.option(
    "--prove-with",
    "keytabs",
    multiple=True,
    metavar="PRINCIPAL=FILE",
    callback=_read_keytabs,
    help="on a cluster with Kerberos: who proves, by a keytab; may be repeated",
)
_unproven = click.option("--allow-unproven", is_flag=True, help="go on although nobody named may open some keys' EDEKs")
_files = click.option(
    "--no-files", is_flag=True, help="prove no EDEKs of real files: this machine has no Hadoop client"
)


@click.command()
@click.option(
    "--kms-conf",
    type=_PATH,
    default=DEFAULT_KMS_CONF,
    metavar="DIR",
    help=f"the stock KMS's configuration  [{DEFAULT_KMS_CONF}]",
)
@click.option("--keystore", default=DEFAULT_KEYSTORE, metavar="URI", help=f"our key store  [{DEFAULT_KEYSTORE}]")
@click.option("--root-key", type=_PATH, metavar="FILE", help="root key file  [beside the SQLite store]")
@click.option(
    "--keystore-password-file", "store_password", type=_PATH, metavar="FILE", help="password of a database server"
)
@click.option(
    "--config", type=_PATH, default=DEFAULT_CONFIG, metavar="FILE", help=f"written for ours  [{DEFAULT_CONFIG}]"
)
@click.option(
    "--settings",
    type=_PATH,
    metavar="FILE",
    help="more of kms.yaml for ours, as the key store's protectors (protector, aws_kms, vault), backups, audit",
)
@click.option("--password-file", type=_PATH, metavar="FILE", help="the stock key store's  [where the stock KMS has it]")
@click.option("--stock-unit", metavar="UNIT", help="the stock KMS's systemd unit  [found]")
@click.option("--unit", default=DEFAULT_UNIT, metavar="UNIT", help=f"our KMS's systemd unit  [{DEFAULT_UNIT}]")
@click.option("--stock-start-command", metavar="CMD", help="without systemd: starts the stock KMS in the background")
@click.option("--stock-stop-command", metavar="CMD", help="without systemd: stops the stock KMS")
@click.option("--start-command", metavar="CMD", help="without systemd: starts our KMS in the background")
@click.option("--stop-command", metavar="CMD", help="without systemd: stops our KMS")
@_provers
@_keytabs
@_unproven
@_files
@_state
@_yes
@global_options
def takeover(
    context: CommandContext,
    *,
    kms_conf: Path,
    keystore: str,
    root_key: Path | None,
    store_password: Path | None,
    config: Path,
    settings: Path | None,
    password_file: Path | None,
    stock_unit: str | None,
    unit: str,
    stock_start_command: str | None,
    stock_stop_command: str | None,
    start_command: str | None,
    stop_command: str | None,
    provers: Sequence[str],
    keytabs: Sequence[KerberosLogin],
    allow_unproven: bool,
    no_files: bool,
    state: Path,
    yes: bool,
) -> None:
    """Put our KMS in the place of this machine's stock one: same keys, same address, same access lists.

    The keys are imported and proven on EDEKs, real files' among them, while the stock KMS serves; then it is stopped
    and masked, and ours answers on exactly the address that clients have in core-site.xml. Whatever fails, also the
    machine itself, ends with the stock KMS serving again (exit 4; 5 when that failed too). `ringfence kms return` goes
    back.
    """
    stock = read_stock_kms(kms_conf, context.hadoop_conf, password_file)
    places = Places(
        uri=stock.uri.text,
        host=stock.host,
        port=stock.port,
        plain_http=not stock.has_tls,
        kms_conf=kms_conf.absolute(),
        stock_keystore=stock.keystore,
        password_file=stock.password_file,
        keystore=keystore,
        root_key=root_key,
        store_password=store_password.absolute() if store_password is not None else None,
        config=config.absolute(),
        state=state.absolute(),
        stock=choose_service("stock", stock_unit, stock_start_command, stock_stop_command, masked=True),
        ours=choose_service("our", unit, start_command, stop_command, masked=False),
        settings=settings.absolute() if settings is not None else None,
    )
    find_account(keystore)
    say = saying(context)
    with locked(places.state):
        journal = Journal(places.state / "takeover.json")
        connect = _connect(context, provers, keytabs)
        _recover(places.state, connect, say)
        found = journal.find()
        if found is not None and found[0] == DONE:
            raise ConfigError(
                f"{found[1]['uri']} was taken over already", hint="go back first", command=_way_back(places.state)
            )
        collected = _collect(context, places, connect, _list_keys(context, places), with_files=not no_files)
        _show(context, "takeover", places, takeover_steps(places, collected, connect), collected, yes=yes)
        if not yes:
            return
        _require_proven(collected, allowed=allow_unproven)
        run(journal, places.to_json(), takeover_steps(places, collected, connect), say)
    _done(context, f"our KMS answers on {places.uri}", _way_back(places.state))


@click.command("return")
@_provers
@_keytabs
@_unproven
@_files
@_state
@_yes
@global_options
def return_command(
    context: CommandContext,
    *,
    provers: Sequence[str],
    keytabs: Sequence[KerberosLogin],
    allow_unproven: bool,
    no_files: bool,
    state: Path,
    yes: bool,
) -> None:
    """Give the address back to the stock KMS, with every key and version that was made since.

    New keys go into the stock KMS's own key store, under its own password; the file that was there stays beside it as
    a backup. Ends, whatever fails, with our KMS serving again (exit 4; 5 when that failed too).
    """
    state = state.absolute()
    say = saying(context)
    with locked(state):
        connect = _connect(context, provers, keytabs)
        _recover(state, connect, say)
        journal = Journal(state / "takeover.json")
        found = journal.find()
        if found is None or found[0] != DONE:
            raise ConfigError(
                f"no KMS of this machine was taken over (there is no such journal in {state})",
                hint="name the directory that `ringfence kms takeover` was given with --state-dir",
            )
        places, previous = Places.from_json(found[1]), _previous_config(journal)
        keys = _list_keys(context, places)
        _require_exportable(keys)
        collected = _collect(context, places, connect, keys, with_files=not no_files)
        steps = return_steps(places, collected, connect, previous)
        _show(context, "return", places, steps, collected, yes=yes)
        if not yes:
            return
        _require_proven(collected, allowed=allow_unproven)
        run(Journal(state / "return.json"), places.to_json() | {"previous": dict(previous)}, steps, say)
        journal.end("returned")
    _done(context, f"the stock KMS answers on {places.uri}", None)


def _recover(state: Path, connect: Connect, say: Callable[[str], None]) -> None:
    """Rolls back what a process that died left half done, and ends the command then: things are not as they looked."""
    for name in ("takeover", "return"):
        journal = Journal(state / f"{name}.json")
        found = journal.find()
        if found is None or found[0] != RUNNING:
            continue
        places = Places.from_json(found[1])
        steps = (
            takeover_steps(places, _NOTHING_COLLECTED, connect)
            if name == "takeover"
            else return_steps(places, _NOTHING_COLLECTED, connect, found[1]["previous"])
        )
        why = f"an earlier {name} was interrupted"
        told = roll_back(journal, steps, why, say)
        raise RolledBackError(
            f"{why}; everything is as it was before it{told}", hint="look at the plan again, then give --yes again"
        )


def _way_back(state: Path) -> str:
    return "ringfence kms return" + ("" if state == DEFAULT_STATE else f" --state-dir {shlex.quote(str(state))}")


def _previous_config(journal: Journal) -> Undo:
    return next(undo for name, undo in journal.begun() if name == "configure")


def _connect(context: CommandContext, provers: Sequence[str], keytabs: Sequence[KerberosLogin]) -> Connect:
    access = _access(context)
    if keytabs:
        if access.kerberos is None:
            raise InputError(
                "--prove-with is for Kerberos, and this cluster uses simple authentication",
                hint="name users instead: --prove-as USER, repeated",
            )
        accesses = {f"{each.principal} of {each.keytab}": HttpAccess(each, access.trust) for each in keytabs}
        return lambda uri: [KmsMaterialClient(uri, name, access=each) for name, each in accesses.items()]
    if provers and access.kerberos is not None:
        raise InputError(
            "--prove-as claims a name, and this cluster uses Kerberos",
            hint="name keytabs instead: --prove-with PRINCIPAL=FILE, repeated",
        )
    users = list(dict.fromkeys(provers)) or [context.user]
    return lambda uri: [KmsMaterialClient(uri, user, access=access) for user in users]


def _access(context: CommandContext) -> HttpAccess:
    return read_http_access(context.hadoop_conf, os.environ)


def _list_keys(context: CommandContext, places: Places) -> list[KeyMetadata]:
    """What the KMS that serves now has."""
    # Whoever may list keys is seldom one who may open EDEKs.
    with closing(KmsMaterialClient(places.uri, context.user, access=_access(context))) as client:
        names = client.list_key_names()
        found = client.find_keys(names)
    return [found[name] for name in names if name in found]


def _require_exportable(keys: Sequence[KeyMetadata]) -> None:
    held = [key.name for key in keys if custody_word(key.attributes) == "transit"]
    if held:
        raise InstallError(
            f"{listed('key', held)} {'is' if len(held) == 1 else 'are'} held by Vault (custody transit): a stock KMS"
            " cannot have what Vault holds, and nothing was changed",
            hint="copy the files of their zones into zones in custody envelope, remove those zones and delete the keys;"
            " then run it again",
        )


def _collect(
    context: CommandContext, places: Places, connect: Connect, keys: Sequence[KeyMetadata], *, with_files: bool
) -> Collected:
    files = _files_of(context) if with_files else []
    provers = connect(places.uri)
    try:
        return collect(provers, keys, files)
    finally:
        for prover in provers:
            prover.close()


def _files_of(context: CommandContext) -> list[FileEdek]:
    from ringfence_zones.hdfs import open_gateway  # noqa: PLC0415 - starts a JVM

    with closing(open_gateway(context.hadoop_conf, context.as_user)) as hdfs:
        return find_file_edeks(hdfs)


def _require_proven(collected: Collected, *, allowed: bool) -> None:
    if collected.unproven and not allowed:
        names = ", ".join(collected.unproven[:_SHOWN_KEYS])
        more = len(collected.unproven) - _SHOWN_KEYS
        raise InstallError(
            f"nobody named may open EDEKs of {counted(len(collected.unproven), 'key')}"
            f" ({names}{f' and {more} more' if more > 0 else ''}), so the move cannot be proven for them",
            hint="name users with DECRYPT_EEK on them: --prove-as USER (with Kerberos --prove-with PRINCIPAL=FILE),"
            " repeated; or go on unproven: --allow-unproven",
        )


def _show(
    context: CommandContext, verb: str, places: Places, steps: Sequence[Step], collected: Collected, *, yes: bool
) -> None:
    proven = len(collected.proofs)
    if context.json:
        if not yes:
            found: dict[str, Any] = {
                "schema": 1,
                "plan": verb,
                **places.to_json(),
                "steps": [{"name": step.name, "title": step.title} for step in steps],
                "proofs": {"edeks": proven, "files": collected.file_count, "unproven_keys": list(collected.unproven)},
            }
            print_json(found)
        return
    click.echo(f"{verb} of {places.uri}", err=yes)
    click.echo(f"  key stores: {shown(str(places.stock_keystore))} and {shown(places.keystore)}", err=yes)
    click.echo(f"  to be proven: {counted(proven, 'EDEK')}, {collected.file_count} of them of real files", err=yes)
    if collected.unproven:
        click.echo(f"  not to be proven: {counted(len(collected.unproven), 'key')}", err=yes)
    if not yes:
        show_steps(steps)


def _done(context: CommandContext, outcome: str, way_back: str | None) -> None:
    if context.json:
        print_json({"schema": 1, "outcome": outcome, "way_back": way_back})
        return
    click.echo(outcome + (f"; `{way_back}` goes back" if way_back else ""))
