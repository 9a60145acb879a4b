"""Everything a cluster's classifications say about encryption, and what they leave open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ringfence_bootstrap.classifications.companions import companion_classifications, companion_findings
from ringfence_bootstrap.classifications.document import Classification, merge
from ringfence_bootstrap.classifications.hdfs_encryption import (
    hdfs_encryption_classifications,
    hdfs_encryption_findings,
)
from ringfence_bootstrap.classifications.in_transit import in_transit_classifications, in_transit_findings
from ringfence_bootstrap.classifications.wanted import Wanted
from ringfence_bootstrap.releases import Feature
from ringfence_zones.errors import InputError
from ringfence_zones.findings import Finding


@dataclass(frozen=True, slots=True)
class Generated:
    """Classifications, and what is to be known about them."""

    classifications: tuple[Classification, ...]
    findings: tuple[Finding, ...]

    def configurations(self) -> list[dict[str, Any]]:
        """`Configurations` of RunJobFlow."""
        return [each.to_json() for each in self.classifications]


def generate(wanted: Wanted) -> Generated:
    """Raises InputError for what contradicts itself, PolicyError for a policy that a stock KMS cannot serve."""
    _check(wanted)
    parts: list[Classification] = []
    findings: list[Finding] = []
    if wanted.in_transit_configured:
        parts += companion_classifications(wanted)
        findings += companion_findings(wanted)
    elif wanted.in_transit:
        parts += in_transit_classifications(wanted)
        findings += in_transit_findings(wanted)
    if wanted.policy is not None:
        parts += hdfs_encryption_classifications(wanted, wanted.policy)
        findings += hdfs_encryption_findings(wanted)
    return Generated(merge(parts), tuple(findings))


def _check(wanted: Wanted) -> None:
    gone = next((name for name in sorted(wanted.applications) if wanted.release.lacks(name)), None)
    if gone is not None:
        raise InputError(f"{wanted.release.label} has no {gone}", hint="leave it out, or take another release")
    if wanted.policy is not None and not wanted.release.has(Feature.TRANSPARENT_ENCRYPTION):
        raise InputError(f"{wanted.release.label} has no HDFS encryption", hint="take emr-4.1.0 or newer")
    if wanted.tls is not None:
        wanted.tls.check()
    if wanted.tls is not None and wanted.in_transit_configured:
        raise InputError(
            "with encryption in transit in the security configuration EMR makes the key stores itself",
            hint="leave --tls-key-store, --tls-trust-store and --tls-password-secret out",
        )
    if wanted.foreign_certificate and not wanted.in_transit_configured:
        raise InputError(
            "--foreign-certificate is about the certificate of a security configuration, and none was named",
            hint="name it with --security-configuration FILE",
        )
    if wanted.policy is None and (wanted.kms_uri is not None or wanted.kms != "ringfence"):
        raise InputError("--kms and --kms-uri are for the zones of a policy, and none was named", hint="give -f FILE")
    if wanted.auth_to_local is not None and not wanted.kerberos:
        raise InputError("--auth-to-local maps Kerberos principals", hint="add --kerberos, or leave it out")
