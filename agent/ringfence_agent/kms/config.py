"""Where the KMS's settings come from: its own `kms.yaml`, Hadoop's `kms-site.xml` and `core-site.xml`, options.

One of two sources: with `--hadoop-conf DIR` Hadoop's files in DIR, otherwise the configuration file: that of --config,
else of RINGFENCE_KMS_CONFIG, else `/etc/ringfence/kms.yaml`. Its `hadoop_conf` may name a directory of Hadoop's files
for ACLs and the like. Options overrule either. Hadoop's properties keep their meaning and defaults, except that what
would be unsafe is refused:

1. Plain HTTP that others can reach needs to be written out: `allow_plain_http: true` in kms.yaml, or
   `hadoop.kms.ssl.enabled` set to false in kms-site.xml. Loopback needs nothing.
2. How callers are authenticated is `authentication_config`'s to read and to refuse.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field

from ringfence_agent.http.limits import Limits
from ringfence_agent.http.listening import parse_listen
from ringfence_agent.http.tls_settings import TlsBlock, TlsSettings
from ringfence_agent.keystore.open import local_path
from ringfence_agent.keystore.protectors.aws_kms_config import AwsKmsBlock, AwsKmsSettings, aws_kms_settings
from ringfence_agent.keystore.vault_kv.address import is_vault_uri, parse_vault_uri, require_vault
from ringfence_agent.kms.audit.config import AuditBlock, AuditSettings, audit_settings, warn_of_other_loggers
from ringfence_agent.kms.authentication.config import (
    AuthenticationBlock,
    AuthenticationSettings,
    ProxyUserBlock,
    TokensBlock,
    authentication_settings,
)
from ringfence_agent.kms.authorization.acl_file import AclFile
from ringfence_agent.kms.authorization.groups_config import GroupsBlock, GroupSettings, group_settings
from ringfence_agent.kms.keeping_config import (
    DEFAULT_CHECK_S,
    DEFAULT_TOMBSTONE_S,
    BackupBlock,
    BackupSettings,
    KeepingSettings,
    backup_settings,
)
from ringfence_agent.kms.key_memory_config import DEFAULT_S, MAX_S, key_memory_s
from ringfence_agent.kms.kms import KeyDefaults
from ringfence_agent.kms.limits_config import LimitsBlock, http_limits
from ringfence_agent.kms.monitoring.config import MetricsAccess, MetricsBlock, service_name
from ringfence_agent.kms.protector_config import (
    FILE_ONLY,
    ProtectorName,
    ProtectorSettings,
    protector_settings,
    require_memory,
)
from ringfence_agent.kms.tls_config import SSL_ENABLED, tls_settings
from ringfence_agent.spnego.settings import KerberosSettings
from ringfence_agent.vault.settings import VaultBlock, VaultSettings, vault_settings
from ringfence_zones.access_list import AccessList
from ringfence_zones.config_file import AbsolutePath, ConfigModel, DurationS, read_config
from ringfence_zones.errors import ConfigError
from ringfence_zones.gssapi import ChannelBinding
from ringfence_zones.hadoop_conf import HadoopConf, read_hadoop_conf
from ringfence_zones.keys import DEFAULT_CIPHER
from ringfence_zones.publication import Grant

_log = logging.getLogger(__name__)

DEFAULT_FILE = Path("/etc/ringfence/kms.yaml")
# Names another default, so that a sandbox's shell asks the sandbox's KMS.
FILE_VARIABLE = "RINGFENCE_KMS_CONFIG"
DEFAULT_PORT = 9600
# Where the admin socket of a KMS is that keeps its keys in a database server: the service's own directory.
_SYSTEM_ADMIN_SOCKET = Path("/var/lib/ringfence/kms.sock")
# Hadoop's own default length; Ringfence's policies always say theirs.
_HADOOP_LENGTH_BITS = 128
_DAY_S = 86_400.0
_MAX_WORKERS = 256


class AdminBlock(ConfigModel):
    """How administrators reach the policy endpoint.

    The socket is `<store>.sock` beside an SQLite store unless named, else /var/lib/ringfence/kms.sock. `users` (`etl`,
    `@group`) may publish the first policy when Kerberos or a certificate proves them; from then on its `kms.admins` do.
    """

    socket: AbsolutePath | None = None
    token_file: AbsolutePath | None = None
    users: list[str] = Field(default_factory=list)


class KmsFile(ConfigModel):
    """`kms.yaml`."""

    listen: str = f"localhost:{DEFAULT_PORT}"
    keystore: str | None = None
    root_key_file: AbsolutePath | None = None
    keystore_password_file: AbsolutePath | None = None
    protector: list[ProtectorName] = Field(default=["file"], min_length=1)
    aws_kms: AwsKmsBlock | None = None
    vault: VaultBlock | None = None
    workers: int | None = Field(None, ge=1, le=_MAX_WORKERS)
    tls: TlsBlock | None = None
    limits: LimitsBlock = LimitsBlock()
    allow_plain_http: bool = False
    hadoop_conf: AbsolutePath | None = None
    admin: AdminBlock = AdminBlock()
    audit: AuditBlock = AuditBlock()
    metrics: MetricsBlock = MetricsBlock()
    groups: GroupsBlock = GroupsBlock()
    authentication: AuthenticationBlock | None = None
    keytab_file: AbsolutePath | None = None
    delegation_tokens: TokensBlock | None = None
    proxy_users: dict[str, ProxyUserBlock] | None = None
    revocation_bound: DurationS = Field(30.0, ge=1, le=3600)
    key_memory: DurationS = Field(DEFAULT_S, ge=0, le=MAX_S)
    backup: BackupBlock | None = None
    store_check: DurationS = Field(DEFAULT_CHECK_S, ge=1, le=86_400)
    tombstone: DurationS = Field(DEFAULT_TOMBSTONE_S, ge=0, le=10 * 366 * 86_400)
    grant_lifetime: DurationS = Field(_DAY_S, ge=1, le=30 * _DAY_S)
    drain: DurationS = Field(20.0, ge=0, le=3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `ringfence kms serve`; None where one was not given."""

    config: Path | None = None
    hadoop_conf: Path | None = None
    listen: str | None = None
    keystore: str | None = None
    root_key: Path | None = None
    keystore_password_file: Path | None = None
    init: bool = False
    workers: int | None = None
    admin_socket: Path | None = None
    admin_token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything decided. Times are seconds.

    `admin_socket_named` is False for the default path, which may be left out where a socket cannot be. `tls` is None
    for plain HTTP.
    """

    host: str
    port: int
    tls: TlsSettings | None
    limits: Limits
    workers: int
    keystore: str
    root_key: Path | None
    keystore_password_file: Path | None = None
    protectors: ProtectorSettings = FILE_ONLY
    aws_kms: AwsKmsSettings | None = None
    vault: VaultSettings | None = None
    init: bool
    acl_directory: Path | None
    key_authorization: bool
    groups: GroupSettings
    defaults: KeyDefaults
    admin_socket: Path
    admin_socket_named: bool
    admin_token_file: Path | None
    admin_users: AccessList
    audit: AuditSettings
    metrics_access: MetricsAccess
    service_name: str
    authentication: AuthenticationSettings
    revocation_bound_s: float
    key_memory_s: float
    keeping: KeepingSettings
    grant_lifetime_s: float
    drain_s: float


def default_file() -> Path:
    """The configuration file when none is given."""
    named = os.environ.get(FILE_VARIABLE)
    return Path(named).absolute() if named else DEFAULT_FILE


def load_settings(options: Options) -> Settings:
    """Reads whatever the options say is to be read. Raises ConfigError (or InputError for a key store's URI)."""
    file, conf, directory = _read_sources(options)
    host, port = parse_listen(options.listen or file.listen)
    tls = tls_settings(options.tls_cert, options.tls_key, file.tls, conf, directory)
    if tls is None:
        _require_leave_for_plain_http(host, file, conf)
    authentication = authentication_settings(
        file.authentication, file.delegation_tokens, file.proxy_users, conf, file.keytab_file
    )
    if authentication.kerberos is not None:
        _require_a_binding(authentication.kerberos, tls)
        authentication.kerberos.check()
    warn_of_other_loggers(conf)
    uri = _keystore_uri(options, file, conf)
    store = local_path(uri)
    AclFile(directory).load()
    socket = options.admin_socket or file.admin.socket
    audit = audit_settings(file.audit, store)
    protectors, key_memory = _protectors(file), key_memory_s(file.key_memory, conf)
    if is_vault_uri(uri):
        parse_vault_uri(uri, require_vault(protectors.vault).kv_mount)
    require_memory(protectors, key_memory)
    return Settings(
        host=host,
        port=port,
        tls=tls,
        limits=http_limits(file.limits, conf),
        workers=options.workers or file.workers or len(os.sched_getaffinity(0)),
        keystore=uri,
        root_key=options.root_key or file.root_key_file,
        keystore_password_file=options.keystore_password_file or file.keystore_password_file,
        protectors=protectors,
        aws_kms=protectors.aws_kms,
        vault=protectors.vault,
        init=options.init,
        acl_directory=directory,
        key_authorization=conf.get_bool("hadoop.kms.key.authorization.enable", True),
        # Half of the bound for the system's own caches below.
        groups=group_settings(file.groups, conf, file.revocation_bound / 2),
        defaults=_key_defaults(conf),
        admin_socket=socket or _admin_socket(store),
        admin_socket_named=socket is not None,
        admin_token_file=options.admin_token_file or file.admin.token_file,
        admin_users=_administrators(file.admin),
        audit=audit,
        metrics_access=MetricsAccess(file.metrics.access),
        service_name=service_name(conf),
        authentication=authentication,
        revocation_bound_s=file.revocation_bound,
        key_memory_s=key_memory,
        keeping=KeepingSettings(
            backup=backup_settings(file.backup),
            check_s=file.store_check,
            tombstone_s=file.tombstone,
            mark_directory=audit.directory,
        ),
        grant_lifetime_s=file.grant_lifetime,
        drain_s=file.drain,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """What opens the key store of a KMS, without the rest of it."""

    keystore: str
    root_key: Path | None
    keystore_password_file: Path | None
    protectors: ProtectorSettings
    backup: BackupSettings | None
    audit_directory: Path


def load_store_settings(options: Options) -> StoreSettings:
    """The key store as `kms serve` with these options would open it; with --keystore alone there need be no
    configuration file. Raises ConfigError.
    """
    if options.config is None and options.hadoop_conf is None and options.keystore and not default_file().exists():
        file, conf = KmsFile(), HadoopConf({})
    else:
        file, conf, _ = _read_sources(options)
    uri = _keystore_uri(options, file, conf)
    return StoreSettings(
        keystore=uri,
        root_key=options.root_key or file.root_key_file,
        keystore_password_file=options.keystore_password_file or file.keystore_password_file,
        protectors=_protectors(file),
        backup=backup_settings(file.backup),
        audit_directory=audit_settings(file.audit, local_path(uri)).directory,
    )


def _protectors(file: KmsFile) -> ProtectorSettings:
    vault = vault_settings(file.vault) if file.vault is not None else None
    aws_kms = aws_kms_settings(file.aws_kms) if file.aws_kms is not None else None
    return protector_settings(file.protector, vault, aws_kms)


def load_vault_settings(config: Path | None) -> VaultSettings:
    """The `vault` block of the configuration file, whatever the rest of it needs. Raises ConfigError without one."""
    path = config or default_file()
    file = read_config(path, KmsFile)
    if file.vault is None:
        raise ConfigError(
            f"{path} has no vault block",
            hint="write at least vault: {addresses: [https://vault.example.com:8200], cluster: NAME, auth: {...}};"
            " packaging/docs/kms.yaml shows every setting",
        )
    return _with_keystore(vault_settings(file.vault), file.keystore)


def _with_keystore(vault: VaultSettings, uri: str | None) -> VaultSettings:
    """Also where the key store is, when it is in this Vault. Raises InputError for a `vault:` URI that is none."""
    if uri is None or not is_vault_uri(uri):
        return vault
    return replace(vault, keystore_prefix=parse_vault_uri(uri, vault.kv_mount).prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a KMS with some options answers and writes, and where its Hadoop files are."""

    host: str
    port: int
    hadoop_conf: Path | None
    admin_socket: Path
    audit_directory: Path


def find_places(options: Options) -> Places:
    """What another command needs to know of a KMS; reads no secret, so any user may ask. Raises ConfigError."""
    if options.config is None and options.hadoop_conf is None and options.keystore and not default_file().exists():
        file, conf, directory = KmsFile(), HadoopConf({}), None
    else:
        file, conf, directory = _read_sources(options)
    host, port = parse_listen(options.listen or file.listen)
    store = local_path(_keystore_uri(options, file, conf))
    return Places(
        host=host,
        port=port,
        hadoop_conf=directory,
        admin_socket=options.admin_socket or file.admin.socket or _admin_socket(store),
        audit_directory=audit_settings(file.audit, store).directory,
    )


def _admin_socket(store: Path | None) -> Path:
    return store.with_name(store.name + ".sock") if store is not None else _SYSTEM_ADMIN_SOCKET


def _keystore_uri(options: Options, file: KmsFile, conf: HadoopConf) -> str:
    uri = options.keystore or file.keystore or conf.get("hadoop.kms.key.provider.uri", "")
    if not uri:
        raise ConfigError("no key store is named", hint="give --keystore sqlite:////var/lib/ringfence/keys.db")
    return uri


def _read_sources(options: Options) -> tuple[KmsFile, HadoopConf, Path | None]:
    if options.config is None and options.hadoop_conf is not None:
        conf = read_hadoop_conf(options.hadoop_conf, "core-site.xml", "kms-site.xml")
        host = conf.get("hadoop.kms.http.host", "0.0.0.0")  # noqa: S104 - Hadoop's default; judged before it is used
        port = conf.get_int("hadoop.kms.http.port", DEFAULT_PORT)
        return KmsFile(listen=f"{host}:{port}"), conf, options.hadoop_conf
    path = options.config or default_file()
    if options.config is None and not path.exists():
        raise ConfigError(
            f"there is no configuration file {path}",
            hint="give --config FILE, or --hadoop-conf DIR to use kms-site.xml, kms-acls.xml and core-site.xml",
        )
    file = read_config(path, KmsFile)
    directory = options.hadoop_conf or file.hadoop_conf
    if directory is None:
        return file, HadoopConf({}), None
    return file, read_hadoop_conf(directory, "core-site.xml", "kms-site.xml"), directory


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _require_leave_for_plain_http(host: str, file: KmsFile, conf: HadoopConf) -> None:
    written_out = conf.get(SSL_ENABLED, "").lower() == "false"
    if is_loopback(host) or file.allow_plain_http or written_out:
        return
    raise ConfigError(
        f"listening on {host} in plain HTTP would send data keys over the network in clear",
        hint=f"give --tls-cert and --tls-key, or listen on localhost, or write out that this is meant:"
        f" allow_plain_http: true in kms.yaml, or {SSL_ENABLED} = false in kms-site.xml",
    )


def _require_a_binding(kerberos: KerberosSettings, tls: TlsSettings | None) -> None:
    """Required channel binding where no connection has one would refuse everybody."""
    if kerberos.channel_binding is not ChannelBinding.REQUIRED:
        return
    if tls is None:
        raise ConfigError(
            "channel_binding is required, but there is no TLS whose certificate a client could bind to",
            hint="name a certificate, or set channel_binding: opportunistic",
        )
    if tls.certificates > 1:
        raise ConfigError(
            "channel_binding is required, but with two TLS certificates nothing tells which one a connection used",
            hint="leave tls.second out (ECDSA alone serves every Java since 8), or set channel_binding: opportunistic",
        )


def _administrators(block: AdminBlock) -> AccessList:
    named = Grant.of(block.users)
    if named.everyone:
        raise ConfigError("admin.users is '*': not everybody is an administrator", hint="name users, or @groups")
    return AccessList(named.users, named.groups)


def _key_defaults(conf: HadoopConf) -> KeyDefaults:
    return KeyDefaults(
        conf.get("hadoop.security.key.default.cipher", DEFAULT_CIPHER),
        conf.get_int("hadoop.security.key.default.bitlength", _HADOOP_LENGTH_BITS),
    )
