"""What is known of a hardening of this machine's KMS: everything its steps, its undoing and its checks need.

It is what the journal remembers, so no secret is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence_bootstrap.takeover.key_file import beside
from ringfence_bootstrap.takeover.services import Service, service_from_json
from ringfence_zones.kms_uri import parse_kms_uri

PASSWORD_LINK = "ringfence-kms.password"  # noqa: S105 - a file's name
SSL_SERVER = "ringfence-kms-ssl-server.xml"
TRUST_STORE = "ringfence-kms-trust.p12"
KMS_SITE = {
    "hadoop.kms.ssl.enabled": "true",
    "hadoop.ssl.server.conf": SSL_SERVER,
    "hadoop.security.keystore.java-keystore-provider.password-file": PASSWORD_LINK,
}
"""What kms-site.xml says when the KMS is hardened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardening:
    """Everything that the steps need to know; what the journal remembers. No secret is in it.

    `uri` is what clients call now, `old_password` the file with the key store's password (None: Hadoop's variable or
    default), `password` the new one. `acls` are the properties that kms-acls.xml gets. `trusts_already`: the clients'
    trust store holds the authority, and is left alone. Backups go to `backup_to` for the public key `backup_key`; in
    S3 under the key `backup_sse_key` (None: the bucket's), in `backup_region` (None: the SDK's).
    """

    uri: str
    host: str
    port: int
    kms_conf: Path
    hadoop_conf: Path
    key_store: Path
    old_password: Path | None
    password: Path
    tls_store: Path
    acls: Mapping[str, str]
    trusts_already: bool
    on_root_volume: bool
    state: Path
    kms: Service
    namenode: Service | None
    backup_to: str | None
    backup_key: Path | None
    backup_sse_key: str | None
    backup_region: str | None

    @property
    def secure_uri(self) -> str:
        """The same address over TLS."""
        here = parse_kms_uri(self.uri)
        return f"kms://https@{';'.join(here.hosts)}:{here.port}{here.path}"

    @property
    def old_key_store(self) -> Path:
        """The keys under the password they had, while a run is under way."""
        return beside(self.key_store, "before-harden")

    def to_json(self) -> dict[str, Any]:
        """For the journal."""
        return {
            "uri": self.uri,
            "host": self.host,
            "port": self.port,
            "kms_conf": str(self.kms_conf),
            "hadoop_conf": str(self.hadoop_conf),
            "key_store": str(self.key_store),
            "old_password": _text(self.old_password),
            "password": str(self.password),
            "tls_store": str(self.tls_store),
            "acls": dict(self.acls),
            "trusts_already": self.trusts_already,
            "on_root_volume": self.on_root_volume,
            "state": str(self.state),
            "kms": self.kms.to_json(),
            "namenode": self.namenode.to_json() if self.namenode is not None else None,
            "backup_to": self.backup_to,
            "backup_key": _text(self.backup_key),
            "backup_sse_key": self.backup_sse_key,
            "backup_region": self.backup_region,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Hardening:
        """From a journal."""
        return cls(
            uri=str(found["uri"]),
            host=str(found["host"]),
            port=int(found["port"]),
            kms_conf=Path(found["kms_conf"]),
            hadoop_conf=Path(found["hadoop_conf"]),
            key_store=Path(found["key_store"]),
            old_password=_path(found["old_password"]),
            password=Path(found["password"]),
            tls_store=Path(found["tls_store"]),
            acls=dict(found["acls"]),
            trusts_already=bool(found["trusts_already"]),
            on_root_volume=bool(found["on_root_volume"]),
            state=Path(found["state"]),
            kms=service_from_json(found["kms"]),
            namenode=service_from_json(found["namenode"]) if found["namenode"] is not None else None,
            backup_to=found["backup_to"],
            backup_key=_path(found["backup_key"]),
            backup_sse_key=found["backup_sse_key"],
            backup_region=found["backup_region"],
        )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def is_on_root_volume(path: Path) -> bool:
    """Whether a file there would lie on the volume that holds `/`."""
    place = path.absolute().parent
    while not place.exists():
        place = place.parent
    return place.stat().st_dev == Path("/").stat().st_dev
