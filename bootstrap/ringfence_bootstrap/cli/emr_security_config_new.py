"""`ringfence emr security-config new`: a document with everything encrypted, or as much of it as is wanted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ringfence_bootstrap.releases import Feature, Release, parse_release
from ringfence_bootstrap.security_configuration.document import (
    CertificateProvider,
    DiskProvider,
    KdcProvider,
    S3Mode,
)
from ringfence_bootstrap.security_configuration.generate import (
    CertificatesWanted,
    DiskWanted,
    KerberosWanted,
    OwnProvider,
    S3Wanted,
    Wanted,
    can_encrypt_ebs,
    compliance_gaps,
    default_metadata,
    generate,
)
from ringfence_bootstrap.security_configuration.lint import lint
from ringfence_bootstrap.security_configuration.reading import read_document
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import shown
from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import DocumentError, InputError
from ringfence_zones.findings import Finding, Severity, findings_json

_NONE = "none"
_CERTIFICATE_OPTIONS = (
    "certificates_object",
    "certificates_class",
    "certificates_key",
    "certificates_days",
    "tags",
    "wildcard_dns_suffix",
)
_KERBEROS = {"dedicated": KdcProvider.CLUSTER_DEDICATED, "external": KdcProvider.EXTERNAL}


def _words(*kinds: type[Any]) -> click.Choice[str]:
    return click.Choice([*(word.value for kind in kinds for word in kind), _NONE])


@click.command()
@click.option("--release", "label", required=True, metavar="LABEL", help="the release that it is for")
@click.option("--region", metavar="REGION", help="refuse keys of another Region")
@click.option("--kms-key", metavar="ARN", help="for everything that takes a key and has none of its own")
@click.option("--s3", "s3_mode", type=_words(S3Mode), default="SSE-KMS", show_default=True, help="objects in S3")
@click.option("--s3-key", metavar="ARN", help="for SSE-KMS and CSE-KMS  [--kms-key]")
@click.option("--s3-provider", nargs=2, metavar="JAR CLASS", help="for CSE-Custom: the jar in S3, the class in it")
@click.option(
    "--override",
    "overrides",
    multiple=True,
    metavar="BUCKET=MODE[,ARN|,JAR,CLASS]",
    help="another mode for one bucket; may be given again",
)
@click.option("--local-disk", type=_words(DiskProvider), default="AwsKms", show_default=True, help="local disks")
@click.option("--local-disk-key", metavar="ARN", help="for AwsKms  [--kms-key]")
@click.option("--local-disk-provider", nargs=2, metavar="JAR CLASS", help="for Custom: the jar in S3, the class in it")
@click.option("--ebs/--no-ebs", "ebs", default=None, help="EBS encryption  [with AwsKms, from emr-5.24.0]")
@click.option(
    "--certificates", type=_words(CertificateProvider), help="certificates in transit  [EMR from emr-7.11.0, else PEM]"
)
@click.option("--certificates-object", metavar="S3", help="for PEM: the zip; for Custom: the jar")
@click.option("--certificates-class", metavar="CLASS", help="for Custom: the class in it")
@click.option("--certificates-key", metavar="ARN", help="for EMR: the key of the CA's secret")
@click.option("--certificates-days", type=click.IntRange(min=1), metavar="N", help="for EMR: days that the CA lasts")
@click.option("--certificates-tag", "tags", multiple=True, metavar="KEY=VALUE", help="for EMR: of the CA's secret")
@click.option("--wildcard-dns-suffix", metavar="NAME", help="for EMR: the domain that certificates are for")
@click.option("--wal", is_flag=True, help="encrypt EMR's write-ahead logs with a key of the service's own")
@click.option("--wal-key", metavar="ARN", help="encrypt EMR's write-ahead logs with this key")
@click.option("--kerberos", type=click.Choice(sorted(_KERBEROS)), help="whose KDC; without, RPC stays in clear")
@click.option("--ticket-hours", type=click.IntRange(min=1), metavar="N", help="lifetime of tickets")
@click.option("--admin-server", metavar="HOST:PORT", help="of an external KDC")
@click.option("--kdc-server", metavar="HOST:PORT", help="of an external KDC")
@click.option("--trust", nargs=4, metavar="REALM DOMAIN ADMIN KDC", help="a realm that a dedicated KDC trusts")
@click.option("--ad", nargs=3, metavar="REALM DOMAIN SERVER", help="Active Directory behind an external KDC")
@click.option(
    "--imds", type=click.Choice(["1", "2", _NONE]), help="lowest version of the metadata service  [2 where it starts]"
)
@click.option("--hop-limit", type=click.IntRange(1, 64), default=1, show_default=True, help="with --imds")
@click.option(
    "--authorization",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="take AuthorizationConfiguration from this document",
)
@click.option("--compliant", is_flag=True, help="refuse what policy scanners would object to")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="write here  [standard output]")
@global_options
def new(context: CommandContext, **given: Any) -> None:
    """Write a security configuration in which everything is encrypted that nobody took out.

    That is SSE-KMS in S3, an AWS KMS key for local disks and EBS volumes, and TLS between nodes. What the release
    would refuse is refused here. Warnings about what stays in clear go to standard error.
    """
    options = Options(**given)
    release = parse_release(options.label)
    document = generate(_wanted(options, release), release, region=options.region)
    gaps = compliance_gaps(document) if options.compliant else []
    if gaps:
        raise DocumentError("this is not compliant", gaps, hint="leave --compliant out, or encrypt these too")
    if options.output is None:
        click.echo(document.text(), nl=False)
    else:
        _write(options.output, document.text())
    warnings = [each for each in lint(document, release, region=options.region) if each.severity is Severity.WARN]
    _print_warnings(warnings, as_json=context.json)


def _write(path: Path, text: str) -> None:
    try:
        replace_file(path.absolute(), text.encode(), mode=0o644)  # nothing in it is secret
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line."""

    label: str
    region: str | None
    kms_key: str | None
    s3_mode: str
    s3_key: str | None
    s3_provider: tuple[str, str] | None
    overrides: tuple[str, ...]
    local_disk: str
    local_disk_key: str | None
    local_disk_provider: tuple[str, str] | None
    ebs: bool | None
    certificates: str | None
    certificates_object: str | None
    certificates_class: str | None
    certificates_key: str | None
    certificates_days: int | None
    tags: tuple[str, ...]
    wildcard_dns_suffix: str | None
    wal: bool
    wal_key: str | None
    kerberos: str | None
    ticket_hours: int | None
    admin_server: str | None
    kdc_server: str | None
    trust: tuple[str, str, str, str] | None
    ad: tuple[str, str, str] | None
    imds: str | None
    hop_limit: int
    authorization: Path | None
    compliant: bool
    output: Path | None


def _wanted(options: Options, release: Release) -> Wanted:
    return Wanted(
        s3=_s3(options),
        overrides=tuple(_override(text, options) for text in options.overrides),
        disk=_disk(options, release),
        certificates=_certificates(options, release),
        wal_key=options.wal_key or ("" if options.wal else None),
        kerberos=_kerberos(options),
        metadata=_metadata(options, release),
        authorization=_authorization(options.authorization),
    )


def _s3(options: Options) -> S3Wanted | None:
    if options.s3_mode == _NONE:
        return None
    mode = S3Mode(options.s3_mode)
    provider = OwnProvider(*options.s3_provider) if options.s3_provider else None
    return _s3_wanted(mode, options.s3_key, provider, options, "--s3-key")


def _s3_wanted(mode: S3Mode, key: str | None, provider: OwnProvider | None, options: Options, option: str) -> S3Wanted:
    if mode.names_key:
        key = _needed_key(key or options.kms_key, f"{mode} in S3", option)
    elif mode is S3Mode.CSE_CUSTOM and provider is None:
        raise InputError("CSE-Custom needs a class in a jar", hint="give  --s3-provider s3://BUCKET/JAR CLASS")
    return S3Wanted(mode, key, provider)


def _override(text: str, options: Options) -> tuple[str, S3Wanted]:
    bucket, _, rest = text.partition("=")
    word, *values = rest.split(",")
    if not bucket or word not in [mode.value for mode in S3Mode]:
        hint = f"write BUCKET=MODE, with one of {', '.join(S3Mode)}"
        raise InputError(f"--override {text!r} names no bucket with a mode", hint=hint)
    mode = S3Mode(word)
    expected = {S3Mode.SSE_S3: (0,), S3Mode.CSE_CUSTOM: (2,)}.get(mode, (0, 1))
    if len(values) not in expected:
        hint = "write BUCKET=SSE-S3, BUCKET=SSE-KMS,ARN or BUCKET=CSE-Custom,s3://BUCKET/JAR,CLASS"
        raise InputError(f"--override {text!r} has the wrong number of parts", hint=hint)
    key = values[0] if mode.names_key and values else None
    provider = OwnProvider(values[0], values[1]) if mode is S3Mode.CSE_CUSTOM else None
    return bucket, _s3_wanted(mode, key, provider, options, f"--override {bucket}={mode},ARN")


def _disk(options: Options, release: Release) -> DiskWanted | None:
    if options.local_disk == _NONE:
        if options.ebs:
            hint = "leave --local-disk out, or --ebs"
            raise InputError("EBS encryption is a part of local-disk encryption", hint=hint)
        return None
    provider = DiskProvider(options.local_disk)
    own = OwnProvider(*options.local_disk_provider) if options.local_disk_provider else None
    if provider is DiskProvider.CUSTOM:
        if own is None:
            hint = "give  --local-disk-provider s3://BUCKET/JAR CLASS"
            raise InputError("Custom local-disk encryption needs a class in a jar", hint=hint)
        return DiskWanted(provider, options.local_disk_key, own, ebs=options.ebs is True)
    key = _needed_key(options.local_disk_key or options.kms_key, "AwsKms for local disks", "--local-disk-key")
    return DiskWanted(provider, key, own, ebs=can_encrypt_ebs(release) if options.ebs is None else options.ebs)


def _needed_key(key: str | None, what: str, option: str) -> str:
    if key is None:
        raise InputError(f"{what} needs an AWS KMS key", hint=f"give --kms-key ARN for everything, or {option} ARN")
    return key


def _certificates(options: Options, release: Release) -> CertificatesWanted | None:
    if options.certificates == _NONE:
        if any(getattr(options, name) for name in _CERTIFICATE_OPTIONS):
            raise InputError("options for certificates without any", hint="leave --certificates none out, or them")
        return None
    default = CertificateProvider.EMR if release.has(Feature.EMR_CERTIFICATES) else CertificateProvider.PEM
    if options.certificates is None and options.certificates_object is not None:
        default = CertificateProvider.CUSTOM if options.certificates_class is not None else CertificateProvider.PEM
    provider = CertificateProvider(options.certificates) if options.certificates is not None else default
    if provider is not CertificateProvider.EMR and options.certificates_object is None:
        hint = "give  --certificates-object s3://BUCKET/certs.zip, or --certificates none to leave traffic in clear"
        raise InputError(f"{release} needs certificates of your own for encryption in transit", hint=hint)
    return CertificatesWanted(
        provider,
        s3_object=options.certificates_object,
        provider_class=options.certificates_class,
        key=options.certificates_key,
        tags=tuple(_tag(text) for text in options.tags),
        validity_days=options.certificates_days,
        wildcard_dns_suffix=options.wildcard_dns_suffix,
    )


def _tag(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise InputError(f"--certificates-tag {text!r} is no tag", hint="write KEY=VALUE")
    return key, value


def _kerberos(options: Options) -> KerberosWanted | None:
    rest = (options.ticket_hours, options.admin_server, options.kdc_server, options.trust, options.ad)
    if options.kerberos is None:
        if any(rest):
            raise InputError("options for a KDC without one", hint="give --kerberos dedicated, or --kerberos external")
        return None
    provider = _KERBEROS[options.kerberos]
    if provider is KdcProvider.CLUSTER_DEDICATED and (options.admin_server or options.kdc_server or options.ad):
        hint = "a trust with another realm is --trust REALM DOMAIN ADMIN KDC"
        raise InputError("--admin-server, --kdc-server and --ad are for --kerberos external", hint=hint)
    if provider is KdcProvider.EXTERNAL and options.trust:
        raise InputError("--trust is for --kerberos dedicated", hint="give --ad REALM DOMAIN SERVER")
    return KerberosWanted(
        provider,
        options.ticket_hours,
        options.admin_server,
        options.kdc_server,
        options.trust or None,
        options.ad or None,
    )


def _metadata(options: Options, release: Release) -> tuple[int, int] | None:
    if options.imds == _NONE:
        return None
    if options.imds is not None:
        return int(options.imds), options.hop_limit
    default = default_metadata(release)
    return (default[0], options.hop_limit) if default is not None else None


def _authorization(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    authorization = read_document(path).authorization
    if authorization is None:
        raise InputError(f"{path} has no AuthorizationConfiguration", hint="name a security configuration that has")
    return authorization.to_json()


def _print_warnings(warnings: list[Finding], *, as_json: bool) -> None:
    """On standard error, for standard output holds the document."""
    if as_json:
        click.echo(json.dumps(findings_json(warnings)), err=True)
        return
    for finding in warnings:
        click.echo(f"warn  {finding.rule.value}  {shown(finding.message)}", err=True)
        click.echo(f"      hint: {shown(finding.hint)}", err=True)
