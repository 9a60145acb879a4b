"""Rules about a document together with the cluster that it is for. None speaks of what nobody said."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence_bootstrap.releases import Feature
from ringfence_bootstrap.security_configuration.document import KdcProvider
from ringfence_bootstrap.security_configuration.subject import Subject
from ringfence_zones.findings import Finding, Rule

_METASTORE_TLS = "hive.metastore.use.SSL"
_AUTHENTICATION = ("AuthenticationConfiguration", "KerberosConfiguration")
_S3 = ("EncryptionConfiguration", "AtRestEncryptionConfiguration", "S3EncryptionConfiguration")
# Properties of emrfs-site that say how objects are encrypted.
_EMRFS_PREFIXES = ("fs.s3.enableServerSideEncryption", "fs.s3.serverSideEncryption", "fs.s3.cse.")


def check_kerberos_attributes(subject: Subject) -> Iterator[Finding]:
    """A cluster has KerberosAttributes when its document has Kerberos, and only then."""
    has_attributes, has_kerberos = subject.cluster.has_kerberos_attributes, subject.document.kerberos is not None
    if has_attributes is None or has_attributes == has_kerberos:
        return
    if has_kerberos:
        message = f"{subject.cluster.name} has no KerberosAttributes, and EMR takes neither without the other"
        hint = 'add  "KerberosAttributes": {"Realm": "…", "KdcAdminPassword": "…"}  to the cluster'
    else:
        message = f"{subject.cluster.name} has KerberosAttributes, and the document has no KerberosConfiguration"
        hint = "add AuthenticationConfiguration with a KerberosConfiguration, or remove the attributes"
    yield subject.error(Rule.EMR_KERBEROS_MISMATCH, _AUTHENTICATION, message, hint)


def check_primaries(subject: Subject) -> Iterator[Finding]:
    """What clusters with three primary nodes cannot have."""
    if subject.cluster.primaries is None or subject.cluster.primaries < 2:
        return
    three = f"{subject.cluster.name} has {subject.cluster.primaries} primary nodes"
    yield from subject.too_old(Feature.THREE_PRIMARIES, ())
    kerberos = subject.document.kerberos
    if kerberos is not None and kerberos.provider is KdcProvider.CLUSTER_DEDICATED:
        message = f"{three}, which need a KDC outside of them"
        yield subject.error(
            Rule.EMR_KERBEROS_MISMATCH, (*kerberos.place, "Provider"), message, "use Provider ExternalKdc"
        )
    if subject.document.uses_runtime_roles:
        place = ("AuthorizationConfiguration", "IAMConfiguration", "EnableApplicationScopedIAMRole")
        message = f"{three}, where EMR has no runtime roles"
        yield subject.error(Rule.EMR_PRIMARY_NODES, place, message, "use one primary node, or remove it")
    if subject.document.uses_identity_center:
        place = ("AuthenticationConfiguration", "IdentityCenterConfiguration", "EnableIdentityCenter")
        message = f"{three}, where EMR has no Identity Center"
        yield subject.error(Rule.EMR_PRIMARY_NODES, place, message, "use one primary node, or remove it")


def check_applications(subject: Subject) -> Iterator[Finding]:
    """Applications that do not go together with the document, and images that the release does not take."""
    if subject.cluster.has_custom_ami:
        yield from subject.too_old(Feature.CUSTOM_AMI, ())
    feature = Feature.RUNTIME_ROLES_WITH_CLOUDWATCH_AGENT
    release = subject.release
    if (
        release is not None
        and subject.document.uses_runtime_roles
        and subject.cluster.runs("AmazonCloudWatchAgent")
        and not release.has(feature)
    ):
        place = ("AuthorizationConfiguration", "IAMConfiguration", "EnableApplicationScopedIAMRole")
        yield from subject.too_old(feature, place)


def check_metastore(subject: Subject) -> Iterator[Finding]:
    """From 7.3 the metastore speaks TLS, and with Kerberos Spark and Livy do not."""
    document, cluster, release = subject.document, subject.cluster, subject.release
    if release is None or not release.at_least(7, 3) or not document.encrypts_in_transit or document.kerberos is None:
        return
    if release.lacks("Hive") or cluster.runs("Spark", "Livy") is False or cluster.runs("Hive") is False:
        return
    if any(
        (cluster.setting(name, _METASTORE_TLS) or "").lower() == "false" for name in ("hive-site", "spark-hive-site")
    ):
        return
    message = (
        "with in-transit encryption and Kerberos Spark and Livy do not reach the Hive metastore unless"
        f" {_METASTORE_TLS} is false"
    )
    hint = f"set {_METASTORE_TLS}=false in hive-site when they use the metastore, and know that it is then in clear"
    is_told = cluster.applications is not None
    say = subject.warn if is_told else subject.info
    yield say(Rule.EMR_METASTORE_TLS, ("EncryptionConfiguration", "EnableInTransitEncryption"), message, hint)


def check_s3_settings(subject: Subject) -> Iterator[Finding]:
    """emrfs-site beside the document: the document wins, silently."""
    if subject.document.s3 is None:
        return
    properties = subject.cluster.classifications.get("emrfs-site", {})
    names = sorted(name for name in properties if name.startswith(_EMRFS_PREFIXES))
    if names:
        message = f"{subject.cluster.name} sets {', '.join(names)} in emrfs-site too, and this document wins"
        yield subject.warn(Rule.EMR_S3_SET_TWICE, _S3, message, "remove them from emrfs-site")
