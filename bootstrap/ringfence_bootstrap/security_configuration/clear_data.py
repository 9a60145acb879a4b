"""What stays unencrypted on a cluster, and why, although or because of its security configuration.

Nothing is encrypted by default, so a cluster without one is told everything. Severities: `error` for what nothing
protects at all, `warn` for a gap beside what is protected, `info` for what depends on how the cluster is used.
"""

from __future__ import annotations

from collections.abc import Iterator

from ringfence_bootstrap.in_transit_endpoints import (
    BLOCK_TRANSFER,
    ENDPOINTS,
    HADOOP_KMS,
    HTTPFS,
    SPARK_RPC,
    Endpoint,
    Mechanism,
)
from ringfence_bootstrap.releases import Feature, Release
from ringfence_bootstrap.security_configuration.cluster import ClusterFacts
from ringfence_bootstrap.security_configuration.document import DiskProvider, SecurityConfiguration
from ringfence_bootstrap.security_configuration.json_text import Location
from ringfence_zones.findings import Finding, Rule, Severity

_UNKNOWN_CLUSTER = ClusterFacts()
_ZONES = "hdfs-encryption-zones"
_ENCRYPTION = "EncryptionConfiguration"
_AT_REST = (_ENCRYPTION, "AtRestEncryptionConfiguration")


def find_clear_data(
    document: SecurityConfiguration | None, release: Release | None, *, cluster: ClusterFacts | None = None
) -> list[Finding]:
    """The findings, at rest first. `document` is None for a cluster without a security configuration.

    Without a release only what holds for all of them is told, without a cluster only what holds for whatever it runs.
    """
    return list(_Search(document, release, cluster or _UNKNOWN_CLUSTER).findings())


class _Search:
    def __init__(self, document: SecurityConfiguration | None, release: Release | None, cluster: ClusterFacts) -> None:
        self._document = document
        self._release = release
        self._cluster = cluster

    def findings(self) -> Iterator[Finding]:
        document = self._document
        if document is None or not document.encrypts_at_rest:
            what = "EMR encrypts neither what it writes to S3 nor a disk"
            hint = 'set "EnableAtRestEncryption": true with AtRestEncryptionConfiguration'
            yield self._off("EnableAtRestEncryption", Rule.EMR_CLEAR_AT_REST, what, hint)
        else:
            yield from self._s3(document)
            yield from self._disks(document)
        if document is None or not document.encrypts_in_transit:
            what = f"EMR sets up no TLS between nodes, and no encrypted shuffle{self._rpc_by_disks(document)}"
            hint = 'set "EnableInTransitEncryption": true with InTransitEncryptionConfiguration'
            yield self._off("EnableInTransitEncryption", Rule.EMR_CLEAR_IN_TRANSIT, what, hint)
        else:
            yield from self._endpoints(document)

    def _found(self, severity: Severity, rule: Rule, place: Location, message: str, hint: str) -> Finding:
        path = self._document.where(place) if self._document is not None else self._cluster.name
        return Finding(severity=severity, rule=rule, path=path, message=message, hint=hint)

    def _off(self, switch: str, rule: Rule, what: str, hint: str) -> Finding:
        if self._document is None:
            message = f"there is no security configuration, and nothing is encrypted by default: {what}"
            hint = f"create the cluster anew with a security configuration, for it is attached at creation only; {hint}"
        else:
            message = f"{_ENCRYPTION}.{switch} is not true, and nothing is encrypted by default: {what}"
        return self._found(Severity.ERROR, rule, (_ENCRYPTION, switch), message, hint)

    def _s3(self, document: SecurityConfiguration) -> Iterator[Finding]:
        if document.s3 is None:
            message = (
                "there is no S3EncryptionConfiguration: objects that the cluster writes are encrypted as their bucket"
                " says, or not at all"
            )
            yield self._found(Severity.WARN, Rule.EMR_CLEAR_AT_REST, _AT_REST, message, "add S3EncryptionConfiguration")

    def _disks(self, document: SecurityConfiguration) -> Iterator[Finding]:
        disk = document.local_disk
        if disk is None:
            message = (
                "there is no LocalDiskEncryptionConfiguration: HDFS' blocks, shuffle and spilled data rest in clear on"
                " the nodes' volumes, the root device included"
            )
            hint = "add LocalDiskEncryptionConfiguration"
            yield self._found(Severity.ERROR, Rule.EMR_CLEAR_AT_REST, _AT_REST, message, hint)
        elif disk.ebs is not True:
            severity, why, hint = self._root_device(disk.provider)
            message = (
                "local-disk encryption never covers the root device, where Hadoop's KMS keeps its key store: keys of"
                f" encryption zones rest in clear there{why}"
            )
            yield self._found(severity, Rule.EMR_CLEAR_ROOT_DEVICE, disk.place, message, hint)

    def _root_device(self, provider: DiskProvider | None) -> tuple[Severity, str, str]:
        """How much it matters, what there is to add, and the way out, which the release decides."""
        ami = "an encrypted custom AMI, or default encryption of EBS in the account"
        if self._cluster.has_custom_ami:
            hint = "look with DescribeImages whether its root snapshot is encrypted"
            return Severity.INFO, ", unless the cluster's custom AMI is encrypted", hint
        if self._release is None or self._release.has(Feature.EBS_ENCRYPTION):
            if provider is DiskProvider.CUSTOM:
                return Severity.WARN, "", f'use the provider AwsKms with  "EnableEbsEncryption": true, or {ami}'
            return Severity.WARN, "", f'set "EnableEbsEncryption": true (from emr-5.24.0), or use {ami}'
        if self._release.has(Feature.CUSTOM_AMI):
            return Severity.WARN, f"; {self._release} has no EBS encryption", "an encrypted custom AMI is the only way"
        hint = "use emr-5.24.0 or later, which encrypts it with EnableEbsEncryption"
        return Severity.WARN, f", and {self._release} has no way to encrypt it", hint

    def _has_kerberos(self, document: SecurityConfiguration) -> bool:
        return document.kerberos is not None and self._cluster.has_kerberos_attributes is not False

    def _rpc_by_disks(self, document: SecurityConfiguration | None) -> str:
        """Encryption of local disks brings private RPC and block transfer of its own, for who has Kerberos."""
        if document is None or document.local_disk is None:
            return ", RPC or block transfer"
        if self._has_kerberos(document):
            return "; Hadoop's RPC and block transfer are private, for local disks are encrypted and Kerberos is on"
        return (
            ", and privacy of RPC and block transfer, which encryption of local disks sets, is nothing without Kerberos"
        )

    def _endpoints(self, document: SecurityConfiguration) -> Iterator[Finding]:
        has_kerberos = self._has_kerberos(document)
        place = (_ENCRYPTION, "InTransitEncryptionConfiguration")
        installed = [each for each in ENDPOINTS if self._may_run(each.application)]
        yield from self._keys_in_clear(place)
        waiting = [each for each in installed if self._mechanism(each) is Mechanism.SASL]
        if not has_kerberos and waiting:
            message = f"without Kerberos SASL protects nothing, so these stay in clear: {self._listed(waiting)}"
            hint = "add KerberosConfiguration, and KerberosAttributes when the cluster is created"
            yield self._found(Severity.WARN, Rule.EMR_CLEAR_IN_TRANSIT, place, message, hint)
        elif has_kerberos and document.local_disk is None:
            message = (
                f"{BLOCK_TRANSFER.title(self._release)} is encrypted with AES only when local disks are encrypted too"
            )
            hint = "add LocalDiskEncryptionConfiguration"
            yield self._found(Severity.WARN, Rule.EMR_CLEAR_IN_TRANSIT, place, message, hint)
        if self._release is not None:
            yield from self._release_gaps(installed, self._release, place)

    def _keys_in_clear(self, place: Location) -> Iterator[Finding]:
        has_zones = _ZONES in self._cluster.classifications
        message = (
            "as far as AWS documents it, Hadoop's KMS and HttpFS stay plain HTTP: with encryption zones"
            " data keys cross the network in clear"
        )
        hint = "serve the keys from Ringfence's KMS with TLS, or put TLS on Hadoop's own"
        severity = Severity.WARN if has_zones else Severity.INFO
        yield self._found(severity, Rule.EMR_CLEAR_IN_TRANSIT, place, message, hint)

    def _release_gaps(self, installed: list[Endpoint], release: Release, place: Location) -> Iterator[Finding]:
        later = [each for each in installed if each.since is not None and release.version < each.since]
        if later:
            message = f"in {release} in-transit encryption does not reach yet: {self._listed(later)}"
            hint = "use a later release (7.4.0 reaches all of them), or keep these off untrusted networks"
            yield self._found(Severity.WARN, Rule.EMR_CLEAR_IN_TRANSIT, place, message, hint)
        never = [each for each in installed if not each.steps and each not in (HADOOP_KMS, HTTPFS)]
        if never:
            message = f"no release encrypts these: {self._listed(never)}"
            hint = "keep them inside a security group of the cluster's own"
            yield self._found(Severity.INFO, Rule.EMR_CLEAR_IN_TRANSIT, place, message, hint)
        if SPARK_RPC in installed and SPARK_RPC.mechanism(release) is Mechanism.DIGEST_MD5:
            old = " (Akka with TLS for Spark 1)" if not release.at_least(5) else ""
            message = f"before emr-5.9.0 Spark's RPC and shuffle have {Mechanism.DIGEST_MD5.value}{old}"
            hint = "use emr-5.9.0 or later, where Spark encrypts with AES"
            yield self._found(Severity.WARN, Rule.EMR_WEAK_CIPHER, place, message, hint)

    def _may_run(self, application: str) -> bool:
        dropped = self._release is not None and self._release.lacks(application)
        return not dropped and self._cluster.runs(application) is not False

    def _mechanism(self, endpoint: Endpoint) -> Mechanism:
        """Without a release, the newest mechanism: what no release leaves to chance is not told."""
        if self._release is not None:
            return endpoint.mechanism(self._release)
        return endpoint.steps[-1][1] if endpoint.steps else Mechanism.NONE

    def _listed(self, endpoints: list[Endpoint]) -> str:
        sure = [each for each in endpoints if each.application == "Hadoop" or self._cluster.runs(each.application)]
        perhaps = [each for each in endpoints if each not in sure]
        parts = [", ".join(each.title(self._release) for each in sure)] if sure else []
        if perhaps:
            parts.append(f"where they are installed {', '.join(each.title(self._release) for each in perhaps)}")
        return "; ".join(parts)
