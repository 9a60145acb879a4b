"""`ringfence emr certificates`: what nodes show and trust when in-transit encryption is on (provider PEM)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from ringfence_bootstrap.account.certificate_authority import open_authority
from ringfence_bootstrap.account.certificate_bundle import (
    Bundle,
    pack,
    read_secret_bytes,
    write_secret_file,
)
from ringfence_bootstrap.account.certificate_checks import check_zip, first_end
from ringfence_bootstrap.account.certificate_upload import parse_target, upload
from ringfence_bootstrap.account.connection import AwsPlace, Connection, check_region
from ringfence_bootstrap.cli.account_options import account_options
from ringfence_bootstrap.security_configuration.pem_bundle import MAX_BUNDLE_BYTES, MAX_MEMBER_BYTES, node_domain
from ringfence_zones.bounded_file import read_bounded
from ringfence_zones.cli import exits
from ringfence_zones.cli.command_group import CommandGroup
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import counted, print_findings, print_json, shown
from ringfence_zones.errors import ConfigError, InputError, PlanRefusedError
from ringfence_zones.findings import Finding, Severity, findings_json
from ringfence_zones.secret import Secret

_path = click.Path(path_type=Path)
_MAX_DAYS = 3650
_region = click.option("--region", metavar="REGION", help="the region of the clusters  [AWS_REGION]")
_domain = click.option(
    "--domain", metavar="SUFFIX", help="what nodes' names end with, when the VPC has a domain of its own  [Amazon's]"
)
_out = click.option("--out", type=_path, required=True, metavar="FILE", help="the zip to write, mode 0600")
_replace = click.option("--replace", is_flag=True, help="write over what is there")


@click.group(cls=CommandGroup)
def certificates() -> None:
    """Certificates for the nodes of clusters with in-transit encryption (provider PEM)."""


@certificates.command()
@click.option(
    "--authority",
    type=_path,
    required=True,
    metavar="DIR",
    help="the private authority that signs, made there when it is not: keep it, and keep it off the cluster",
)
@click.option("--name", default="Ringfence EMR authority", metavar="NAME", help="what a new authority is called")
@click.option("--days", type=click.IntRange(1, _MAX_DAYS), default=825, metavar="N", help="how long it is valid  [825]")
@_region
@_domain
@_out
@_replace
@global_options
def new(
    context: CommandContext,
    authority: Path,
    name: str,
    days: int,
    region: str | None,
    domain: str | None,
    out: Path,
    *,
    replace: bool,
) -> None:
    """Make a key and a certificate for all nodes of a cluster, signed by a private authority, as the zip EMR wants.

    Asks nobody. The names are those that nodes have in the region.
    """
    wanted = _region_given(region)
    signer, is_new = open_authority(authority, name)
    suffix = _suffix(domain)
    bundle = signer.issue(f"*.{suffix or node_domain(wanted)}", days)
    content = pack(bundle)
    findings = check_zip(content, str(out), region=wanted, domain=suffix)
    _refuse_errors(findings, f"{out} was not written")
    write_secret_file(out, content, replace=replace)
    _report(context, out, bundle, findings, {"authority": str(authority), "authority_is_new": is_new})


@certificates.command("pack")
@click.option("--key", "key_file", type=_path, required=True, metavar="PEM", help="the private key, mode 0600")
@click.option(
    "--chain", "chain_file", type=_path, required=True, metavar="PEM", help="the nodes' certificate, then who signed it"
)
@click.option(
    "--trusted", "trusted_file", type=_path, metavar="PEM", help="what nodes trust  [what the chain ends with]"
)
@_region
@_domain
@_out
@_replace
@global_options
def pack_command(
    context: CommandContext,
    key_file: Path,
    chain_file: Path,
    trusted_file: Path | None,
    region: str | None,
    domain: str | None,
    out: Path,
    *,
    replace: bool,
) -> None:
    """Make the zip that EMR wants from a key and certificates of your own, once they are checked."""
    bundle = Bundle(
        read_secret_bytes(key_file, MAX_MEMBER_BYTES),
        read_bounded(chain_file, MAX_MEMBER_BYTES, InputError, kind="a PEM file"),
        read_bounded(trusted_file, MAX_MEMBER_BYTES, InputError, kind="a PEM file") if trusted_file else None,
    )
    content = pack(bundle)
    findings = check_zip(content, str(out), region=_region_given(region), domain=_suffix(domain))
    _refuse_errors(findings, f"{out} was not written")
    write_secret_file(out, content, replace=replace)
    _report(context, out, bundle, findings, {})


@certificates.command()
@click.argument("file", metavar="ZIP", type=_path)
@_region
@_domain
@global_options
@click.pass_context
def check(
    click_context: click.Context, context: CommandContext, file: Path, region: str | None, domain: str | None
) -> None:
    """Look at a zip: layout, key and chain, names, dates; exit 3 when nodes would not start with it. Asks nobody."""
    findings, _ = _checked(file, _region_given(region), domain)
    if context.json:
        print_json(findings_json(findings))
    else:
        print_findings(findings, nothing=f"{shown(str(file))}: as EMR wants it")
    if any(each.severity is Severity.ERROR for each in findings):
        click_context.exit(exits.FINDINGS)


@certificates.command("upload")
@click.argument("file", metavar="ZIP", type=_path)
@click.argument("uri", metavar="s3://BUCKET/KEY.zip")
@click.option("--kms-key", required=True, metavar="ARN", help="the KMS key that S3 encrypts it with")
@_domain
@_replace
@account_options
@global_options
def upload_command(
    context: CommandContext,
    file: Path,
    uri: str,
    kms_key: str,
    domain: str | None,
    place: AwsPlace,
    *,
    replace: bool,
) -> None:
    """Check a zip and upload it, encrypted under a KMS key (SSE-KMS). What is there is not written over.

    Nodes fetch it when they start, as the instance role: that needs s3:GetObject on it and kms:Decrypt on the key.
    """
    target = parse_target(uri)
    connection = Connection(place)
    findings, content = _checked(file, connection.region, domain)
    _refuse_errors(findings, f"{file} was not uploaded")
    done = upload(connection, content, target, kms_key, replace=replace)
    found = [*findings, *done.findings]
    if context.json:
        outcome = {"schema": 1, "s3_object": done.target.uri, "uploaded": done.is_new, "kms_key": kms_key}
        print_json(outcome | findings_json(found))
        return
    click.echo(f"uploaded {done.target.uri}" if done.is_new else f"nothing to do: {done.target.uri} is this zip")
    click.echo(f'  in a security configuration: "CertificateProviderType": "PEM", "S3Object": "{done.target.uri}"')
    if found:
        print_findings(found, nothing="")


def _checked(file: Path, region: str, domain: str | None) -> tuple[list[Finding], Secret]:
    content = read_secret_bytes(file, MAX_BUNDLE_BYTES)
    return check_zip(content, str(file), region=region, domain=_suffix(domain)), content


def _suffix(domain: str | None) -> str | None:
    """--domain without what stands before a suffix. Raises InputError."""
    if domain is None:
        return None
    suffix = domain.removeprefix("*").strip(".")
    if not suffix or not all(part.isascii() and part.replace("-", "a").isalnum() for part in suffix.split(".")):
        raise InputError(f"--domain {domain!r} is no DNS suffix", hint="write it like corp.example.com")
    return suffix


def _region_given(region: str | None) -> str:
    found = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not found:
        raise ConfigError("no region is named, and the names of nodes depend on it", hint="give --region")
    return check_region(found)


def _refuse_errors(findings: Sequence[Finding], what: str) -> None:
    errors = [each for each in findings if each.severity is Severity.ERROR]
    if errors:
        raise PlanRefusedError(
            f"{what}: {counted(len(errors), 'error')} that nodes would not start with", errors, hint="mend them first"
        )


def _report(
    context: CommandContext, out: Path, bundle: Bundle, findings: Sequence[Finding], more: dict[str, object]
) -> None:
    ends = first_end(bundle)
    if context.json:
        facts = {"schema": 1, "file": str(out), "ends": ends.isoformat(timespec="seconds")}
        print_json(facts | more | findings_json(findings))
        return
    click.echo(f"wrote {shown(str(out))}, valid until {ends:%Y-%m-%d}")
    if more.get("authority_is_new"):
        click.echo(f"  made the authority in {shown(str(more['authority']))}: keep it, and keep it off the cluster")
    click.echo("  nodes fetch it when they start and never again: other certificates take new clusters")
    if findings:
        print_findings(findings, nothing="")
