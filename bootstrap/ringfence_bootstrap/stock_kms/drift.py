"""What of a hardened stock KMS is no longer as it was hardened.

A reconfiguration of EMR's, a package that was put in again, or somebody with an editor undoes a hardening without a
word; keys that are made are lost with the node until they are backed up. Nothing is changed here.
"""

from __future__ import annotations

import datetime
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.serialization import pkcs12

from ringfence_bootstrap.stock_kms.backup import is_backup_of
from ringfence_bootstrap.stock_kms.backup_places import BackupPlace
from ringfence_bootstrap.stock_kms.file_changes import Owner
from ringfence_bootstrap.stock_kms.hardening import (
    KMS_SITE,
    PASSWORD_LINK,
    SSL_SERVER,
    TRUST_STORE,
    Hardening,
    is_on_root_volume,
)
from ringfence_bootstrap.stock_kms.key_store import opens, read_key_store, read_password
from ringfence_zones.errors import ConfigError, InstallError, RingfenceError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.hadoop_conf import read_hadoop_conf
from ringfence_zones.hadoop_xml import read_document, read_properties
from ringfence_zones.kms_uri import KEY_PROVIDER

_SOON = datetime.timedelta(days=30)
_AGAIN = "undo the hardening and do it again, or put the value back"


def find_drift(hardening: Hardening, backups: BackupPlace | None, now: datetime.datetime) -> Iterator[Finding]:
    """Everything that is not as it was. Raises ConfigError for files that cannot be read at all."""
    yield from _properties(hardening.kms_conf / "kms-site.xml", KMS_SITE)
    yield from _properties(hardening.kms_conf / "kms-acls.xml", hardening.acls)
    yield from _clients(hardening)
    yield from _secrets(hardening)
    yield from _keys(hardening, backups)
    yield from _certificate(hardening, now)
    yield from _backups(hardening, backups)


def _properties(path: Path, wanted: Mapping[str, str]) -> Iterator[Finding]:
    found = read_properties(read_document(path))
    for name, value in wanted.items():
        there = found.get(name)
        if there is None or there.value != value:
            is_now = "is not set" if there is None else f"is {there.value!r}"
            yield _finding(f"{path}", f"{name} {is_now}, and should be {value!r}", _AGAIN)


def _clients(hardening: Hardening) -> Iterator[Finding]:
    called = read_hadoop_conf(hardening.hadoop_conf, "core-site.xml").get(KEY_PROVIDER, "")
    if called != hardening.secure_uri:
        yield _finding(
            f"{hardening.hadoop_conf}/core-site.xml",
            f"clients call {called or 'no KMS'}, and it answers at {hardening.secure_uri}",
            f"set {KEY_PROVIDER} to {hardening.secure_uri}",
        )
    if hardening.trusts_already:
        return
    trusted, wanted = _trust_store(hardening), hardening.hadoop_conf / TRUST_STORE
    if trusted != str(wanted) or not wanted.exists():
        yield _finding(
            f"{hardening.hadoop_conf}/ssl-client.xml",
            f"clients trust {trusted or 'no store'} and not {wanted}, so they refuse the KMS's certificate",
            f"name {wanted} again, or put the KMS's authority into the other store and harden again",
        )


def _trust_store(hardening: Hardening) -> str:
    return read_hadoop_conf(hardening.hadoop_conf, "ssl-client.xml").get("ssl.client.truststore.location", "")


def _secrets(hardening: Hardening) -> Iterator[Finding]:
    owner = Owner.of(hardening.key_store.parent)
    for path in (hardening.password, hardening.tls_store, hardening.kms_conf / SSL_SERVER):
        try:
            found = path.stat()
        except OSError as error:
            yield _finding(str(path), f"cannot be looked at: {error.strerror}", "restore it, or harden again")
            continue
        if stat.S_IMODE(found.st_mode) != 0o400 or found.st_uid != owner.uid:
            yield _finding(
                str(path),
                f"belongs to uid {found.st_uid} with mode {stat.S_IMODE(found.st_mode):04o}, and should belong to the"
                f" KMS's user (uid {owner.uid}) with mode 0400",
                "give it back to the KMS alone",
                rule=Rule.SECRET_EXPOSED,
                command=f"chown {owner.uid} {path} && chmod 0400 {path}",
            )
    link = hardening.kms_conf / PASSWORD_LINK
    if not link.is_symlink() or link.readlink() != hardening.password:
        yield _finding(str(link), f"is no link to {hardening.password}, so the KMS will not start again", _AGAIN)
    if is_on_root_volume(hardening.password):
        yield _finding(
            str(hardening.password),
            "lies on the root volume, beside the key store that it opens",
            "encrypt the root volume (EnableEbsEncryption, or an encrypted AMI), or harden with a file elsewhere",
            severity=Severity.WARN,
        )
    if hardening.old_key_store.exists():
        yield _finding(
            str(hardening.old_key_store),
            "the key store under its old password is still there",
            "remove it: it is as easy to open as before",
            rule=Rule.SECRET_WEAK,
            command=f"rm {hardening.old_key_store}",
        )


def _keys(hardening: Hardening, backups: BackupPlace | None) -> Iterator[Finding]:
    if not hardening.key_store.exists() and not _was_backed_up(backups):
        return
    try:
        if not opens(read_key_store(hardening.key_store), read_password(hardening.password)):
            yield _finding(
                str(hardening.key_store), "its password does not open it, or it is damaged", "restore a backup"
            )
    except (ConfigError, InstallError) as error:
        yield _finding(str(hardening.key_store), error.message, "restore a backup")


def _was_backed_up(backups: BackupPlace | None) -> bool:
    """Whether there was a key store once. Before the first key there is none, and nothing is wrong."""
    try:
        return backups is not None and bool(backups.names())
    except RingfenceError:
        return False


def _certificate(hardening: Hardening, now: datetime.datetime) -> Iterator[Finding]:
    path = hardening.kms_conf / SSL_SERVER
    try:
        password = read_properties(read_document(path))["ssl.server.keystore.password"].value
        store = pkcs12.load_pkcs12(hardening.tls_store.read_bytes(), password.encode())
    except (ConfigError, KeyError, OSError, ValueError):
        yield _finding(str(hardening.tls_store), "is no key store that the password beside it opens", _AGAIN)
        return
    if store.cert is not None and store.cert.certificate.not_valid_after_utc < now + _SOON:
        until = store.cert.certificate.not_valid_after_utc
        yield _finding(
            str(hardening.tls_store),
            f"the KMS's certificate is good until {until:%Y-%m-%d} only",
            "undo the hardening and do it again with a new one",
            rule=Rule.CERTIFICATE_EXPIRES,
            severity=Severity.ERROR if until < now else Severity.WARN,
        )


def _backups(hardening: Hardening, backups: BackupPlace | None) -> Iterator[Finding]:
    command = "ringfence kms harden backup"
    if backups is None:
        yield _finding(
            str(hardening.key_store),
            "no place for backups was named: the keys are lost with this node",
            "harden with --backup-to and --backup-key",
            rule=Rule.KEY_STORE_NOT_DURABLE,
        )
        return
    try:
        names = backups.names()
        if not hardening.key_store.exists() and not names:
            return
        content = read_key_store(hardening.key_store)
    except RingfenceError as error:
        yield _finding(hardening.backup_to or "", error.message, error.hint or "make the place reachable")
        return
    if not any(is_backup_of(name, content) for name in names):
        yield _finding(
            str(hardening.key_store),
            f"it is not among the {len(names)} backups in {hardening.backup_to}: keys made since are on this node"
            " alone",
            "make one now, and see why none was made (journalctl -u ringfence-stock-kms-backup)",
            rule=Rule.KEY_STORE_NOT_DURABLE,
            command=command,
        )


def _finding(
    path: str,
    message: str,
    hint: str,
    *,
    rule: Rule = Rule.EMR_STOCK_KMS,
    severity: Severity = Severity.ERROR,
    command: str | None = None,
) -> Finding:
    return Finding(severity=severity, rule=rule, path=path, message=message, hint=hint, command=command)
