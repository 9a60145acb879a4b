"""Checks of where keys and records rest: configuration, key store, root key, audit log."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ringfence_agent.doctor.subject import Subject
from ringfence_agent.keystore.local_files import check_directory, check_local, file_system_of
from ringfence_agent.keystore.open import default_root_key, store_path
from ringfence_agent.keystore.protectors.file import read_root_key
from ringfence_agent.keystore.sql.server_address import parse_server_uri
from ringfence_agent.keystore.vault_kv.address import is_vault_uri
from ringfence_zones.errors import RingfenceError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.named_checks import NotChecked, finding, finding_of

_VOLATILE = {"tmpfs", "ramfs"}
_LAYERED = {"overlay", "aufs"}
_CONNECT_TIMEOUT_S = 5.0
_ROOM_BYTES = 1024**3
_LITTLE_ROOM_BYTES = 64 * 1024**2
_PASSWORD_FILE = "hadoop.security.keystore.java-keystore-provider.password-file"  # noqa: S105 - a property's name
_PASSWORD_VARIABLE = "HADOOP_KEYSTORE_PASSWORD"  # noqa: S105 - a variable's name


def check_configuration(subject: Subject) -> Iterator[Finding]:
    """Whether the KMS would start with its configuration."""
    if subject.problem is not None:
        yield finding_of(subject.problem, Rule.CONFIGURATION, subject.place)
    elif subject.settings is None and subject.stock is None:
        raise NotChecked("no KMS is configured here: name it with --config FILE or --hadoop-conf DIR")


def check_key_store(subject: Subject) -> Iterator[Finding]:
    """Whether the store is there, private, and in a place that lasts."""
    if subject.stock is not None:
        yield from _java_store(subject)
    elif subject.settings is None:
        raise NotChecked("no KMS is configured here")
    elif subject.settings.keystore.lower().startswith("sqlite"):
        yield from _sqlite_store(store_path(subject.settings.keystore))
    elif is_vault_uri(subject.settings.keystore):
        raise NotChecked("the key store is in Vault, which `ringfence doctor vault` looks at")
    else:
        yield from _server_store(subject.settings.keystore)


def _sqlite_store(path: Path) -> Iterator[Finding]:
    yield from _server_says(lambda: check_directory(path.parent, "key store"), path)
    yield from _server_says(lambda: check_local(path.parent), path)
    yield from _lasting(path)
    try:
        found = path.lstat()
    except FileNotFoundError:
        raise NotChecked(f"{path} is not there yet; the first start makes it") from None
    except OSError as error:
        raise NotChecked(f"{path} cannot be looked at: {error.strerror}") from None
    yield from _private(path, found, Rule.KEY_STORE)


def _server_says(look: Callable[[], None], path: Path) -> Iterator[Finding]:
    try:
        look()
    except RingfenceError as error:
        yield finding_of(error, Rule.KEY_STORE, path)


def _lasting(path: Path) -> Iterator[Finding]:
    kind = file_system_of(path.parent)
    if kind in _VOLATILE:
        message = f"the key store lies in memory ({kind}): a restart of the machine destroys every key in it"
        yield finding(Severity.ERROR, Rule.KEY_STORE_NOT_DURABLE, path, message, "move it to a disk")
    elif kind in _LAYERED:
        message = f"the key store lies in a container's own layer ({kind}), which goes with the container"
        yield finding(Severity.WARN, Rule.KEY_STORE_NOT_DURABLE, path, message, "put it on a volume of the host")


def _private(path: Path, found: os.stat_result, rule: Rule) -> Iterator[Finding]:
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISLNK(found.st_mode) or not stat.S_ISREG(found.st_mode):
        yield finding(Severity.ERROR, rule, path, "it is not a regular file", "put the file itself there")
    elif mode & 0o077:
        message = f"others than its owner can reach it (mode {mode:04o})"
        yield finding(Severity.ERROR, rule, path, message, "make it private", f"chmod 600 {path}")


def _server_store(uri: str) -> Iterator[Finding]:
    address = parse_server_uri(uri)
    try:
        if address.socket:
            if not Path(address.socket).exists():
                raise FileNotFoundError(2, os.strerror(2))
        else:
            socket.create_connection((address.host, address.port), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else (error.strerror or "no connection")
        message = f"the database server does not answer: {why}"
        hint = "start it, and let this machine through to it"
        yield finding(Severity.ERROR, Rule.KEY_STORE, address.label, message, hint)


def _java_store(subject: Subject) -> Iterator[Finding]:
    assert subject.stock is not None, "asked about a stock KMS"
    uri = subject.stock.get("hadoop.kms.key.provider.uri", "")
    if "://file@/" not in uri:
        raise NotChecked(f"the stock KMS's store {uri.partition(':')[0] or 'jceks'}: is not a named local file")
    path = Path("/" + uri.partition("://file@/")[2].lstrip("/"))
    if not subject.stock.get(_PASSWORD_FILE) and not subject.environ.get(_PASSWORD_VARIABLE):
        message = "no password for the Java key store is set here: Hadoop then uses the word `none`"
        hint = f"set {_PASSWORD_FILE}, or {_PASSWORD_VARIABLE} for the KMS's process (this one may not show it)"
        yield finding(Severity.WARN, Rule.SECRET_WEAK, subject.place, message, hint)
    yield from _lasting(path)
    try:
        yield from _private(path, path.lstat(), Rule.KEY_STORE)
    except OSError as error:
        raise NotChecked(f"{path} cannot be looked at: {error.strerror}") from None


def check_root_key(subject: Subject) -> Iterator[Finding]:
    """Whether the root key is there, whole, private, and the same user's as the store."""
    settings = subject.settings
    if settings is None:
        raise NotChecked("no Ringfence KMS is configured here")
    if "file" not in settings.protectors.names:
        raise NotChecked("the key store is opened without one")
    is_local = settings.keystore.lower().startswith("sqlite")
    store = store_path(settings.keystore) if is_local else None
    path = settings.root_key or (default_root_key(store) if store is not None else None)
    if path is None:
        raise NotChecked("no root key file is named")
    try:
        found = path.lstat()
    except FileNotFoundError:
        if store is not None and not store.exists():
            raise NotChecked(f"{path} is not there yet; the first start makes it") from None
        message = "the root key file is not there: no key of the store can be opened without it"
        yield finding(Severity.ERROR, Rule.KEY_STORE, path, message, "restore it from its backup")
        return
    except OSError as error:
        raise NotChecked(f"{path} cannot be looked at: {error.strerror}") from None
    yield from _private(path, found, Rule.SECRET_EXPOSED)
    if store is not None and store.exists() and store.stat().st_uid != found.st_uid:
        message = "root key and key store belong to different users: the KMS can read only one of them"
        yield finding(Severity.ERROR, Rule.KEY_STORE, path, message, "give both to the KMS's user")
    if found.st_uid == os.geteuid():
        try:
            read_root_key(path)
        except RingfenceError as error:
            yield finding_of(error, Rule.KEY_STORE, path)


def check_audit(subject: Subject) -> Iterator[Finding]:
    """Whether there is room for the audit log."""
    if subject.settings is None:
        raise NotChecked("no Ringfence KMS is configured here")
    directory = subject.settings.audit.directory
    there = next((each for each in (directory, *directory.parents) if each.is_dir()), Path("/"))
    disk = os.statvfs(there)
    free = disk.f_bavail * disk.f_frsize
    if free < _ROOM_BYTES:
        severity = Severity.ERROR if free < _LITTLE_ROOM_BYTES else Severity.WARN
        message = f"{free // 1024**2} MiB are free where the audit log goes; when it is full, requests are refused"
        hint = "make room, or set audit.keep_age or audit.keep_files in kms.yaml, or another audit.directory"
        yield finding(severity, Rule.AUDIT_SPACE, directory, message, hint)
