"""`ringfence emr classifications`: the `Configurations` of a cluster that encrypt HDFS and what crosses its network.

Offline. Standard output holds the JSON that RunJobFlow takes (`--configurations file://…`), findings go to standard
error; with `--json` both are in one object. Exit 3 when a finding is an error: something that was asked for cannot be.
"""

from __future__ import annotations

from pathlib import Path

import click

from ringfence_bootstrap.classifications.generate import Generated, generate
from ringfence_bootstrap.classifications.wanted import KmsKind, TlsStores, Wanted, read_applications
from ringfence_bootstrap.releases import parse_release
from ringfence_bootstrap.security_configuration.reading import read_document
from ringfence_zones.cli import exits
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import print_findings, print_json
from ringfence_zones.errors import InputError
from ringfence_zones.findings import Severity, findings_json
from ringfence_zones.kms_uri import parse_kms_uri
from ringfence_zones.policy import load_policy

_PATH = click.Path(path_type=Path)


@click.command()
@click.option("--release", required=True, metavar="LABEL", help="the cluster's release: emr-7.12.0, emr-spark-8.0.0")
@click.option(
    "--applications",
    "applications",
    default="Hadoop",
    metavar="A,B",
    help="what the cluster installs, as EMR names it  [Hadoop]",
)
@click.option("--kerberos", is_flag=True, help="the cluster has Kerberos")
@click.option("--in-transit/--no-in-transit", default=True, help="encryption in transit  [yes]")
@click.option(
    "--security-configuration",
    "security_configuration",
    type=_PATH,
    metavar="FILE",
    help="the cluster's security configuration: when it encrypts in transit, only EMR's defects are put right",
)
@click.option(
    "--foreign-certificate", is_flag=True, help="the security configuration's certificate does not name EMR's nodes"
)
@click.option("--tls-key-store", metavar="PATH", help="a Java key store that is on every node before Hadoop starts")
@click.option("--tls-trust-store", metavar="PATH", help="the Java trust store beside it")
@click.option("--tls-password-secret", metavar="ARN", help="the secret (Secrets Manager) with the stores' password")
@click.option("-f", "--file", "policy_file", type=_PATH, metavar="FILE", help="the policy: prepares HDFS encryption")
@click.option(
    "--kms",
    type=click.Choice(["ringfence", "hardened"]),
    default="ringfence",
    help="who serves the keys: Ringfence's KMS, or Hadoop's own as `ringfence kms harden` sets it up  [ringfence]",
)
@click.option("--kms-uri", metavar="URI", help="a KMS off the cluster: kms://https@HOST1;HOST2:9600/kms")
@click.option("--auth-to-local", metavar="RULES", help="Kerberos name rules, the same for Hadoop and its KMS")
@global_options
@click.pass_context
def classifications(
    click_context: click.Context,
    context: CommandContext,
    *,
    release: str,
    applications: str,
    kerberos: bool,
    in_transit: bool,
    security_configuration: Path | None,
    foreign_certificate: bool,
    tls_key_store: str | None,
    tls_trust_store: str | None,
    tls_password_secret: str | None,
    policy_file: Path | None,
    kms: KmsKind,
    kms_uri: str | None,
    auth_to_local: str | None,
) -> None:
    """Print the classifications that encrypt HDFS and the cluster's own traffic.

    Without Kerberos most of it encrypts nothing or gives its key away: such a feature is left out, named, and ends the
    command with 3. Zones are made by `ringfence apply`, never by the classification hdfs-encryption-zones.
    """
    generated = generate(
        Wanted(
            release=parse_release(release),
            applications=read_applications(name for name in applications.split(",") if name.strip()),
            kerberos=kerberos,
            in_transit=in_transit,
            in_transit_configured=security_configuration is not None
            and read_document(security_configuration).encrypts_in_transit,
            foreign_certificate=foreign_certificate,
            tls=_stores(tls_key_store, tls_trust_store, tls_password_secret),
            policy=load_policy(policy_file) if policy_file is not None else None,
            kms=kms,
            kms_uri=parse_kms_uri(kms_uri) if kms_uri is not None else None,
            auth_to_local=auth_to_local,
        )
    )
    _print(context, generated)
    refused = any(finding.severity is Severity.ERROR for finding in generated.findings)
    click_context.exit(exits.FINDINGS if refused else exits.DONE)


def _stores(key_store: str | None, trust_store: str | None, secret: str | None) -> TlsStores | None:
    if key_store and trust_store and secret:
        return TlsStores(key_store, trust_store, secret)
    if key_store or trust_store or secret:
        raise InputError(
            "the key store, the trust store and the secret with their password go together",
            hint="--tls-key-store PATH --tls-trust-store PATH --tls-password-secret ARN",
        )
    return None


def _print(context: CommandContext, generated: Generated) -> None:
    if context.json:
        print_json(
            {
                "schema": 1,
                "configurations": generated.configurations(),
                **findings_json(generated.findings),
            }
        )
        return
    print_json(generated.configurations())
    print_findings(generated.findings, nothing="nothing stays in clear", err=True)
