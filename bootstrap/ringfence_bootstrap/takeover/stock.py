"""What a stock KMS on this machine is configured as, and which of its settings a takeover cannot keep.

Reads `kms-site.xml` and `core-site.xml` of the KMS and `core-site.xml` of the clients; changes nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import HadoopConf, read_hadoop_conf
from ringfence_zones.kms_uri import KEY_PROVIDER, KmsUri, parse_kms_uri

_PROVIDER = "hadoop.kms.key.provider.uri"
_PASSWORD_FILE = "hadoop.security.keystore.java-keystore-provider.password-file"  # noqa: S105 - a property
_PASSWORD_VARIABLE = "HADOOP_KEYSTORE_PASSWORD"  # noqa: S105 - a variable
_JCEKS = re.compile(r"jceks://file(?:@[^/]*)?(?P<path>/[^?#]+)")
_DEFAULT_HOST = "0.0.0.0"  # noqa: S104 - Hadoop's, and judged by the KMS that is to listen there
_DEFAULT_PORT = 9600


@dataclass(frozen=True, slots=True)
class StockKms:
    """A stock KMS. `uri` is what clients call; `password_file` None means Hadoop's environment variable or default."""

    uri: KmsUri
    host: str
    port: int
    conf: Path
    keystore: Path
    password_file: Path | None
    has_tls: bool
    authentication: str


def read_stock_kms(kms_conf: Path, hadoop_conf: Path, password_file: Path | None) -> StockKms:
    """Raises ConfigError for what cannot be taken over, naming the property."""
    if not (kms_conf / "kms-site.xml").exists():
        raise ConfigError(
            f"there is no kms-site.xml in {kms_conf}", hint="name the stock KMS's directory: --kms-conf DIR"
        )
    conf = read_hadoop_conf(kms_conf, "core-site.xml", "kms-site.xml")
    uri = _clients_uri(hadoop_conf)
    port = conf.get_int("hadoop.kms.http.port", _DEFAULT_PORT)
    if uri.port != port:
        raise ConfigError(
            f"clients call port {uri.port} ({KEY_PROVIDER}), but the KMS of {kms_conf} listens on {port}",
            hint="name the configuration of the KMS that clients call: --kms-conf DIR",
        )
    has_tls = conf.get_bool("hadoop.kms.ssl.enabled", False)
    if has_tls == uri.is_plain_http:
        raise ConfigError(
            f"clients call {uri.text}, but hadoop.kms.ssl.enabled is {str(has_tls).lower()} in {kms_conf}/kms-site.xml"
        )
    return StockKms(
        uri=uri,
        host=conf.get("hadoop.kms.http.host", "") or _DEFAULT_HOST,
        port=port,
        conf=kms_conf,
        keystore=_keystore(conf),
        password_file=password_file or _find_password_file(conf, kms_conf, os.environ),
        has_tls=has_tls,
        authentication=conf.get("hadoop.kms.authentication.type", "simple"),
    )


def _clients_uri(hadoop_conf: Path) -> KmsUri:
    text = read_hadoop_conf(hadoop_conf, "core-site.xml").get(KEY_PROVIDER, "")
    if not text:
        raise ConfigError(f"core-site.xml in {hadoop_conf} names no KMS: {KEY_PROVIDER} is not set")
    uri = parse_kms_uri(text)
    if len(uri.hosts) > 1:
        raise ConfigError(
            f"{KEY_PROVIDER} names {len(uri.hosts)} instances ({uri.text}), and a takeover exchanges one",
            hint="reduce it to one instance first; add instances of Ringfence's afterwards",
        )
    return uri


def _keystore(conf: HadoopConf) -> Path:
    provider = conf.get(_PROVIDER, "")
    match = _JCEKS.fullmatch(provider)
    if match is None or "${" in provider:
        kind = provider.partition(":")[0] or "not set"
        raise ConfigError(
            f"{_PROVIDER} is {kind}: a takeover knows the Java key store of a stock KMS (jceks://file@/PATH) only",
            hint="import the keys from the running KMS instead, and exchange the services yourself",
            command="ringfence key import --from kms://http@HOST:9600/kms --keystore sqlite:////var/lib/ringfence/keys.db",
        )
    return Path(match["path"])


def _find_password_file(conf: HadoopConf, kms_conf: Path, environ: Mapping[str, str]) -> Path | None:
    """As ProviderUtils.locatePassword: the environment first, then a file on the KMS's class path: its directory."""
    name = conf.get(_PASSWORD_FILE, "")
    if _PASSWORD_VARIABLE in environ or not name:
        return None
    path = kms_conf / name
    if not path.is_file():
        raise ConfigError(
            f"{_PASSWORD_FILE} names {name}, which is not in {kms_conf}",
            hint="it lies elsewhere on the KMS's class path: name it with --password-file",
        )
    return path
