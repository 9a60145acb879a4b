"""Where the KMS's TLS comes from: the options, the `tls` block of kms.yaml, or Hadoop's own ssl-server.xml.

Options overrule the block, the block overrules Hadoop's files. Hadoop's are read when `hadoop.kms.ssl.enabled` is true
in kms-site.xml: `ssl-server.xml` (or what `hadoop.ssl.server.conf` names) with `ssl.server.keystore.*`,
`ssl.server.truststore.*` and `ssl.server.need.client.auth`, as `HttpServer2.Builder.loadSSLConfiguration` reads them.

Rules:

1. Passwords come from files and from ssl-server.xml. From a credential provider they do not, and the refusal says so.
2. Ciphers and protocols are not configured: TLS 1.2 and newer with OpenSSL's own choice. A list of Hadoop's
   (`ssl.server.exclude.cipher.list` and the like) is passed over, because what such lists exclude is not offered.
"""

from __future__ import annotations

from pathlib import Path

from ringfence_agent.http.tls_settings import CertificateBlock, TlsBlock, TlsSettings, pem_settings
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import HadoopConf, read_hadoop_conf
from ringfence_zones.secret import Secret

SSL_ENABLED = "hadoop.kms.ssl.enabled"
_SERVER_CONF = "hadoop.ssl.server.conf"
_CREDENTIAL_PROVIDERS = "hadoop.security.credential.provider.path"
_KEYSTORE = "ssl.server.keystore."
_TRUSTSTORE = "ssl.server.truststore."
_NEED_CLIENT_AUTH = "ssl.server.need.client.auth"
_NAMED_TYPES = ("jks", "pkcs12")


def tls_settings(
    option_cert: Path | None, option_key: Path | None, block: TlsBlock | None, conf: HadoopConf, directory: Path | None
) -> TlsSettings | None:
    """What the sources say; None for plain HTTP. Raises ConfigError."""
    if (option_cert is None) != (option_key is None):
        raise ConfigError("a TLS certificate needs its private key", hint="give both --tls-cert PEM and --tls-key PEM")
    if option_cert is not None and option_key is not None:
        certificate = CertificateBlock(cert=option_cert.absolute(), key=option_key.absolute())
        return pem_settings((certificate,), block)
    if block is not None:
        return block.settings()
    if directory is not None and conf.get_bool(SSL_ENABLED, False):
        return _from_hadoop(conf, directory)
    return None


def _from_hadoop(conf: HadoopConf, directory: Path) -> TlsSettings:
    from ringfence_agent.kms.tls_source import JavaStores  # noqa: PLC0415 - see above

    file_name = conf.get(_SERVER_CONF, "ssl-server.xml")
    ssl_conf = read_hadoop_conf(directory, file_name)
    where = directory / file_name
    location = ssl_conf.get(_KEYSTORE + "location", "")
    if not location:
        raise ConfigError(
            f"{SSL_ENABLED} is true, but {where} does not set {_KEYSTORE}location",
            hint="set it there, or name PEM files with --tls-cert and --tls-key",
        )
    _require_known_type(ssl_conf, _KEYSTORE, Path(location))
    password = _password(ssl_conf, _KEYSTORE + "password", where, required=True)
    key_password = _password(ssl_conf, _KEYSTORE + "keypassword", where, required=False)
    needs_clients = ssl_conf.get_bool(_NEED_CLIENT_AUTH, False)
    trusted = ssl_conf.get(_TRUSTSTORE + "location", "")
    if needs_clients and not trusted:
        raise ConfigError(f"{_NEED_CLIENT_AUTH} is true, but {where} does not set {_TRUSTSTORE}location")
    trust_password = _password(ssl_conf, _TRUSTSTORE + "password", where, required=False)
    source = JavaStores(
        key_store=Path(location),
        password=password,
        key_password=key_password if len(key_password) else password,
        trust_store=Path(trusted) if needs_clients else None,
        trust_password=trust_password if len(trust_password) else None,
    )
    return TlsSettings(source, "required" if needs_clients else "none")


def _require_known_type(ssl_conf: HadoopConf, prefix: str, store: Path) -> None:
    kind = ssl_conf.get(prefix + "type", "jks")
    if kind.lower() not in _NAMED_TYPES:
        raise ConfigError(
            f"{prefix}type is {kind}: only jks and pkcs12 are read",
            hint="convert the store, and name the new one and its type in ssl-server.xml",
            command=f"keytool -importkeystore -srckeystore {store} -srcstoretype {kind}"
            f" -destkeystore {store.with_suffix('.p12')} -deststoretype PKCS12",
        )


def _password(ssl_conf: HadoopConf, name: str, where: Path, *, required: bool) -> Secret:
    value = ssl_conf.get(name, "")
    if not value and ssl_conf.get(_CREDENTIAL_PROVIDERS, ""):
        raise ConfigError(
            f"{where} keeps {name} in a credential provider, which is not read",
            hint=f"set {name} in {where} and make that file 0600, or name PEM files with --tls-cert and --tls-key",
        )
    if not value and required:
        raise ConfigError(f"{where} does not set {name}")
    return Secret(value.encode())
