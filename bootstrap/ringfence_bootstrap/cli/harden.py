"""`ringfence kms harden`: Hadoop's own KMS made fit for use, watched, backed up and restored; and undone.

Hardening, undoing and restoring show what they would do and change nothing unless `--yes` is given.
"""

from __future__ import annotations

import datetime
import resource
import shlex
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click

from ringfence_bootstrap.cli.harden_backups import backup, restore
from ringfence_bootstrap.cli.harden_runs import (
    DEFAULT_STATE,
    FILE,
    access_of,
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
from ringfence_bootstrap.journal import DONE, Journal, locked, run
from ringfence_bootstrap.stock_kms.backing_up import back_up
from ringfence_bootstrap.stock_kms.backup import read_public_key
from ringfence_bootstrap.stock_kms.drift import find_drift
from ringfence_bootstrap.stock_kms.file_changes import Owner, is_as_written, put
from ringfence_bootstrap.stock_kms.harden_steps import harden_steps, remove_what_is_left, undo_steps
from ringfence_bootstrap.stock_kms.hardening import Hardening, is_on_root_volume
from ringfence_bootstrap.stock_kms.key_store import opens, read_key_store, read_password
from ringfence_bootstrap.stock_kms.preconditions import acls_of, check_new_files, trusts_already
from ringfence_bootstrap.stock_kms.stores import read_pem, read_server_certificate
from ringfence_bootstrap.stock_kms.units import PATH, TIMER, has_systemd, install_units, remove_units, unit_files
from ringfence_bootstrap.takeover.exchange import Connect
from ringfence_bootstrap.takeover.key_commands import ringfence_command
from ringfence_bootstrap.takeover.proof import Collected, collect
from ringfence_bootstrap.takeover.services import Commands, Service, SystemdUnit, choose_service
from ringfence_bootstrap.takeover.stock import read_stock_kms
from ringfence_zones.cli import exits
from ringfence_zones.cli.command_group import CommandGroup
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.policy_file import DEFAULT_POLICY
from ringfence_zones.cli.render import listed, print_findings, print_json
from ringfence_zones.errors import ConfigError, InputError, InstallError, RingfenceError
from ringfence_zones.findings import findings_json
from ringfence_zones.kms_material import KmsMaterialClient
from ringfence_zones.policy import load_policy

DEFAULT_KMS_CONF = Path("/etc/hadoop/conf")
# What clients of ours trust from then on, whatever becomes of the file that was given.
_AUTHORITY = "authority.pem"
_SECRETS = ("password", "tls-store")
_unproven = click.option("--allow-unproven", is_flag=True, help="go on although nobody named may open some keys' EDEKs")


@click.group(cls=CommandGroup, invoke_without_command=True)
@click.option(
    "--kms-conf",
    type=FILE,
    default=DEFAULT_KMS_CONF,
    metavar="DIR",
    help=f"the KMS's directory  [{DEFAULT_KMS_CONF}]",
)
@click.option("-f", "--file", "policy_file", type=FILE, default=DEFAULT_POLICY, metavar="FILE", help="the policy")
@click.option("--tls-cert", type=FILE, metavar="PEM", help="the KMS's certificate, and the chain behind it")
@click.option("--tls-key", type=FILE, metavar="PEM", help="its private key")
@click.option("--tls-ca", type=FILE, metavar="PEM", help="the authority that clients shall trust")
@click.option(
    "--password-file",
    type=FILE,
    metavar="FILE",
    help="made for the key store's new password, on another volume than the root's",
)
@click.option("--tls-store", type=FILE, metavar="FILE", help="made for certificate and key  [beside the password file]")
@click.option("--old-password-file", type=FILE, metavar="FILE", help="the key store's  [where the KMS has it]")
@click.option("--allow-root-volume", is_flag=True, help="the root volume is encrypted: secrets may lie there")
@click.option("--stock-unit", metavar="UNIT", help="the KMS's systemd unit  [found]")
@click.option("--stock-start-command", metavar="CMD", help="without systemd: starts the KMS in the background")
@click.option("--stock-stop-command", metavar="CMD", help="without systemd: stops the KMS")
@click.option("--namenode-unit", metavar="UNIT", help="the NameNode's unit, on this machine: started again")
@click.option("--namenode-start-command", metavar="CMD", help="without systemd: starts the NameNode in the background")
@click.option("--namenode-stop-command", metavar="CMD", help="without systemd: stops the NameNode")
@click.option("--backup-to", metavar="PLACE", help="for backups, off this node: a directory, or s3://BUCKET/PREFIX")
@click.option("--backup-key", type=FILE, metavar="PEM", help="the RSA public key that backups are for")
@sse_option
@region_option
@provers_option
@_unproven
@state_option
@yes_option
@global_options
@click.pass_context
def harden(
    click_context: click.Context,
    context: CommandContext,
    *,
    kms_conf: Path,
    policy_file: Path,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    password_file: Path | None,
    tls_store: Path | None,
    old_password_file: Path | None,
    allow_root_volume: bool,
    stock_unit: str | None,
    stock_start_command: str | None,
    stock_stop_command: str | None,
    namenode_unit: str | None,
    namenode_start_command: str | None,
    namenode_stop_command: str | None,
    backup_to: str | None,
    backup_key: Path | None,
    sse_kms_key: str | None,
    region: str | None,
    provers: Sequence[str],
    allow_unproven: bool,
    state: Path,
    yes: bool,
) -> None:
    """Harden this machine's Hadoop KMS: TLS, access lists of the policy, a strong key store password, backups.

    The KMS is stopped for some seconds, and the NameNode once if it is named. Every key and version stays, proven by
    EDEKs that the KMS opens before and after. Whatever fails, also the machine itself, ends with the KMS as it was
    (exit 4; 5 when that failed too). The commands below back up, restore, look for drift, and undo.
    """
    # A core file would hold passwords; this is for the commands below, too.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if click_context.invoked_subcommand is not None:
        return
    if tls_cert is None or tls_key is None or tls_ca is None or password_file is None:
        raise InputError(
            "a certificate with its key and authority, and a place for the key store's password are needed",
            hint="--tls-cert PEM --tls-key PEM --tls-ca PEM --password-file FILE",
        )
    if (backup_to is None) != (backup_key is None):
        raise InputError("--backup-to and --backup-key go together")
    say = saying(context)
    with locked(state.absolute()):
        # First of all: what was left half done is not what is to be read below.
        recover(context, state.absolute(), provers, say)
        journal = Journal(state.absolute() / "harden.json")
        found = journal.find()
        if found is not None and found[0] == DONE:
            raise ConfigError("this KMS was hardened already", hint="undo that first", command=_way_back(state))
        stock = read_stock_kms(kms_conf, context.hadoop_conf, old_password_file)
        if stock.has_tls:
            raise ConfigError(
                f"the KMS of {kms_conf} has TLS already: it was set up by somebody, and nothing is laid over that",
                hint="`ringfence kms harden check` says how it stands with one that was hardened",
            )
        policy = load_policy(policy_file)
        certificate = read_server_certificate(tls_cert, tls_key, tls_ca, stock.uri.hosts)
        password = password_file.absolute()
        hardening = Hardening(
            uri=stock.uri.text,
            host=stock.host,
            port=stock.port,
            kms_conf=kms_conf.absolute(),
            hadoop_conf=context.hadoop_conf.absolute(),
            key_store=stock.keystore,
            old_password=stock.password_file,
            password=password,
            tls_store=tls_store.absolute() if tls_store is not None else password.with_name("ringfence-kms-tls.p12"),
            acls=acls_of(policy, kms_conf),
            trusts_already=trusts_already(context.hadoop_conf, certificate),
            on_root_volume=is_on_root_volume(password),
            state=state.absolute(),
            kms=choose_service("stock", stock_unit, stock_start_command, stock_stop_command, masked=True),
            namenode=_namenode(namenode_unit, namenode_start_command, namenode_stop_command),
            backup_to=backup_to
            if backup_to is None or backup_to.startswith("s3:")
            else str(Path(backup_to).absolute()),
            backup_key=backup_key.absolute() if backup_key is not None else None,
            backup_sse_key=sse_kms_key,
            backup_region=region,
        )
        check_new_files(hardening, allow_root_volume=allow_root_volume)
        if backup_key is not None:
            read_public_key(backup_key)
        has_keys = stock.keystore.exists()
        if has_keys and not opens(read_key_store(stock.keystore), read_password(stock.password_file)):
            raise ConfigError(
                f"the password of {stock.password_file or 'Hadoop'} does not open {stock.keystore}",
                hint="name the file that the KMS takes it from: --old-password-file",
            )
        before = connect(context, provers)
        after = connect(context, provers, tls_ca)
        collected = _collect(context, hardening.uri, before)
        steps = harden_steps(hardening, certificate, collected, before, after)
        show(context, "harden", hardening, steps, collected, yes=yes)
        if not yes:
            return
        _require_proven(collected, allowed=allow_unproven)
        hardening.old_key_store.unlink(missing_ok=True)
        authority = hardening.state / _AUTHORITY
        put(authority, read_pem(tls_ca), 0o644, Owner.of(hardening.state))
        run(journal, {**hardening.to_json(), "authority": str(authority)}, steps, say)
        remove_what_is_left(hardening, undone=False)
    notes = [] if hardening.namenode is not None else ["restart the NameNode: it calls the KMS at its old address"]
    if hardening.backup_to is not None:
        notes += [_first_backup(hardening), _install_units(hardening)]
    done(context, f"the KMS answers at {hardening.secure_uri}", _way_back(state), notes)


@harden.command()
@provers_option
@_unproven
@state_option
@yes_option
@global_options
def undo(context: CommandContext, *, provers: Sequence[str], allow_unproven: bool, state: Path, yes: bool) -> None:
    """Put the KMS back as it was, with every key and version that was made since.

    Ends, whatever fails, with the hardened KMS serving again (exit 4; 5 when that failed too).
    """
    state = state.absolute()
    say = saying(context)
    with locked(state):
        recover(context, state, provers, say)
        journal, hardening, authority = get_hardened(state)
        notes = {name: note for name, note in journal.begun() if "written" in note}
        changed = [note["path"] for name, note in notes.items() if name not in _SECRETS and not is_as_written(note)]
        if changed:
            raise InstallError(
                f"{', '.join(changed)} changed since the hardening, and would lose that by being put back",
                hint="keep what was changed elsewhere, put the file back as the hardening left it, and change it again"
                " afterwards",
            )
        before, after = connect(context, provers), connect(context, provers, authority)
        collected = _collect(context, hardening.secure_uri, after, authority)
        steps = undo_steps(hardening, notes, collected, before, after)
        show(context, "undo", hardening, steps, collected, yes=yes)
        if not yes:
            return
        _require_proven(collected, allowed=allow_unproven)
        hardening.old_key_store.unlink(missing_ok=True)
        details = {**hardening.to_json(), "authority": str(authority), "notes": notes}
        run(Journal(state / "undo.json"), details, steps, say)
        journal.end("undone")
        remove_what_is_left(hardening, undone=True)
        if has_systemd():
            remove_units()
    done(context, f"the KMS answers at {hardening.uri}", None, [])


@harden.command()
@state_option
@region_option
@global_options
@click.pass_context
def check(click_context: click.Context, context: CommandContext, *, state: Path, region: str | None) -> None:
    """Say what is no longer as it was hardened, and whether the keys are backed up; exit 3 when anything is found."""
    _, hardening, _ = get_hardened(state.absolute())
    now = datetime.datetime.now(datetime.UTC)
    findings = list(
        find_drift(hardening, backup_place(hardening.backup_to, None, region or hardening.backup_region), now)
    )
    if context.json:
        print_json(findings_json(findings))
    else:
        print_findings(findings, nothing="as it was hardened, and backed up")
    click_context.exit(exits.FINDINGS if findings else exits.DONE)


def _first_backup(hardening: Hardening) -> str:
    """At once: what was sealed anew is in no backup yet. The KMS serves, whatever comes of it."""
    public = hardening.backup_key
    assert public is not None
    try:
        place = backup_place(hardening.backup_to, hardening.backup_sse_key, hardening.backup_region)
        assert place is not None
        name, _ = back_up(hardening, public, place)
    except RingfenceError as error:
        return f"no backup was made: {error.message}; `ringfence kms harden backup` tries again"
    return f"backed up as {name}" if name is not None else "no key was made yet: there is nothing to back up"


def _namenode(unit: str | None, start_command: str | None, stop_command: str | None) -> Service | None:
    if unit is not None:
        return SystemdUnit(unit, masked=True)
    if start_command and stop_command:
        return Commands(start_command, stop_command)
    if start_command or stop_command:
        raise ConfigError("--namenode-start-command and --namenode-stop-command go together: give both")
    return None


def _collect(context: CommandContext, uri: str, connect: Connect, authority: Path | None = None) -> Collected:
    # Whoever may list keys is seldom one who may open EDEKs.
    with closing(KmsMaterialClient(uri, context.user, access=access_of(context, authority))) as client:
        names = client.list_key_names()
        found = client.find_keys(names)
    provers = connect(uri)
    try:
        return collect(provers, [found[name] for name in names if name in found], [])
    finally:
        for prover in provers:
            prover.close()


def _require_proven(collected: Collected, *, allowed: bool) -> None:
    if collected.unproven and not allowed:
        raise InstallError(
            f"nobody named may open EDEKs of {listed('key', collected.unproven)}, so it cannot be proven that"
            " they stay",
            hint="name readers of their zones: --prove-as USER, repeated; or go on unproven: --allow-unproven",
        )


def _install_units(hardening: Hardening) -> str:
    """Has systemd make backups. Without systemd, says what is left to do; the KMS serves, whatever comes of it."""
    if not has_systemd():
        return "run `ringfence kms harden backup` after each key is made: there is no systemd here to do it"
    try:
        install_units(unit_files(ringfence_command(), hardening.state, hardening.key_store))
    except InstallError as error:
        return f"nothing backs the key store up by itself: {error.message}"
    return f"{PATH} and {TIMER} back the key store up"


def _way_back(state: Path) -> str:
    where = "" if state == DEFAULT_STATE else f" --state-dir {shlex.quote(str(state.absolute()))}"
    return f"ringfence kms harden undo{where}"


harden.add_command(backup)
harden.add_command(restore)
