"""A security configuration as typed values: every member that EMR knows, and whatever else a document holds.

AWS publishes no schema; names, spelling and nesting are those of the EMR Management Guide, one misspelling included.
Nothing of a document is lost (see `nodes`). A boolean that was written as text ("true", as one of AWS's own examples
has it) is read and written as a boolean. The tree says what is written; the properties of `SecurityConfiguration` say
what is in force.

What is wrong with a document that can be read at all stands in `problems`; `lint` tells them with everything else.
"""
# ruff: noqa: RUF009 - what is called in the defaults is dataclasses.field, once removed

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from typing import ClassVar

from ringfence_bootstrap.security_configuration.json_text import LocatedJson, Location
from ringfence_bootstrap.security_configuration.nodes import (
    Node,
    boolean_member,
    choice_member,
    node_member,
    nodes_member,
    text_member,
    texts_member,
    whole_member,
)
from ringfence_zones.findings import Finding


class S3Mode(enum.StrEnum):
    """How EMRFS and S3A encrypt objects: S3 does it (SSE), or the cluster before it sends them (CSE)."""

    SSE_S3 = "SSE-S3"
    SSE_KMS = "SSE-KMS"
    CSE_KMS = "CSE-KMS"
    CSE_CUSTOM = "CSE-Custom"

    @property
    def names_key(self) -> bool:
        """Whether it takes an AWS KMS key."""
        return self in (S3Mode.SSE_KMS, S3Mode.CSE_KMS)


class DiskProvider(enum.StrEnum):
    """Where the passphrase of local disks comes from."""

    AWS_KMS = "AwsKms"
    CUSTOM = "Custom"


class CertificateProvider(enum.StrEnum):
    """Where nodes get their certificates from."""

    PEM = "PEM"
    CUSTOM = "Custom"
    EMR = "EMR"


class KdcProvider(enum.StrEnum):
    """Whose KDC the cluster uses."""

    CLUSTER_DEDICATED = "ClusterDedicatedKdc"
    EXTERNAL = "ExternalKdc"


class KdcServerType(enum.StrEnum):
    """How an external KDC is shared. EMR has one word for it."""

    SINGLE = "Single"


class IdentifierType(enum.StrEnum):
    """What a role mapping for EMRFS goes by."""

    USER = "User"
    GROUP = "Group"
    PREFIX = "Prefix"


class RangerApp(enum.StrEnum):
    """What has an Apache Ranger plug-in."""

    SPARK = "Spark"
    HIVE = "Hive"
    EMRFS_S3 = "EMRFS-S3"
    TRINO = "Trino"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag(Node):
    """A tag of the secret that holds the CA of EMR's own certificates."""

    key: str | None = text_member("Key")
    value: str | None = text_member("Value", may_be_empty=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates(Node):
    """`TLSCertificateConfiguration`. The members from `key` on are for certificates that EMR makes."""

    provider: CertificateProvider | None = choice_member("CertificateProviderType", CertificateProvider)
    s3_object: str | None = text_member("S3Object")
    provider_class: str | None = text_member("CertificateProviderClass")
    key: str | None = text_member("AwsKmsKey")
    secret_tags: tuple[Tag, ...] | None = nodes_member("SecretTags", Tag)
    validity_days: int | None = whole_member("ValidityInDays")
    wildcard_dns_suffix: str | None = text_member("WildcardDnsSuffix")
    ca_certificate_secret: str | None = text_member("CACertificateSecretARN", output_only=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class InTransit(Node):
    """`InTransitEncryptionConfiguration`."""

    certificates: Certificates | None = node_member("TLSCertificateConfiguration", Certificates)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Rule(Node):
    """What the default for S3 and an override for one bucket have in common."""

    mode: S3Mode | None = choice_member("EncryptionMode", S3Mode)
    key: str | None = text_member("AwsKmsKey")
    s3_object: str | None = text_member("S3Object")
    provider_class: str | None = text_member("EncryptionKeyProviderClass")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Override(S3Rule):
    """One of `Overrides`."""

    bucket: str | None = text_member("BucketName")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Encryption(S3Rule):
    """`S3EncryptionConfiguration`."""

    overrides: tuple[S3Override, ...] | None = nodes_member("Overrides", S3Override)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalDisk(Node):
    """`LocalDiskEncryptionConfiguration`. `s3_object` and `provider_class` are for a provider of one's own."""

    provider: DiskProvider | None = choice_member("EncryptionKeyProviderType", DiskProvider)
    key: str | None = text_member("AwsKmsKey")
    s3_object: str | None = text_member("S3Object")
    provider_class: str | None = text_member("EncryptionKeyProviderClass")
    ebs: bool | None = boolean_member("EnableEbsEncryption")


@dataclass(frozen=True, slots=True, kw_only=True)
class AtRest(Node):
    """`AtRestEncryptionConfiguration`."""

    s3: S3Encryption | None = node_member("S3EncryptionConfiguration", S3Encryption)
    local_disk: LocalDisk | None = node_member("LocalDiskEncryptionConfiguration", LocalDisk)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wal(Node):
    """`EMRWALEncryptionConfiguration`: write-ahead logs of HBase. Without a key the service uses one of its own."""

    key: str | None = text_member("AwsKmsKey")


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption(Node):
    """`EncryptionConfiguration`. Both switches are off when they are absent."""

    in_transit_enabled: bool | None = boolean_member("EnableInTransitEncryption")
    at_rest_enabled: bool | None = boolean_member("EnableAtRestEncryption")
    in_transit: InTransit | None = node_member("InTransitEncryptionConfiguration", InTransit)
    at_rest: AtRest | None = node_member("AtRestEncryptionConfiguration", AtRest)
    wal: Wal | None = node_member("EMRWALEncryptionConfiguration", Wal)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossRealmTrust(Node):
    """`CrossRealmTrustConfiguration`."""

    realm: str | None = text_member("Realm")
    domain: str | None = text_member("Domain")
    admin_server: str | None = text_member("AdminServer")
    kdc_server: str | None = text_member("KdcServer")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterDedicatedKdc(Node):
    """`ClusterDedicatedKdcConfiguration`."""

    ticket_hours: int | None = whole_member("TicketLifetimeInHours")
    trust: CrossRealmTrust | None = node_member("CrossRealmTrustConfiguration", CrossRealmTrust)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdIntegration(Node):
    """`AdIntegrationConfiguration`."""

    realm: str | None = text_member("AdRealm")
    domain: str | None = text_member("AdDomain")
    server: str | None = text_member("AdServer")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalKdc(Node):
    """`ExternalKdcConfiguration`."""

    ticket_hours: int | None = whole_member("TicketLifetimeInHours")
    server_type: KdcServerType | None = choice_member("KdcServerType", KdcServerType)
    admin_server: str | None = text_member("AdminServer")
    kdc_server: str | None = text_member("KdcServer")
    ad_integration: AdIntegration | None = node_member("AdIntegrationConfiguration", AdIntegration)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kerberos(Node):
    """`KerberosConfiguration`."""

    provider: KdcProvider | None = choice_member("Provider", KdcProvider)
    dedicated: ClusterDedicatedKdc | None = node_member("ClusterDedicatedKdcConfiguration", ClusterDedicatedKdc)
    external: ExternalKdc | None = node_member("ExternalKdcConfiguration", ExternalKdc)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityCenter(Node):
    """`IdentityCenterConfiguration`; "Assigment" is EMR's spelling."""

    enabled: bool | None = boolean_member("EnableIdentityCenter")
    instance: str | None = text_member("IdentityCenterInstanceARN")
    assignment_required: bool | None = boolean_member("IdentityCenterApplicationAssigmentRequired")
    user_background_session: bool | None = boolean_member("EnableUserBackgroundSession")
    role: str | None = text_member("IAMRoleForEMRIdentityCenterApplicationARN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication(Node):
    """`AuthenticationConfiguration`."""

    kerberos: Kerberos | None = node_member("KerberosConfiguration", Kerberos)
    identity_center: IdentityCenter | None = node_member("IdentityCenterConfiguration", IdentityCenter)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleMapping(Node):
    """One of `RoleMappings`: the first that fits wins."""

    role: str | None = text_member("Role")
    identifier_type: IdentifierType | None = choice_member("IdentifierType", IdentifierType)
    identifiers: tuple[str, ...] | None = texts_member("Identifiers")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmrFs(Node):
    """`EmrFsConfiguration`: roles for requests to S3."""

    role_mappings: tuple[RoleMapping, ...] | None = nodes_member("RoleMappings", RoleMapping)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopedRole(Node):
    """`ApplicationScopedIAMRoleConfiguration`."""

    propagate_source_identity: bool | None = boolean_member("PropagateSourceIdentity")
    external_id: str | None = text_member("ExternalId", output_only=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Iam(Node):
    """`IAMConfiguration`: runtime roles for steps."""

    runtime_roles: bool | None = boolean_member("EnableApplicationScopedIAMRole")
    scoped_role: ScopedRole | None = node_member("ApplicationScopedIAMRoleConfiguration", ScopedRole)


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeFormation(Node):
    """`LakeFormationConfiguration`, passed through: its members differ by release and are not all listed anywhere."""

    is_open: ClassVar[bool] = True

    session_tag_value: str | None = text_member("AuthorizedSessionTagValue")


@dataclass(frozen=True, slots=True, kw_only=True)
class RangerPlugin(Node):
    """One of `RangerPluginConfigurations`."""

    app: RangerApp | None = choice_member("App", RangerApp)
    client_secret: str | None = text_member("ClientSecretARN")
    repository: str | None = text_member("PolicyRepositoryName")


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudWatchLogs(Node):
    """`AmazonCloudWatchLogs`."""

    log_group: str | None = text_member("CloudWatchLogGroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditDestinations(Node):
    """`Destinations`."""

    cloud_watch: CloudWatchLogs | None = node_member("AmazonCloudWatchLogs", CloudWatchLogs)


@dataclass(frozen=True, slots=True, kw_only=True)
class RangerAudit(Node):
    """`AuditConfiguration`."""

    destinations: AuditDestinations | None = node_member("Destinations", AuditDestinations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranger(Node):
    """`RangerConfiguration`."""

    admin_url: str | None = text_member("AdminServerURL")
    plugins_role: str | None = text_member("RoleForRangerPluginsARN")
    other_services_role: str | None = text_member("RoleForOtherAWSServicesARN")
    admin_secret: str | None = text_member("AdminServerSecretARN")
    plugins: tuple[RangerPlugin, ...] | None = nodes_member("RangerPluginConfigurations", RangerPlugin)
    audit: RangerAudit | None = node_member("AuditConfiguration", RangerAudit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization(Node):
    """`AuthorizationConfiguration`."""

    emrfs: EmrFs | None = node_member("EmrFsConfiguration", EmrFs)
    iam: Iam | None = node_member("IAMConfiguration", Iam)
    lake_formation: LakeFormation | None = node_member("LakeFormationConfiguration", LakeFormation)
    ranger: Ranger | None = node_member("RangerConfiguration", Ranger)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataService(Node):
    """`InstanceMetadataServiceConfiguration`."""

    minimum_version: int | None = whole_member("MinimumInstanceMetadataServiceVersion")
    hop_limit: int | None = whole_member("HttpPutResponseHopLimit")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityConfiguration(Node):
    """The whole document. The tree says what is written, the properties what is in force."""

    encryption: Encryption | None = node_member("EncryptionConfiguration", Encryption)
    authentication: Authentication | None = node_member("AuthenticationConfiguration", Authentication)
    authorization: Authorization | None = node_member("AuthorizationConfiguration", Authorization)
    metadata_service: MetadataService | None = node_member("InstanceMetadataServiceConfiguration", MetadataService)

    source: LocatedJson = field(default_factory=lambda: LocatedJson("security configuration"), compare=False)
    problems: tuple[Finding, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """What findings call the document: a file, or the configuration's name in the account."""
        return self.source.name

    def where(self, place: Location) -> str:
        """`FILE:LINE` of a place in the document, for a finding's path."""
        return self.source.where(place)

    def text(self) -> str:
        """The document as it is kept in a file and sent to AWS."""
        return json.dumps(self.to_json(), indent=2) + "\n"

    @property
    def encrypts_in_transit(self) -> bool:
        """Whether in-transit encryption is switched on."""
        return self.encryption is not None and self.encryption.in_transit_enabled is True

    @property
    def encrypts_at_rest(self) -> bool:
        """Whether at-rest encryption is switched on."""
        return self.encryption is not None and self.encryption.at_rest_enabled is True

    @property
    def certificates(self) -> Certificates | None:
        """The certificates in force."""
        in_transit = self.encryption.in_transit if self.encryption is not None and self.encrypts_in_transit else None
        return in_transit.certificates if in_transit is not None else None

    @property
    def s3(self) -> S3Encryption | None:
        """The encryption of objects in S3 in force."""
        return at_rest.s3 if (at_rest := self._at_rest()) is not None else None

    @property
    def local_disk(self) -> LocalDisk | None:
        """The encryption of local disks in force."""
        return at_rest.local_disk if (at_rest := self._at_rest()) is not None else None

    @property
    def wal(self) -> Wal | None:
        """The encryption of EMR's write-ahead logs, which no switch governs."""
        return self.encryption.wal if self.encryption is not None else None

    @property
    def kerberos(self) -> Kerberos | None:
        """What the cluster proves identities with."""
        return self.authentication.kerberos if self.authentication is not None else None

    @property
    def uses_runtime_roles(self) -> bool:
        """Whether steps run under roles of their own."""
        iam = self.authorization.iam if self.authorization is not None else None
        return iam is not None and iam.runtime_roles is True

    @property
    def uses_identity_center(self) -> bool:
        """Whether IAM Identity Center says who users are."""
        center = self.authentication.identity_center if self.authentication is not None else None
        return center is not None and center.enabled is True

    def _at_rest(self) -> AtRest | None:
        return self.encryption.at_rest if self.encryption is not None and self.encrypts_at_rest else None
