"""`client.yaml`: what this machine's commands know beyond Hadoop's own configuration.

    kms_admin_socket: /run/ringfence/kms-admin.sock   # how a policy is published on the KMS's own machine
    kms_token_file: /etc/ringfence/admin.token        # or from elsewhere; without both, by Kerberos
    kms_ca_file: /etc/ringfence/kms-ca.pem            # whom to trust; else ssl-client.xml's trust store or the system
    kerberos: {principal: hdfs@EXAMPLE.COM, keytab: /etc/security/hdfs.keytab}   # else the user's ticket cache

World-readable and without secrets: it names the files that hold them. The environment overrides it, as the sandbox
does: RINGFENCE_KMS_ADMIN_SOCKET and RINGFENCE_KMS_TOKEN_FILE the first two, RINGFENCE_PRINCIPAL and RINGFENCE_KEYTAB
the last. No file at all is fine until something needs what it would say.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ringfence_zones.config_file import AbsolutePath, ConfigModel, read_config
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import read_hadoop_conf
from ringfence_zones.http_session import HttpAccess
from ringfence_zones.kerberos import KerberosKeytab, KerberosLogin, uses_kerberos
from ringfence_zones.tls_trust import TlsTrust

CLIENT_CONFIG_FILE = Path("/etc/ringfence/client.yaml")
# Beside Hadoop's files, so that one --hadoop-conf says everything about a cluster.
HADOOP_CONF_NAME = "ringfence-client.yaml"
ADMIN_SOCKET_VARIABLE = "RINGFENCE_KMS_ADMIN_SOCKET"
TOKEN_FILE_VARIABLE = "RINGFENCE_KMS_TOKEN_FILE"  # noqa: S105 - the name of a variable that names a file


PRINCIPAL_VARIABLE, KEYTAB_VARIABLE = "RINGFENCE_PRINCIPAL", "RINGFENCE_KEYTAB"


class ClientConfig(ConfigModel):
    """How this machine's commands reach the KMS, and who they are on a cluster with Kerberos."""

    kms_admin_socket: AbsolutePath | None = None
    kms_token_file: AbsolutePath | None = None
    kms_ca_file: AbsolutePath | None = None
    kerberos: KerberosKeytab | None = None


def read_client_config(hadoop_conf: Path, environ: Mapping[str, str]) -> ClientConfig:
    """The file in `hadoop_conf`, else the machine's, else nothing; environment variables win. Raises ConfigError."""
    path = hadoop_conf / HADOOP_CONF_NAME
    if not path.exists():
        path = CLIENT_CONFIG_FILE
    config = read_config(path, ClientConfig) if path.exists() else ClientConfig()
    socket, token_file = environ.get(ADMIN_SOCKET_VARIABLE), environ.get(TOKEN_FILE_VARIABLE)
    if socket or token_file:
        config = config.model_copy(
            update={
                "kms_admin_socket": Path(socket).absolute() if socket else None,
                "kms_token_file": Path(token_file).absolute() if token_file else None,
            }
        )
    principal, keytab = environ.get(PRINCIPAL_VARIABLE), environ.get(KEYTAB_VARIABLE)
    if bool(principal) != bool(keytab):
        raise ConfigError(
            f"of {PRINCIPAL_VARIABLE} and {KEYTAB_VARIABLE} only one is set",
            hint="set both to log in from a keytab, or neither to use the ticket cache",
        )
    if principal and keytab:
        block = KerberosKeytab(principal=principal, keytab=Path(keytab).absolute())
        config = config.model_copy(update={"kerberos": block})
    return config


def read_http_access(hadoop_conf: Path, environ: Mapping[str, str], keytab: KerberosKeytab | None = None) -> HttpAccess:
    """Who this process is to the cluster's daemons, and whom it trusts; `keytab` wins over client.yaml's.

    Raises ConfigError for files that cannot be used.
    """
    config = read_client_config(hadoop_conf, environ)
    login = KerberosLogin.of(keytab or config.kerberos) if is_secure(hadoop_conf) else None
    return HttpAccess(login, TlsTrust(config.kms_ca_file, hadoop_conf))


def is_secure(hadoop_conf: Path) -> bool:
    """Whether the cluster of this configuration uses Kerberos."""
    return uses_kerberos(read_hadoop_conf(hadoop_conf, "core-site.xml"))
