"""What classifications are made for: the cluster as its launch document says it will be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ringfence_bootstrap.releases import Release
from ringfence_zones.aws_names import is_secret_arn
from ringfence_zones.errors import InputError
from ringfence_zones.kms_uri import KmsUri
from ringfence_zones.policy import Policy

# EMR's own spelling of what it installs.
APPLICATIONS = (
    *("Flink", "HBase", "HCatalog", "Hadoop", "Hive", "Hue", "JupyterEnterpriseGateway", "JupyterHub", "Livy"),
    *("Oozie", "Phoenix", "Pig", "Presto", "PrestoSQL", "Spark", "Sqoop", "TensorFlow", "Tez", "Trino", "Zeppelin"),
    *("ZooKeeper", "Iceberg", "Delta", "Hudi", "Ganglia", "MXNet", "Mahout", "AmazonCloudWatchAgent"),
)
KmsKind = Literal["ringfence", "hardened"]
"""Who serves the keys: Ringfence's KMS (a takeover, or one off the cluster), or Hadoop's own as `kms harden` sets it
up."""


@dataclass(frozen=True, slots=True)
class TlsStores:
    """Java stores that lie on every node before Hadoop starts (a bootstrap action puts them there).

    `password_secret` is the ARN of a secret in Secrets Manager whose value is the password of both stores.
    """

    key_store: str
    trust_store: str
    password_secret: str
    kind: str = "PKCS12"

    def check(self) -> None:
        """Raises InputError for what no node could use."""
        for option, path in (("--tls-key-store", self.key_store), ("--tls-trust-store", self.trust_store)):
            if not path.startswith("/"):
                raise InputError(f"{option} {path!r} is no absolute path on the nodes")
        if not is_secret_arn(self.password_secret):
            raise InputError(
                "--tls-password-secret is not the ARN of a secret in Secrets Manager",
                hint="a password itself would be shown to everybody who may describe the cluster",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One cluster. `in_transit_configured`: it has a security configuration that encrypts in transit, so that EMR turns
    the features on and only what it gets wrong is to be put right. `policy` None: no HDFS encryption is prepared.
    """

    release: Release
    applications: frozenset[str]
    kerberos: bool
    in_transit: bool = True
    in_transit_configured: bool = False
    foreign_certificate: bool = False
    tls: TlsStores | None = None
    policy: Policy | None = None
    kms: KmsKind = "ringfence"
    kms_uri: KmsUri | None = None
    auth_to_local: str | None = None

    def has(self, *names: str) -> bool:
        """Whether one of these applications is installed."""
        return not self.applications.isdisjoint(names)


def read_applications(names: Iterable[str]) -> frozenset[str]:
    """EMR's spelling of application names in any case. Raises InputError naming one that EMR does not install."""
    by_lower = {name.lower(): name for name in APPLICATIONS}
    found = set()
    for name in names:
        known = by_lower.get(name.strip().lower())
        if known is None:
            near = difflib.get_close_matches(name.strip().lower(), by_lower, 1)
            hint = (
                f"did you mean {by_lower[near[0]]}?" if near else "name applications as EMR does: Hadoop, Spark, Hive"
            )
            raise InputError(f"EMR has no application {name!r}", hint=hint)
        found.add(known)
    return frozenset(found)
