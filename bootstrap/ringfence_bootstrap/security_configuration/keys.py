"""Every AWS KMS key that a security configuration names, with what EMR uses it for.

That decides who needs which permissions on it: permission checks and generated statements start here. Only what is in
force is listed: a key below a switch that is off is never used.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ringfence_bootstrap.security_configuration.document import (
    CertificateProvider,
    DiskProvider,
    S3Mode,
    SecurityConfiguration,
)
from ringfence_bootstrap.security_configuration.json_text import Location


class KeyUse(enum.StrEnum):
    """What EMR does with a key."""

    S3 = "s3"
    LOCAL_DISK = "local-disk"
    EBS = "ebs"
    CERTIFICATES = "certificates"
    WAL = "wal"


@dataclass(frozen=True, slots=True)
class NamedKey:
    """One use of one key. `arn` is as written, an alias' ARN too.

    `place` is where the document names it; `s3_mode` and `bucket` are those of S3, and `bucket` is None for the
    default of all buckets.
    """

    arn: str
    use: KeyUse
    place: Location
    s3_mode: S3Mode | None = None
    bucket: str | None = None


def named_keys(document: SecurityConfiguration) -> list[NamedKey]:
    """The uses in document order. A key for local disks is named once, and used twice with EBS encryption."""
    return _s3_keys(document) + _disk_keys(document) + _other_keys(document)


def _s3_keys(document: SecurityConfiguration) -> list[NamedKey]:
    s3 = document.s3
    if s3 is None:
        return []
    rules = [(s3, None), *((override, override.bucket) for override in s3.overrides or ())]
    return [
        NamedKey(rule.key, KeyUse.S3, (*rule.place, "AwsKmsKey"), rule.mode, bucket)
        for rule, bucket in rules
        if rule.key is not None and rule.mode is not None and rule.mode.names_key
    ]


def _disk_keys(document: SecurityConfiguration) -> list[NamedKey]:
    disk = document.local_disk
    if disk is None or disk.key is None or disk.provider is not DiskProvider.AWS_KMS:
        return []
    place = (*disk.place, "AwsKmsKey")
    uses = [KeyUse.LOCAL_DISK, *([KeyUse.EBS] if disk.ebs else [])]
    return [NamedKey(disk.key, use, place) for use in uses]


def _other_keys(document: SecurityConfiguration) -> list[NamedKey]:
    found = []
    certificates = document.certificates
    if certificates is not None and certificates.key is not None and certificates.provider is CertificateProvider.EMR:
        found.append(NamedKey(certificates.key, KeyUse.CERTIFICATES, (*certificates.place, "AwsKmsKey")))
    if document.wal is not None and document.wal.key is not None:
        found.append(NamedKey(document.wal.key, KeyUse.WAL, (*document.wal.place, "AwsKmsKey")))
    return found
