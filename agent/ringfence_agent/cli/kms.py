"""`ringfence kms`: the key server."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from ringfence_agent.cli.kms_options import admin_socket_option, config_option, root_key_option
from ringfence_agent.kms import serve as serving
from ringfence_agent.kms.config import Options, load_settings
from ringfence_zones.cli.component_group import ComponentGroup
from ringfence_zones.cli.context import CommandContext, global_options, hadoop_conf_given


@click.group(cls=ComponentGroup)
def kms() -> None:
    """The Hadoop-compatible key server."""


@kms.command()
@config_option
@click.option("--listen", metavar="HOST:PORT", help="where to listen; port 0 picks a free one")
@click.option(
    "--keystore",
    metavar="URI",
    help="sqlite:////ABS/path.db, postgresql://USER@HOST/DB, mysql://USER@HOST/DB or vault://PLACE",
)
@click.option(
    "--keystore-password-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="password for a database server, mode 0600",
)
@root_key_option
@click.option("--init", is_flag=True, help="make a store that is not there; a fresh SQLite store needs no leave")
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="worker processes  [one per CPU]")
@click.option(
    "--tls-cert", type=click.Path(path_type=Path), metavar="PEM", help="certificate chain, the server's own first"
)
@click.option("--tls-key", type=click.Path(path_type=Path), metavar="PEM", help="its private key, mode 0600 or 0640")
@admin_socket_option
@click.option("--admin-token-file", type=click.Path(path_type=Path), metavar="FILE", help="bearer token, mode 0600")
@global_options
def serve(
    context: CommandContext,
    *,
    config: Path | None,
    listen: str | None,
    keystore: str | None,
    keystore_password_file: Path | None,
    root_key: Path | None,
    init: bool,
    workers: int | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    admin_socket: Path | None,
    admin_token_file: Path | None,
) -> None:
    """Serve keys to NameNodes and HDFS clients until SIGTERM.

    Settings come from Hadoop's own files when --hadoop-conf names their directory (kms-site.xml, kms-acls.xml and
    core-site.xml; the environment's HADOOP_CONF_DIR does not count here), and from the configuration file otherwise.
    Prints one line, `ready kms://http@HOST:PORT/kms` (`https` with TLS), when every worker answers. SIGHUP reads ACLs
    and certificates again.
    """
    logging.basicConfig(
        level=logging.INFO if context.verbose else logging.WARNING,
        format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s",
    )
    settings = load_settings(
        Options(
            config=config,
            hadoop_conf=hadoop_conf_given(),
            listen=listen,
            keystore=keystore,
            keystore_password_file=keystore_password_file,
            root_key=root_key,
            init=init,
            workers=workers,
            admin_socket=admin_socket,
            admin_token_file=admin_token_file,
            tls_cert=tls_cert,
            tls_key=tls_key,
        )
    )
    serving.serve(settings)
