"""Checks of what the KMS proves itself with, and by what it knows its callers: certificates, keytab, secrets."""

from __future__ import annotations

import datetime
import itertools
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from ringfence_agent.doctor.keytab import WEAK_KINDS, read_keytab
from ringfence_agent.doctor.subject import Subject
from ringfence_agent.kms.authentication.admin_access import read_token
from ringfence_agent.kms.config import is_loopback
from ringfence_zones.errors import ConfigError, RingfenceError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.named_checks import NotChecked, finding, finding_of

_SOON = datetime.timedelta(days=30)
_VERY_SOON = datetime.timedelta(days=7)
_AUTHENTICATION = "hadoop.kms.authentication."
_MIN_SECRET_BYTES = 16
# A secret of so few different bytes was typed, not drawn.
_MIN_DIFFERENT_BYTES = 8
_MAX_SECRET_BYTES = 64 * 1024


def check_transport(subject: Subject) -> Iterator[Finding]:
    """Whether keys could cross a network in clear."""
    hint = "serve with TLS (--tls-cert and --tls-key, or tls: in kms.yaml), or listen on localhost"
    if subject.settings is not None:
        if subject.settings.tls is None and not is_loopback(subject.settings.host):
            message = f"the KMS answers on {subject.settings.host} in plain HTTP: data keys cross the network in clear"
            yield finding(Severity.ERROR, Rule.KMS_PLAIN_HTTP, subject.place, message, hint)
    elif subject.stock is not None:
        host = subject.stock.get("hadoop.kms.http.host", "0.0.0.0")  # noqa: S104 - Hadoop's default
        if not subject.stock.get_bool("hadoop.kms.ssl.enabled", False) and not is_loopback(host):
            message = f"the KMS answers on {host} in plain HTTP: data keys cross the network in clear"
            stock_hint = "set hadoop.kms.ssl.enabled and give ssl-server.xml a key store, or listen on localhost"
            yield finding(Severity.ERROR, Rule.KMS_PLAIN_HTTP, subject.place, message, stock_hint)
    else:
        raise NotChecked("no KMS is configured here")


def check_authentication(subject: Subject) -> Iterator[Finding]:
    """Whether users are proven or only claimed."""
    if subject.settings is not None:
        kind = subject.settings.authentication.type
    elif subject.stock is not None:
        kind = subject.stock.get(_AUTHENTICATION + "type", "simple")
    else:
        raise NotChecked("no KMS is configured here")
    if kind == "simple":
        message = "authentication is simple: whoever reaches the port is whoever they say they are"
        hint = "use Kerberos (authentication.type in kms.yaml, hadoop.kms.authentication.type), or trust the network"
        yield finding(Severity.WARN, Rule.SIMPLE_AUTHENTICATION, subject.place, message, hint)


def check_certificate(subject: Subject) -> Iterator[Finding]:
    """Whether the certificate belongs to its key, holds still for a while, and names this machine."""
    if subject.settings is None or subject.settings.tls is None:
        raise NotChecked("no TLS of Ringfence's KMS is configured here")
    try:
        subject.settings.tls.open()
        identities = subject.settings.tls.source.read().identities
    except RingfenceError as error:
        yield finding_of(error, Rule.CERTIFICATE, subject.place)
        return
    for identity in identities:
        chain = x509.load_pem_x509_certificates(identity.chain)
        yield from _age_problems(identity.label, chain)
        yield from _chain_problems(identity.label, chain)
        yield from _name_problems(identity.label, chain[0], subject.settings.host)


def _age_problems(label: str, chain: list[x509.Certificate]) -> Iterator[Finding]:
    now = datetime.datetime.now(datetime.UTC)
    for certificate in chain:
        name = certificate.subject.rfc4514_string() or "the certificate"
        left = certificate.not_valid_after_utc - now
        if certificate.not_valid_before_utc > now:
            message = f"{name} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M}Z on: is the clock right?"
            yield finding(Severity.ERROR, Rule.CERTIFICATE_EXPIRES, label, message, "set the clock, or get another")
        elif left < _SOON:
            severity = Severity.ERROR if left < _VERY_SOON else Severity.WARN
            until = f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M}Z"
            message = f"{name} {'ran out' if left < datetime.timedelta(0) else 'runs out'} at {until}"
            hint = "put a new one in its place: the KMS takes it up by itself, without a restart"
            yield finding(severity, Rule.CERTIFICATE_EXPIRES, label, message, hint)


def _chain_problems(label: str, chain: list[x509.Certificate]) -> Iterator[Finding]:
    for issued, issuer in itertools.pairwise(chain):
        try:
            issued.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            subject = issuer.subject.rfc4514_string()
            message = f"{subject} did not issue the certificate that stands before it in the file"
            hint = "put the server's certificate first, then each issuer after what it issued"
            yield finding(Severity.ERROR, Rule.CERTIFICATE, label, message, hint)


def _name_problems(label: str, leaf: x509.Certificate, host: str) -> Iterator[Finding]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        message = "the certificate has no subject alternative name: no current client takes it for any host"
        yield finding(Severity.ERROR, Rule.CERTIFICATE, label, message, "get one that names the host as a DNS name")
        return
    wanted = "localhost" if is_loopback(host) else socket.getfqdn()
    dns = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    _, _, domain = wanted.lower().partition(".")
    if wanted.lower() not in dns and f"*.{domain}" not in dns:
        shown = ", ".join(dns) or "none"
        message = f"the certificate is not for {wanted}, as this machine calls itself (DNS names in it: {shown})"
        hint = "fine if clients use one of those names; they must use one of them"
        yield finding(Severity.WARN, Rule.CERTIFICATE, label, message, hint)


def check_keytab(subject: Subject) -> Iterator[Finding]:
    """Whether the keytab is private, whole, has a service principal for this host and no weak keys."""
    path, principals = keytab_of(subject)
    yield from _exposed(path, Rule.KEYTAB)
    try:
        entries = read_keytab(path)
    except ConfigError as error:
        yield finding_of(error, Rule.KEYTAB, path)
        return
    services = [entry for entry in entries if entry.principal.startswith("HTTP/")]
    if not services:
        message = "the keytab has no HTTP/ principal, and clients ask for nothing else"
        yield finding(Severity.ERROR, Rule.KEYTAB, path, message, "add HTTP/<this host>@<realm> with ktadd")
    for wanted in principals:
        if not any(entry.principal in (wanted, f"{wanted}@{_realm(entry.principal)}") for entry in entries):
            message = f"the configured principal {wanted} is not in the keytab"
            yield finding(Severity.ERROR, Rule.KEYTAB, path, message, "correct its name, or add it with ktadd")
    newest: dict[str, int] = {}
    for entry in services:
        newest[entry.principal] = max(entry.kvno, newest.get(entry.principal, 0))
    for entry in services:
        if entry.kind in WEAK_KINDS and entry.kvno == newest[entry.principal]:
            message = f"{entry.principal} has a key of the broken kind {WEAK_KINDS[entry.kind]} (kvno {entry.kvno})"
            yield finding(Severity.WARN, Rule.KEYTAB, path, message, "make keys of aes256-cts-hmac-sha1-96 or newer")


def _realm(principal: str) -> str:
    return principal.rpartition("@")[2]


def keytab_of(subject: Subject) -> tuple[Path, tuple[str, ...]]:
    """The keytab and its configured principals, none for all of them. Raises NotChecked without Kerberos."""
    if subject.settings is not None and subject.settings.authentication.kerberos is not None:
        kerberos = subject.settings.authentication.kerberos
        return kerberos.keytab, tuple(name for name in kerberos.principals or () if name != "*")
    if subject.stock is not None and subject.stock.get(_AUTHENTICATION + "type") == "kerberos":
        keytab = subject.stock.get(_AUTHENTICATION + "kerberos.keytab")
        principal = subject.stock.get(_AUTHENTICATION + "kerberos.principal", "*")
        if keytab:
            return Path(keytab), () if principal == "*" else (principal,)
    raise NotChecked("no Kerberos is configured here")


def check_secrets(subject: Subject) -> Iterator[Finding]:
    """Whether the files with the cookie secret and the administrators' token are private and hard to guess."""
    token_file = subject.settings.admin_token_file if subject.settings is not None else None
    if token_file is not None:
        try:
            yield from _weak(token_file, read_token(token_file).reveal())
        except RingfenceError as error:
            yield finding_of(error, Rule.SECRET_EXPOSED, token_file)
    cookies = subject.settings.authentication.signature_secret if subject.settings is not None else None
    if cookies is not None:  # who may read its file was judged when the configuration was read
        yield from _weak(f"the cookie secret's file, named in {subject.place}", cookies.reveal())
    named = subject.stock.get(_AUTHENTICATION + "signature.secret.file") if subject.stock is not None else None
    if named:
        path = Path(named)
        yield from _exposed(path, Rule.SECRET_EXPOSED)
        try:
            with path.open("rb") as stream:
                yield from _weak(path, stream.read(_MAX_SECRET_BYTES))
        except OSError:
            message = "the cookie secret's file cannot be read: Hadoop's KMS then makes up a secret of its own"
            yield finding(Severity.WARN, Rule.SECRET_WEAK, path, message, "make it, with 32 random bytes and mode 0600")
    if token_file is None and cookies is None and not named:
        raise NotChecked("no file with a secret is configured; Ringfence derives its own from the key store")


def _weak(path: Path | str, secret: bytes) -> Iterator[Finding]:
    if len(secret.strip()) < _MIN_SECRET_BYTES or len(set(secret)) < _MIN_DIFFERENT_BYTES:
        message = "the secret in it can be guessed: it is short, or of few different characters"
        command = f"openssl rand -hex 32 > {path}" if isinstance(path, Path) else "openssl rand -hex 32"
        yield finding(Severity.ERROR, Rule.SECRET_WEAK, path, message, "draw 32 random bytes", command)


def _exposed(path: Path, rule: Rule) -> Iterator[Finding]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return  # what reads it says so
    if mode & 0o077:
        message = f"others than its owner can reach it (mode {mode:04o})"
        yield finding(
            Severity.ERROR, rule, path, message, "make it private, and replace what it holds", f"chmod 600 {path}"
        )
