"""`client.yaml`: what this machine's commands know beyond Hadoop's own configuration.

World-readable and without secrets: it names the KMS's admin socket, or the file that holds a bearer token. The
environment overrides it, as the sandbox does. No file at all is fine until something needs the admin endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ringfence_zones.config_file import AbsolutePath, ConfigModel, read_config

CLIENT_CONFIG_FILE = Path("/etc/ringfence/client.yaml")
# Beside Hadoop's files, so that one --hadoop-conf says everything about a cluster.
HADOOP_CONF_NAME = "ringfence-client.yaml"
ADMIN_SOCKET_VARIABLE = "RINGFENCE_KMS_ADMIN_SOCKET"
TOKEN_FILE_VARIABLE = "RINGFENCE_KMS_TOKEN_FILE"  # noqa: S105 - the name of a variable that names a file


class ClientConfig(ConfigModel):
    """How to reach the KMS's admin endpoint from this machine."""

    kms_admin_socket: AbsolutePath | None = None
    kms_token_file: AbsolutePath | None = None


def read_client_config(hadoop_conf: Path, environ: Mapping[str, str]) -> ClientConfig:
    """The file in `hadoop_conf`, else the machine's, else nothing; environment variables win. Raises ConfigError."""
    path = hadoop_conf / HADOOP_CONF_NAME
    if not path.exists():
        path = CLIENT_CONFIG_FILE
    config = read_config(path, ClientConfig) if path.exists() else ClientConfig()
    socket, token_file = environ.get(ADMIN_SOCKET_VARIABLE), environ.get(TOKEN_FILE_VARIABLE)
    if not socket and not token_file:
        return config
    return ClientConfig(
        kms_admin_socket=Path(socket).absolute() if socket else None,
        kms_token_file=Path(token_file).absolute() if token_file else None,
    )
