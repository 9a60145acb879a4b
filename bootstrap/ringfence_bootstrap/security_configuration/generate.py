"""A security configuration from what somebody wants encrypted, and how.

Everything is encrypted unless it is said otherwise: objects in S3 with SSE-KMS, local disks with an AWS KMS key, EBS
volumes where the release can, traffic with certificates that EMR makes where the release can, and instance metadata in
version 2 where the release starts with it alone. What comes out has been linted, and what lint calls an error is
refused.

A document is `compliant` when policy scanners find nothing in it to object to; that is stricter than EMR, and
`compliance_gaps` says by how much.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ringfence_bootstrap.releases import Feature, Release
from ringfence_bootstrap.security_configuration.document import (
    CertificateProvider,
    DiskProvider,
    KdcProvider,
    S3Mode,
    SecurityConfiguration,
)
from ringfence_bootstrap.security_configuration.lint import lint
from ringfence_bootstrap.security_configuration.reading import parse_document
from ringfence_zones.errors import DocumentError, InputError
from ringfence_zones.findings import Finding, Rule, Severity

_NAME = "the new document"


@dataclass(frozen=True, slots=True)
class OwnProvider:
    """A Java class of one's own: where its jar is in S3, and its whole name."""

    s3_object: str
    provider_class: str


@dataclass(frozen=True, slots=True)
class S3Wanted:
    """How objects are encrypted, in every bucket or in one."""

    mode: S3Mode
    key: str | None = None
    provider: OwnProvider | None = None

    def to_json(self) -> dict[str, Any]:
        """The members of S3EncryptionConfiguration, or of one of its overrides."""
        out: dict[str, Any] = {"EncryptionMode": self.mode.value}
        return out | _given(AwsKmsKey=self.key) | _provider(self.provider)


@dataclass(frozen=True, slots=True)
class DiskWanted:
    """How local disks are encrypted."""

    provider: DiskProvider
    key: str | None = None
    own: OwnProvider | None = None
    ebs: bool = False

    def to_json(self) -> dict[str, Any]:
        """The members of LocalDiskEncryptionConfiguration."""
        out = {"EncryptionKeyProviderType": self.provider.value} | _given(AwsKmsKey=self.key) | _provider(self.own)
        return out | ({"EnableEbsEncryption": True} if self.ebs else {})


@dataclass(frozen=True, slots=True)
class CertificatesWanted:
    """Where nodes get certificates from. The last four are for those that EMR makes."""

    provider: CertificateProvider
    s3_object: str | None = None
    provider_class: str | None = None
    key: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    validity_days: int | None = None
    wildcard_dns_suffix: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The members of TLSCertificateConfiguration."""
        tags = [{"Key": key, "Value": value} for key, value in self.tags]
        return {"CertificateProviderType": self.provider.value} | _given(
            S3Object=self.s3_object,
            CertificateProviderClass=self.provider_class,
            AwsKmsKey=self.key,
            SecretTags=tags or None,
            ValidityInDays=self.validity_days,
            WildcardDnsSuffix=self.wildcard_dns_suffix,
        )


@dataclass(frozen=True, slots=True)
class KerberosWanted:
    """Whose KDC. `trust` is realm, domain, admin server and KDC; `ad` realm, domain and server."""

    provider: KdcProvider
    ticket_hours: int | None = None
    admin_server: str | None = None
    kdc_server: str | None = None
    trust: tuple[str, str, str, str] | None = None
    ad: tuple[str, str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """The members of KerberosConfiguration."""
        kdc: dict[str, Any] = _given(TicketLifetimeInHours=self.ticket_hours)
        if self.provider is KdcProvider.EXTERNAL:
            kdc |= {"KdcServerType": "Single"} | _given(AdminServer=self.admin_server, KdcServer=self.kdc_server)
        if self.trust is not None:
            names = ("Realm", "Domain", "AdminServer", "KdcServer")
            kdc["CrossRealmTrustConfiguration"] = dict(zip(names, self.trust, strict=True))
        if self.ad is not None:
            kdc["AdIntegrationConfiguration"] = dict(zip(("AdRealm", "AdDomain", "AdServer"), self.ad, strict=True))
        external = self.provider is KdcProvider.EXTERNAL
        return {
            "Provider": self.provider.value,
            "ExternalKdcConfiguration" if external else "ClusterDedicatedKdcConfiguration": kdc,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Everything that goes into a document; None leaves a part out. `authorization` is passed through.

    `wal_key` empty stands for a key of the service's own; `metadata` is the lowest version and the hop limit.
    """

    s3: S3Wanted | None = None
    overrides: tuple[tuple[str, S3Wanted], ...] = ()
    disk: DiskWanted | None = None
    certificates: CertificatesWanted | None = None
    wal_key: str | None = None
    kerberos: KerberosWanted | None = None
    metadata: tuple[int, int] | None = None
    authorization: dict[str, Any] | None = None


def generate(wanted: Wanted, release: Release | None, *, region: str | None = None) -> SecurityConfiguration:
    """The document. Raises DocumentError, with the findings, for what the release or EMR would refuse."""
    if wanted.overrides and wanted.s3 is None:
        raise InputError("overrides for buckets stand beside a default for S3", hint="name the default as well")
    document = parse_document(json.dumps(_document(wanted), indent=2), _NAME)
    wrong = [each for each in lint(document, release, region=region) if each.severity is Severity.ERROR]
    if wrong:
        where = str(release) if release is not None else "EMR"
        raise DocumentError(f"{where} would not take this", wrong)
    return document


def compliance_gaps(document: SecurityConfiguration) -> list[Finding]:
    """What policy scanners object to: anything but SSE-KMS, disks without EBS encryption, no TLS."""
    return list(_gaps(document))


def _gaps(document: SecurityConfiguration) -> Iterator[Finding]:
    def gap(message: str, hint: str) -> Finding:
        return Finding(
            severity=Severity.ERROR, rule=Rule.EMR_CLEAR_AT_REST, path=document.name, message=message, hint=hint
        )

    s3, disk = document.s3, document.local_disk
    rules = [s3, *(s3.overrides or ())] if s3 is not None else []
    if not rules or any(rule.mode is not S3Mode.SSE_KMS for rule in rules):
        yield gap("scanners want SSE-KMS for every bucket", "use SSE-KMS, with a key of your own")
    if disk is None or disk.provider is not DiskProvider.AWS_KMS or disk.ebs is not True:
        yield gap("scanners want local disks and EBS volumes encrypted", "use AwsKms, with EBS encryption")
    if document.certificates is None:
        yield gap("scanners want encryption in transit", "name certificates")


def can_encrypt_ebs(release: Release | None) -> bool:
    """Whether EBS encryption is on when nobody said."""
    return release is None or release.has(Feature.EBS_ENCRYPTION)


def default_metadata(release: Release | None) -> tuple[int, int] | None:
    """Version 2 alone, one hop, where nodes start with it; None leaves EMR's default."""
    return (2, 1) if release is not None and release.starts_with_metadata_v2_alone else None


def _document(wanted: Wanted) -> dict[str, Any]:
    out: dict[str, Any] = {"EncryptionConfiguration": _encryption(wanted)}
    if wanted.kerberos is not None:
        out["AuthenticationConfiguration"] = {"KerberosConfiguration": wanted.kerberos.to_json()}
    if wanted.authorization is not None:
        out["AuthorizationConfiguration"] = wanted.authorization
    if wanted.metadata is not None:
        version, hops = wanted.metadata
        out["InstanceMetadataServiceConfiguration"] = {
            "MinimumInstanceMetadataServiceVersion": version,
            "HttpPutResponseHopLimit": hops,
        }
    return out


def _encryption(wanted: Wanted) -> dict[str, Any]:
    at_rest: dict[str, Any] = {}
    if wanted.s3 is not None:
        overrides = [{"BucketName": bucket} | rule.to_json() for bucket, rule in wanted.overrides]
        at_rest["S3EncryptionConfiguration"] = wanted.s3.to_json() | _given(Overrides=overrides or None)
    if wanted.disk is not None:
        at_rest["LocalDiskEncryptionConfiguration"] = wanted.disk.to_json()
    out: dict[str, Any] = {
        "EnableInTransitEncryption": wanted.certificates is not None,
        "EnableAtRestEncryption": bool(at_rest),
    }
    if wanted.certificates is not None:
        out["InTransitEncryptionConfiguration"] = {"TLSCertificateConfiguration": wanted.certificates.to_json()}
    if at_rest:
        out["AtRestEncryptionConfiguration"] = at_rest
    if wanted.wal_key is not None:
        out["EMRWALEncryptionConfiguration"] = {"AwsKmsKey": wanted.wal_key} if wanted.wal_key else {}
    return out


def _given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _provider(provider: OwnProvider | None) -> dict[str, Any]:
    if provider is None:
        return {}
    return {"S3Object": provider.s3_object, "EncryptionKeyProviderClass": provider.provider_class}
