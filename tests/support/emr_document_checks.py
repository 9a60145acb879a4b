"""What EMR takes as a security configuration, as the double of EMR checks it. Written from the reference, not from the
code that it tests: two readings of one page find each other's mistakes.

The text for unknown members is the service's own, as somebody quoted it; every other text is ours. So tests that look
at texts look at that one alone.
"""

from __future__ import annotations

import json
from typing import Any

_CERTIFICATES = {
    "CertificateProviderType": str, "S3Object": str, "CertificateProviderClass": str, "AwsKmsKey": str,
    "SecretTags": [{"Key": str, "Value": str}], "ValidityInDays": int, "WildcardDnsSuffix": str,
    "CACertificateSecretARN": str,
}  # fmt: skip
_S3_RULE = {"EncryptionMode": str, "AwsKmsKey": str, "S3Object": str, "EncryptionKeyProviderClass": str}
_CROSS_REALM = {"Realm": str, "Domain": str, "AdminServer": str, "KdcServer": str}
_SHAPE: dict[str, Any] = {
    "EncryptionConfiguration": {
        "EnableInTransitEncryption": bool,
        "EnableAtRestEncryption": bool,
        "InTransitEncryptionConfiguration": {"TLSCertificateConfiguration": _CERTIFICATES},
        "AtRestEncryptionConfiguration": {
            "S3EncryptionConfiguration": {**_S3_RULE, "Overrides": [{"BucketName": str, **_S3_RULE}]},
            "LocalDiskEncryptionConfiguration": {
                "EncryptionKeyProviderType": str,
                "AwsKmsKey": str,
                "S3Object": str,
                "EncryptionKeyProviderClass": str,
                "EnableEbsEncryption": bool,
            },
        },
        "EMRWALEncryptionConfiguration": {"AwsKmsKey": str},
    },
    "AuthenticationConfiguration": {
        "KerberosConfiguration": {
            "Provider": str,
            "ClusterDedicatedKdcConfiguration": {
                "TicketLifetimeInHours": int,
                "CrossRealmTrustConfiguration": _CROSS_REALM,
            },
            "ExternalKdcConfiguration": {
                "TicketLifetimeInHours": int,
                "KdcServerType": str,
                "AdminServer": str,
                "KdcServer": str,
                "AdIntegrationConfiguration": {"AdRealm": str, "AdDomain": str, "AdServer": str},
            },
        },
        "IdentityCenterConfiguration": {
            "EnableIdentityCenter": bool,
            "IdentityCenterInstanceARN": str,
            "IdentityCenterApplicationAssigmentRequired": bool,
            "EnableUserBackgroundSession": bool,
            "IAMRoleForEMRIdentityCenterApplicationARN": str,
        },
    },
    "AuthorizationConfiguration": {
        "EmrFsConfiguration": {"RoleMappings": [{"Role": str, "IdentifierType": str, "Identifiers": [str]}]},
        "IAMConfiguration": {
            "EnableApplicationScopedIAMRole": bool,
            "ApplicationScopedIAMRoleConfiguration": {"PropagateSourceIdentity": bool, "ExternalId": str},
        },
        "LakeFormationConfiguration": dict,
        "RangerConfiguration": dict,
    },
    "InstanceMetadataServiceConfiguration": {
        "MinimumInstanceMetadataServiceVersion": int,
        "HttpPutResponseHopLimit": int,
    },
}


class BadDocumentError(Exception):
    """What the service answers InvalidRequestException to, with its text."""


def check_document(text: str) -> dict[str, Any]:
    """The document. Raises BadDocumentError as the service refuses it."""
    try:
        document = json.loads(text)
    except ValueError:
        raise BadDocumentError("Invalid security configuration; the document is not valid JSON.") from None
    if not isinstance(document, dict) or not document:
        raise BadDocumentError("Invalid security configuration; the document is no JSON object.")
    _check(document, _SHAPE)
    encryption = document.get("EncryptionConfiguration", {})
    for switch, part in (
        ("EnableInTransitEncryption", "InTransitEncryptionConfiguration"),
        ("EnableAtRestEncryption", "AtRestEncryptionConfiguration"),
    ):
        if encryption.get(switch) in (True, "true") and not encryption.get(part):
            raise BadDocumentError(f"Invalid security configuration; {switch} is true and {part} is missing.")
    return document


def _check(found: Any, shape: Any) -> None:
    if isinstance(shape, dict):
        if not isinstance(found, dict):
            raise BadDocumentError("Invalid security configuration; an object was expected.")
        unknown = [name for name in found if name not in shape]
        if unknown:
            raise BadDocumentError(
                f"Invalid security configuration; object has invalid properties: [{', '.join(unknown)}]."
            )
        for name, value in found.items():
            _check(value, shape[name])
    elif isinstance(shape, list):
        if not isinstance(found, list):
            raise BadDocumentError("Invalid security configuration; a list was expected.")
        for item in found:
            _check(item, shape[0])
    elif not isinstance(found, shape) and not (shape is bool and found in ("true", "false")):
        raise BadDocumentError(f"Invalid security configuration; {found!r} is of a wrong type.")
