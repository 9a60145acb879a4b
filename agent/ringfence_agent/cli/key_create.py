"""`ringfence key create`: a key with random material, in the custody that is asked for.

As Hadoop's `hadoop key create NAME -size BITS -attr ringfence.custody=WORD`, without a JVM. What that command cannot
do: a custody that the KMS does not have is refused before anything is made, on a stock KMS too, which would take the
attribute and hold the key itself.
"""

from __future__ import annotations

import os
from contextlib import closing

import click

from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import print_json, shown
from ringfence_zones.client_config import read_http_access
from ringfence_zones.custody import CUSTODIES, CUSTODY_ATTRIBUTE, DEFAULT_CUSTODY, Custody
from ringfence_zones.errors import ConfigError, RefusedError
from ringfence_zones.findings import Rule
from ringfence_zones.hadoop_conf import read_hadoop_conf
from ringfence_zones.kerberos import refuse_claimed_user
from ringfence_zones.keys import DEFAULT_LENGTH_BITS
from ringfence_zones.kms_client import KmsClient
from ringfence_zones.kms_uri import KEY_PROVIDER, OLD_KEY_PROVIDER

SCHEMA = 1


@click.command()
@click.argument("name", metavar="KEY")
@click.option("--size", "length_bits", type=int, default=DEFAULT_LENGTH_BITS, metavar="BITS", help="128 or 256  [256]")
@click.option("--custody", type=click.Choice(CUSTODIES), default=DEFAULT_CUSTODY, help=f"[{DEFAULT_CUSTODY}]")
@click.option("--description", metavar="TEXT", help="stored with the key")
@click.option("--provider", metavar="URI", help="the KMS, as kms://https@HOST:9600/kms  [core-site.xml's]")
@global_options
def create(
    context: CommandContext,
    *,
    name: str,
    length_bits: int,
    custody: Custody,
    description: str | None,
    provider: str | None,
) -> None:
    """Make KEY, with random material.

    In custody envelope the key server holds the key; in transit Vault does, and the key server asks it for every data
    key. A key keeps its custody. `ringfence apply` makes the keys of a policy by itself.
    """
    access = read_http_access(context.hadoop_conf, os.environ)
    if access.kerberos is not None:
        refuse_claimed_user(context.as_user)
    with closing(KmsClient(provider or _provider(context), context.user, access=access)) as kms:
        _require_custody(kms, custody)
        kms.create_key(name, length_bits, description=description, attributes={CUSTODY_ATTRIBUTE: custody})
    if context.json:
        print_json({"schema": SCHEMA, "name": name, "length_bits": length_bits, "custody": custody})
    else:
        click.echo(shown(f"key {name} is made, {length_bits} bits, in custody {custody}"))


def _provider(context: CommandContext) -> str:
    conf = read_hadoop_conf(context.hadoop_conf, "core-site.xml", "hdfs-site.xml")
    for name in (KEY_PROVIDER, OLD_KEY_PROVIDER):
        uri = conf.get(name)
        if uri:
            return uri
    raise ConfigError(
        f"{context.hadoop_conf} names no KMS: {KEY_PROVIDER} is not set",
        hint="set it in core-site.xml, or give --provider kms://https@HOST:9600/kms",
    )


def _require_custody(kms: KmsClient, custody: Custody) -> None:
    """Custody envelope is what every KMS does."""
    if custody == DEFAULT_CUSTODY:
        return
    status = kms.find_ringfence_status()
    if status is None:
        raise RefusedError(
            f"{kms.uri.text} is not Ringfence's KMS: it knows no custody {custody} and would hold the key itself",
            Rule.NEEDS_RINGFENCE_KMS,
        )
    if custody not in status.custodies:
        raise RefusedError(
            f"the KMS at {kms.uri.text} does not have custody {custody}: it is connected to no Vault",
            Rule.CUSTODY_UNAVAILABLE,
            hint="set `vault` in its kms.yaml and restart it; `ringfence vault setup` prepares Vault",
        )
