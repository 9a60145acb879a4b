"""Where the KMS's TLS comes from: the options, the `tls` block of kms.yaml, or Hadoop's own ssl-server.xml.

Options overrule the block, the block overrules Hadoop's files. Hadoop's are read when `hadoop.kms.ssl.enabled` is true
in kms-site.xml: `ssl-server.xml` (or what `hadoop.ssl.server.conf` names) with `ssl.server.keystore.*`,
`ssl.server.truststore.*` and `ssl.server.need.client.auth`, as `HttpServer2.Builder.loadSSLConfiguration` reads them.

Rules:

1. A private key that every user can read is refused; so is a PEM key with a password and no file to read it from.
2. Passwords come from files and from ssl-server.xml. From a credential provider they do not, and the refusal says so.
3. Ciphers and protocols are not configured: TLS 1.2 and newer with OpenSSL's own choice. A list of Hadoop's
   (`ssl.server.exclude.cipher.list` and the like) is passed over, because what such lists exclude is not offered.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from pydantic import Field, model_validator

from ringfence_agent.http.tls import ClientAuth, ServerTls, TlsIdentity, TlsMaterial, TlsSource
from ringfence_agent.kms.java_key_store import read_java_key_store
from ringfence_zones.config_file import AbsolutePath, ConfigModel
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import HadoopConf, read_hadoop_conf
from ringfence_zones.secret import Secret

_log = logging.getLogger(__name__)

SSL_ENABLED = "hadoop.kms.ssl.enabled"
_SERVER_CONF = "hadoop.ssl.server.conf"
_CREDENTIAL_PROVIDERS = "hadoop.security.credential.provider.path"
_KEYSTORE = "ssl.server.keystore."
_TRUSTSTORE = "ssl.server.truststore."
_NEED_CLIENT_AUTH = "ssl.server.need.client.auth"
_NAMED_TYPES = ("jks", "pkcs12")
_MAX_PEM_BYTES = 1024 * 1024
_OTHERS_MAY_READ = 0o007
_OTHERS_MAY_WRITE = 0o022


class CertificateBlock(ConfigModel):
    """A certificate chain (PEM, the server's own first) and its private key (PEM)."""

    cert: AbsolutePath
    key: AbsolutePath
    key_password_file: AbsolutePath | None = None


class TlsBlock(CertificateBlock):
    """`tls:` in kms.yaml.

    second       another certificate of the other kind of key: RSA for old clients beside ECDSA
    client_ca    authorities of client certificates (PEM)
    client_auth  none: clients are not asked for one; optional: one that is sent must be good; required
    """

    second: CertificateBlock | None = None
    client_ca: AbsolutePath | None = None
    client_auth: str = Field("none", pattern="^(none|optional|required)$")

    @model_validator(mode="after")
    def _has_an_authority(self) -> TlsBlock:
        if (self.client_auth == "none") != (self.client_ca is None):
            raise ValueError("client_auth and client_ca go together: name both or neither")
        return self


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """TLS as it was decided: where its material is and whether clients must show a certificate."""

    source: TlsSource
    client_auth: ClientAuth

    @property
    def certificates(self) -> int:
        """How many different ones a client may meet."""
        return len(self.source.certificates) if isinstance(self.source, PemFiles) else 1

    def open(self) -> ServerTls:
        """Reads and proves the material. Raises ConfigError."""
        return ServerTls(self.source, self.client_auth)


@dataclass(frozen=True, slots=True)
class PemFiles:
    """A `TlsSource` of PEM files."""

    certificates: tuple[CertificateBlock, ...]
    client_ca: Path | None = None

    @property
    def paths(self) -> Sequence[Path]:
        """Every file; the password's is read again with the others."""
        named = [path for one in self.certificates for path in (one.cert, one.key)]
        return [*named, self.client_ca] if self.client_ca is not None else named

    def read(self) -> TlsMaterial:
        """Raises ConfigError naming the file."""
        identities = [
            TlsIdentity(str(one.cert), _read_file(one.cert), _read_key(one.key, one.key_password_file))
            for one in self.certificates
        ]
        return TlsMaterial(tuple(identities), _read_file(self.client_ca) if self.client_ca is not None else None)


@dataclass(frozen=True, slots=True)
class JavaStores:
    """A `TlsSource` of the key store and the trust store that ssl-server.xml names."""

    key_store: Path
    password: Secret
    key_password: Secret
    trust_store: Path | None = None
    trust_password: Secret | None = None

    @property
    def paths(self) -> Sequence[Path]:
        """The stores."""
        return [self.key_store, self.trust_store] if self.trust_store is not None else [self.key_store]

    def read(self) -> TlsMaterial:
        """Raises ConfigError naming the store."""
        _require_private(self.key_store)
        store = read_java_key_store(self.key_store, self.password, self.key_password)
        if not store.keys:
            raise ConfigError(f"the key store {self.key_store} holds no private key")
        first = store.keys[0]
        if len(store.keys) > 1:
            _log.warning("the key store %s holds %d keys: %r is used", self.key_store, len(store.keys), first.alias)
        identity = TlsIdentity(f"{first.alias} in {self.key_store}", first.chain, first.key)
        return TlsMaterial((identity,), self._read_trusted())

    def _read_trusted(self) -> bytes | None:
        if self.trust_store is None:
            return None
        store = read_java_key_store(self.trust_store, self.trust_password)
        if not store.trusted:
            raise ConfigError(f"the trust store {self.trust_store} holds no certificate")
        return b"".join(store.trusted)


def tls_settings(
    option_cert: Path | None, option_key: Path | None, block: TlsBlock | None, conf: HadoopConf, directory: Path | None
) -> TlsSettings | None:
    """What the sources say; None for plain HTTP. Raises ConfigError."""
    if (option_cert is None) != (option_key is None):
        raise ConfigError("a TLS certificate needs its private key", hint="give both --tls-cert PEM and --tls-key PEM")
    if option_cert is not None and option_key is not None:
        certificate = CertificateBlock(cert=option_cert.absolute(), key=option_key.absolute())
        return _from_pem((certificate,), block)
    if block is not None:
        return _from_pem((block, block.second) if block.second is not None else (block,), block)
    if directory is not None and conf.get_bool(SSL_ENABLED, False):
        return _from_hadoop(conf, directory)
    return None


def _from_pem(certificates: tuple[CertificateBlock, ...], block: TlsBlock | None) -> TlsSettings:
    if block is None:
        return TlsSettings(PemFiles(certificates), "none")
    return TlsSettings(PemFiles(certificates, block.client_ca), _client_auth(block.client_auth))


def _client_auth(word: str) -> ClientAuth:
    return "required" if word == "required" else "optional" if word == "optional" else "none"


def _from_hadoop(conf: HadoopConf, directory: Path) -> TlsSettings:
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


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_PEM_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _MAX_PEM_BYTES:
        raise ConfigError(f"{path} is larger than {_MAX_PEM_BYTES} bytes: not a PEM file")
    return content


def _read_key(path: Path, password_file: Path | None) -> Secret:
    _require_private(path)
    content = _read_file(path)
    if password_file is None:
        if b"ENCRYPTED" in content:
            raise ConfigError(
                f"the private key {path} is encrypted",
                hint="name the file with its password as key_password_file in kms.yaml, or decrypt it",
                command=f"openssl pkey -in {path} -out {path}.plain",
            )
        return Secret(content)
    _require_private(password_file)
    try:
        key = serialization.load_pem_private_key(content, _read_file(password_file).rstrip(b"\r\n"))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the private key {path} does not open with the password in {password_file}") from error
    return Secret(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _require_private(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if mode & (_OTHERS_MAY_READ | _OTHERS_MAY_WRITE):
        raise ConfigError(
            f"{path} holds a private key or its password, and others can read or change it",
            command=f"chmod u=rw,g=r,o= {path}",
        )
