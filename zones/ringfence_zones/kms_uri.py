"""Hadoop's key provider URI for a KMS: `kms://http@host1;host2:9600/kms`.

Source: `org.apache.hadoop.crypto.key.kms.KMSClientProvider.Factory`: the user part is the scheme, hosts are
separated by `;` and share the one port after the last, and the path is kept.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from ringfence_zones.errors import ConfigError

KEY_PROVIDER = "hadoop.security.key.provider.path"
"""The property that has such a URI: of core-site.xml, as Hadoop 3's clients and NameNodes read it."""
OLD_KEY_PROVIDER = "dfs.encryption.key.provider.uri"
"""The same of Hadoop 2: of hdfs-site.xml."""
DEFAULT_PORT = 9600
# A KMS takes none in its address; who wrote some there has not meant them for a screen.
_CREDENTIALS = re.compile(r"[^/@\s]*:[^/@\s]*@")
_URI = re.compile(r"kms://(?P<scheme>https?)@(?P<hosts>[^@/:?#\s]+)(?::(?P<port>\d{1,5}))?(?P<path>/[^?#\s]*)?")


@dataclass(frozen=True, slots=True)
class KmsUri:
    """A parsed provider URI. `path` has no trailing slash."""

    text: str
    scheme: str
    hosts: tuple[str, ...]
    port: int
    path: str

    @property
    def is_plain_http(self) -> bool:
        """Whether data keys would cross the network in clear."""
        return self.scheme == "http"

    @property
    def is_loopback(self) -> bool:
        """Whether no instance is reached over a network."""
        return all(is_loopback(host) for host in self.hosts)

    @property
    def origins(self) -> tuple[str, ...]:
        """`http(s)://host:port` of every instance."""
        return tuple(f"{self.scheme}://{host}:{self.port}" for host in self.hosts)


def parse_kms_uri(text: str) -> KmsUri:
    """Raises ConfigError naming the URI and its form."""
    match = _URI.fullmatch(text.strip())
    hosts = tuple(match["hosts"].split(";")) if match else ()
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not all(hosts) or not 0 < port < 65536:
        shown = _CREDENTIALS.sub("...@", text)
        raise ConfigError(
            f"{shown!r} is not a KMS address",
            hint=f"{KEY_PROVIDER} in core-site.xml has the form kms://http@HOST:9600/kms (or https@)",
        )
    return KmsUri(match[0], match["scheme"], hosts, port, (match["path"] or "").rstrip("/"))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host of that name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
