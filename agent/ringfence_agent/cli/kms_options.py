"""Options by which commands find the KMS of this machine: the same names and words wherever they stand."""

from __future__ import annotations

from pathlib import Path

import click

from ringfence_agent.kms.config import DEFAULT_FILE, FILE_VARIABLE

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"the KMS's settings  [{FILE_VARIABLE}, else {DEFAULT_FILE}]",
)
keystore_option = click.option("--keystore", metavar="URI", help="the KMS's key store, as given to `kms serve`")
admin_socket_option = click.option(
    "--admin-socket", type=click.Path(path_type=Path), metavar="PATH", help="the KMS's Unix socket  [<store>.sock]"
)
root_key_option = click.option(
    "--root-key", type=click.Path(path_type=Path), metavar="FILE", help="root key file  [beside the SQLite store]"
)
