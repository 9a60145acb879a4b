"""`ringfence key import` and `ringfence key export`: keys from and to a stock KMS.

Both open the key store themselves, as another instance of the KMS would. A KMS that is running on it sees imported keys
as it sees any other instance's: by the store's change number. So there is no import through the admin socket: a second
way in would take key material over HTTP to do the same.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from pathlib import Path

import click

from ringfence_agent import process_hygiene
from ringfence_agent.keystore.held import HeldKey
from ringfence_agent.keystore.interface import (
    ImportedKey,
    ImportedVersion,
    KeyImport,
    KeyStore,
    OpenStore,
    StoredKey,
)
from ringfence_agent.keystore.jceks.container import (
    PASSWORD_VARIABLE,
    ReceiptFile,
    find_password,
    is_jceks_uri,
    is_missing,
    jceks_path,
    read_jceks,
    write_new,
)
from ringfence_agent.keystore.jceks.keys import OnProgress, Receipt, known_versions, make_entries, read_keys, receipt_of
from ringfence_agent.keystore.jceks.provider import format_jceks
from ringfence_agent.keystore.key_import import check_imported_key, judge_new
from ringfence_agent.keystore.open import default_root_key, local_path, open_keystore
from ringfence_agent.keystore.ownership import acting_as_owner
from ringfence_agent.keystore.protector import FILE_ALONE
from ringfence_agent.keystore.vault_kv.address import is_vault_uri
from ringfence_agent.kms.audit.config import AuditBlock, audit_settings
from ringfence_agent.kms.audit.offline import record_exports
from ringfence_agent.kms.config import Options, default_file, load_store_settings, load_vault_settings
from ringfence_agent.kms.protector_config import open_protectors
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import counted, listed, print_json, print_table
from ringfence_zones.client_config import read_http_access
from ringfence_zones.errors import InputError, KeyNotFoundError
from ringfence_zones.http_session import PLAIN_ACCESS, HttpAccess
from ringfence_zones.kerberos import refuse_claimed_user
from ringfence_zones.kms_material import KmsMaterialClient

_CONNECTIONS = 4
_LONG_RUN = 20  # entries: four seconds
_FILE = click.Path(path_type=Path)
_keystore = click.option("--keystore", metavar="URI", required=True, help="Ringfence's key store, as for kms serve")
_root_key = click.option("--root-key", type=_FILE, metavar="FILE", help="root key file  [beside the SQLite store]")
_store_password = click.option(
    "--keystore-password-file", "store_password", type=_FILE, metavar="FILE", help="password for a database server"
)
_config = click.option(
    "--config", type=_FILE, metavar="FILE", help="kms.yaml that sets up the store's protectors  [a root key file alone]"
)
_receipt = click.option(
    "--receipt", type=_FILE, metavar="FILE", help="remembers entries, so that the next run opens only new ones"
)


@click.command("import")
@click.option(
    "--from",
    "source",
    metavar="URI",
    required=True,
    help="jceks://file@/PATH, or kms://http@HOST:9600/kms with GET rights",
)
@click.option(
    "--password-file", type=_FILE, metavar="FILE", help="the Java key store's  [HADOOP_KEYSTORE_PASSWORD, else 'none']"
)
@_keystore
@_config
@_root_key
@_store_password
@click.option("--init", is_flag=True, help="make a store that is not there; a fresh SQLite store needs no leave")
@_receipt
@click.option(
    "--missing-is-empty", is_flag=True, help="a Java key store that is not there has no keys: it is made with the first"
)
@click.option(
    "--plan", "plan_only", is_flag=True, help="read and check everything, tell what would come, change nothing"
)
@global_options
def import_keys(
    context: CommandContext,
    *,
    source: str,
    password_file: Path | None,
    keystore: str,
    config: Path | None,
    root_key: Path | None,
    store_password: Path | None,
    init: bool,
    receipt: Path | None,
    missing_is_empty: bool,
    plan_only: bool,
) -> None:
    """Take keys over from a stock KMS or its key store: same names, versions and times.

    All keys are read and checked first, and then come in one transaction or not at all. What is here already stays; a
    key of the same name with other material is a conflict, and then nothing is imported. May be repeated at any time,
    also while a KMS serves from the key store.
    """
    process_hygiene.forbid_core_dumps()
    read = functools.partial(_read, context, source, password_file, missing_is_empty)
    if plan_only and _is_absent(keystore):
        keys, _ = read({}, {})
        _print_import(context, source, [judge_new(key) for key in keys], plan_only=True)
        return
    with _as_owner(keystore, config):
        store = _open(keystore, config, root_key, store_password, init=init)
    with closing(store):
        known = ReceiptFile(receipt, store.label) if receipt is not None else None
        here = {metadata.name: metadata.versions for metadata in store.list_metadata()}
        keys, new_receipt = read(known.load() if known is not None else {}, here)
        with _as_owner(keystore, config):
            done = store.import_keys(keys, dry_run=plan_only)
    if known is not None and new_receipt and not plan_only:
        known.save(new_receipt)
    _print_import(context, source, done, plan_only=plan_only)


@click.command("export")
@click.option("--to", "target", metavar="URI", required=True, help="jceks://file@/PATH of a file that is not there")
@click.option(
    "--password-file", type=_FILE, metavar="FILE", help="what the file is sealed with  [HADOOP_KEYSTORE_PASSWORD]"
)
@_keystore
@_config
@_root_key
@_store_password
@click.option(
    "--base", metavar="URI", help="take over from this Java key store, still sealed, what the receipt knows of it"
)
@_receipt
@click.option("--audit-directory", type=_FILE, metavar="DIR", help="the audit log  [<store>.audit.d]")
@click.option("--without-held", is_flag=True, help="leave out keys that Vault holds (custody transit), and name them")
@click.argument("names", metavar="[KEY]...", nargs=-1)
@global_options
def export_keys(
    context: CommandContext,
    *,
    target: str,
    password_file: Path | None,
    keystore: str,
    config: Path | None,
    root_key: Path | None,
    store_password: Path | None,
    base: str | None,
    receipt: Path | None,
    audit_directory: Path | None,
    without_held: bool,
    names: Sequence[str],
) -> None:
    """Write keys into a Java key store that a stock KMS opens; all of them when none is named.

    For whoever can read the root key, which is root or the service's user. The file is new, for its owner alone, and
    as safe as its password. Every exported key is on record in the audit log before the file is there.
    """
    process_hygiene.forbid_core_dumps()
    if password_file is None and PASSWORD_VARIABLE not in os.environ:
        raise InputError(
            "the Java key store needs a password: its keys are as safe as that",
            hint=f"give --password-file FILE or set {PASSWORD_VARIABLE}",
        )
    path, password = jceks_path(target), find_password(password_file, os.environ)
    if path.exists():
        raise InputError(f"{path} is there already, and nothing is ever written over a key store")
    carried = {entry.alias: entry for entry in read_jceks(jceks_path(base), password)} if base else {}
    with _as_owner(keystore, config), closing(_open(keystore, config, root_key, store_password)) as store:
        keys, held = _chosen(store, names)
        label = store.label
    if held and not without_held:
        raise _held_by_vault(held)
    known = ReceiptFile(receipt, label) if receipt is not None else None
    entries = make_entries(keys, password, carried, known.load() if known else {}, _progress("sealing entries"))
    with _as_owner(keystore, config):
        record_exports(audit_directory or _audit_directory(keystore), [key.metadata for key in keys], path)
    write_new(path, format_jceks(entries, password))
    if known is not None:
        known.save(receipt_of(entries))
    made = receipt_of(entries)
    sealed = sum(carried[alias].digest != digest if alias in carried else True for alias, digest in made.items())
    _print_export(context, path, keys, held, sealed, len(carried.keys() - made.keys()))


def _config_of(keystore: str, config: Path | None) -> Path | None:
    """A store in Vault needs the file that says which Vault."""
    return default_file() if config is None and is_vault_uri(keystore) else config


def _as_owner(keystore: str, config: Path | None) -> AbstractContextManager[None]:
    path = _config_of(keystore, config)
    return acting_as_owner(keystore, load_vault_settings(path) if path is not None and is_vault_uri(keystore) else None)


def _open(
    keystore: str, config: Path | None, root_key: Path | None, password: Path | None, *, init: bool = False
) -> OpenStore:
    protectors, vault = FILE_ALONE, None
    config = _config_of(keystore, config)
    if config is not None:
        settings = load_store_settings(
            Options(config=config, keystore=keystore, root_key=root_key, keystore_password_file=password)
        )
        root_key, password = settings.root_key, settings.keystore_password_file
        protectors, vault = open_protectors(settings.protectors), settings.protectors.vault
    return open_keystore(keystore, root_key, init, password, protectors, vault)


def _read(
    context: CommandContext,
    source: str,
    password_file: Path | None,
    missing_is_empty: bool,
    receipt: Receipt,
    here: Mapping[str, int],
) -> tuple[Sequence[ImportedKey], dict[str, str]]:
    """The source's keys and its new receipt. `here` counts versions: what the receipt says must be true."""
    if not is_jceks_uri(source):
        return _read_kms(context, source), {}
    password = find_password(password_file, os.environ)
    path = jceks_path(source)
    if missing_is_empty and is_missing(path):
        return [], {}
    entries = read_jceks(path, password)
    for name, version in known_versions(entries, receipt).items():
        if here.get(name, 0) <= version:
            raise InputError(
                f"the receipt says that version {version} of key {name} is here already, but it is not",
                hint="run it again without the receipt; every key is then read",
            )
    return read_keys(entries, password, receipt, _progress("opening entries")), receipt_of(entries)


def _access(context: CommandContext) -> HttpAccess:
    """By Kerberos when Hadoop's configuration says so. A machine without one asks under a name."""
    if not context.hadoop_conf.is_dir():
        return PLAIN_ACCESS
    access = read_http_access(context.hadoop_conf, os.environ)
    if access.kerberos is not None:
        refuse_claimed_user(context.as_user)
    return access


def _read_kms(context: CommandContext, uri: str) -> Sequence[ImportedKey]:
    """Every key of a running KMS. Its versions' own times are not told: they get their key's."""
    keys = []
    opened = KmsMaterialClient(uri, context.user, access=_access(context))
    with closing(opened) as client, ThreadPoolExecutor(_CONNECTIONS) as threads:
        names = client.list_key_names()
        report = _progress("reading keys")
        for done, found in enumerate(threads.map(client.read_key, names)):
            report(done + 1, len(names))
            if found is None:
                continue  # deleted since the list was made
            metadata, versions = found
            of_key = [ImportedVersion(each.version, each.material, metadata.created_ms) for each in versions]
            keys.append(ImportedKey(metadata, tuple(of_key)))
    for key in keys:
        check_imported_key(key)
    return keys


def _is_absent(keystore: str) -> bool:
    """Whether there is no such store yet: a plan does not make one."""
    path = local_path(keystore)
    return path is not None and not os.path.lexists(path) and not os.path.lexists(default_root_key(path))


def _chosen(store: KeyStore, names: Sequence[str]) -> tuple[list[StoredKey], list[str]]:
    """The keys of these names, all of them without any, and the names of those that Vault holds. Raises
    KeyNotFoundError.
    """
    chosen, held = [], []
    for name in sorted(set(names)) or [metadata.name for metadata in store.list_metadata()]:
        key = store.find_key(name)
        if key is None and names:
            raise KeyNotFoundError(name, f"{store.label} has no key {name}")
        if isinstance(key, HeldKey):
            held.append(name)
        elif key is not None:
            chosen.append(key)
    return chosen, held


def _held_by_vault(names: Sequence[str]) -> InputError:
    return InputError(
        f"{listed('key', names)} {'is' if len(names) == 1 else 'are'} held by Vault (custody transit): what Vault holds"
        " leaves it for nobody, so it cannot be exported",
        hint="name the other keys or give --without-held, or first copy the files into a zone in custody envelope",
    )


def _progress(what: str) -> OnProgress:
    """Says each tenth of a long run on standard error."""
    said = 0

    def report(done: int, total: int) -> None:
        nonlocal said
        if total >= _LONG_RUN and done * 10 // total > said:
            said = done * 10 // total
            click.echo(f"{what}: {done} of {total}", err=True)

    return report


def _print_import(context: CommandContext, source: str, done: Sequence[KeyImport], *, plan_only: bool) -> None:
    changed = [each for each in done if each.added]
    if context.json:
        keys = [{"name": each.key_name, "new": each.is_new, "added": list(each.added)} for each in changed]
        print_json({"schema": 1, "source": source, "planned": plan_only, "keys": keys})
        return
    if changed:
        rows = [(each.key_name, "new" if each.is_new else "rolled", _span(each.added)) for each in changed]
        print_table(("KEY", "", "VERSIONS"), rows)
    verb = "would come" if plan_only else "came"
    click.echo(f"{counted(len(changed), 'key')} {verb} from {source}")


def _print_export(
    context: CommandContext, path: Path, keys: Sequence[StoredKey], held: Sequence[str], sealed: int, dropped: int
) -> None:
    """`held` keys were left out. `sealed` entries are new, `dropped` ones stood in the base and belong to no key any
    more.
    """
    if context.json:
        exported = [{"name": key.metadata.name, "versions": len(key.versions)} for key in keys]
        told = {"file": str(path), "sealed": sealed, "dropped": dropped, "keys": exported, "left_out": list(held)}
        print_json({"schema": 1, **told})
        return
    click.echo(f"{counted(len(keys), 'key')} exported to {path}")
    if held:
        click.echo(f"left out, for Vault holds {'it' if len(held) == 1 else 'them'}: {listed('key', held)}", err=True)


def _span(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _audit_directory(keystore: str) -> Path:
    return audit_settings(AuditBlock(), local_path(keystore)).directory
