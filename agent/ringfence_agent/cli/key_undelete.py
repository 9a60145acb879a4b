"""`ringfence key deleted` and `ringfence key undelete`: keys that were deleted by mistake, and bringing them back.

Both ask the key server's admin endpoint, whose audit log then has who did it: over its Unix socket on its own machine,
else as this machine's client settings say.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from ringfence_agent.cli.kms_options import admin_socket_option, config_option
from ringfence_agent.kms.audit.record import utc_text
from ringfence_agent.kms.config import Options, default_file, find_places
from ringfence_zones.cli.context import CommandContext, global_options, hadoop_conf_given
from ringfence_zones.cli.render import counted, print_json, print_table, shown
from ringfence_zones.client_config import ClientConfig, read_client_config, read_http_access
from ringfence_zones.hadoop_conf import read_hadoop_conf
from ringfence_zones.kms_admin import AdminClient, open_admin_client
from ringfence_zones.kms_uri import KEY_PROVIDER, parse_kms_uri

SCHEMA = 1
# An admin socket has no use for the URI that a token would be sent to.
_ON_THIS_MACHINE = "kms://http@localhost:9600/kms"


@click.command()
@config_option
@admin_socket_option
@global_options
def deleted(context: CommandContext, config: Path | None, admin_socket: Path | None) -> None:
    """List the keys that were deleted. Nothing of them is gone, and until the time shown each can be brought back."""
    keys = _client(context, config, admin_socket).list_deleted_keys()
    if context.json:
        told = [
            {
                "name": key.name,
                "versions": key.versions,
                "deleted": utc_text(key.deleted_ms / 1000),
                "until": None if key.until_ms is None else utc_text(key.until_ms / 1000),
            }
            for key in keys
        ]
        print_json({"schema": SCHEMA, "keys": told})
        return
    rows = [
        (
            key.name,
            str(key.versions),
            utc_text(key.deleted_ms / 1000),
            "too late" if key.until_ms is None else utc_text(key.until_ms / 1000),
        )
        for key in keys
    ]
    if rows:
        print_table(("KEY", "VERSIONS", "DELETED", "UNTIL"), rows)
    else:
        click.echo("no key is deleted")


@click.command()
@config_option
@admin_socket_option
@click.argument("name", metavar="KEY")
@global_options
def undelete(context: CommandContext, config: Path | None, admin_socket: Path | None, name: str) -> None:
    """Bring a deleted KEY back, with all its versions.

    Possible for as long as the KMS's setting `tombstone` says (30 days), and not when a key of that name was made
    since.
    """
    versions = _client(context, config, admin_socket).undelete_key(name)
    if context.json:
        print_json({"schema": SCHEMA, "name": name, "versions": versions})
    else:
        click.echo(shown(f"key {name} is back, with {counted(versions, 'version')}"))


def _client(context: CommandContext, config: Path | None, admin_socket: Path | None) -> AdminClient:
    """As the policy is published: the KMS of this machine when its settings or its socket are named, or are there."""
    if admin_socket is None and (config is not None or default_file().exists()):
        found = find_places(Options(config=config, hadoop_conf=hadoop_conf_given())).admin_socket
        admin_socket = found if config is not None or found.exists() else None
    if admin_socket is not None:
        return open_admin_client(ClientConfig(kms_admin_socket=admin_socket), parse_kms_uri(_ON_THIS_MACHINE))
    provider = read_hadoop_conf(context.hadoop_conf, "core-site.xml").get(KEY_PROVIDER)
    uri = parse_kms_uri(provider or _ON_THIS_MACHINE)
    access = read_http_access(context.hadoop_conf, os.environ)
    return open_admin_client(read_client_config(context.hadoop_conf, os.environ), uri, access=access)
