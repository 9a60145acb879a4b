"""Who has to do what with which KMS key, for a cluster of a security configuration to start and to run. Pure.

AWS documents it in pieces; what it documents nowhere is marked `is_inferred`, and is never more than a warning.

Source: "Customer managed keys" and "encryption at rest" of the EMR management guide, "How Amazon EMR uses AWS KMS" of
the KMS developer guide, the pages on EBS encryption and on EMR WAL. AWS's own AmazonEMRServicePolicy_v2 has no action
of KMS's in it: with EMR's default roles EBS encryption fails until a key policy or another policy allows it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ringfence_bootstrap.account.key_calls import RoleArn
from ringfence_bootstrap.account.key_policy import NO_CONTEXT
from ringfence_bootstrap.security_configuration.document import S3Mode, SecurityConfiguration
from ringfence_bootstrap.security_configuration.keys import KeyUse, NamedKey, named_keys


class Who(enum.StrEnum):
    """In which part a role meets a key."""

    INSTANCE = "instance role"
    EMRFS = "role for EMRFS"
    SERVICE = "service role"


# Of ReEncrypt* and GenerateDataKey*, what is asked of one key by itself.
_USERS = (
    "kms:Encrypt",
    "kms:Decrypt",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
    "kms:GenerateDataKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:DescribeKey",
)
_WAL = ("kms:Decrypt", "kms:GenerateDataKey")
_SECRET = ("kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey")


@dataclass(frozen=True, slots=True)
class Roles:
    """The roles of one cluster, or of several that share a configuration. `emrfs` comes from the document itself."""

    instance: tuple[RoleArn, ...]
    service: tuple[RoleArn, ...]
    emrfs: tuple[RoleArn, ...] = ()


@dataclass(frozen=True, slots=True)
class Need:
    """What one role must be allowed on one key, and what for. `facts` and `absent` are as in `key_policy.Question`."""

    role: RoleArn
    who: Who
    uses: tuple[KeyUse, ...]
    actions: tuple[str, ...]
    facts: tuple[tuple[str, str], ...] = ()
    absent: tuple[str, ...] = ()
    is_inferred: bool = False

    @property
    def is_for_grants(self) -> bool:
        """Whether it is the part that volumes need, which has a statement of its own."""
        return "kms:CreateGrant" in self.actions


@dataclass(frozen=True, slots=True)
class KeyDemand:
    """One key that a document names, with every use of it."""

    arn: str
    keys: tuple[NamedKey, ...]

    @property
    def uses(self) -> tuple[KeyUse, ...]:
        """Each use once, in document order."""
        return tuple(dict.fromkeys(key.use for key in self.keys))

    @property
    def must_be_own(self) -> bool:
        """Whether a key that AWS manages will not do: nobody can let EMR's roles use it directly."""
        modes = {key.s3_mode for key in self.keys}
        return KeyUse.LOCAL_DISK in self.uses or S3Mode.CSE_KMS in modes


def demands(document: SecurityConfiguration) -> list[KeyDemand]:
    """Every key that the document names, once, in the order in which it names them."""
    found: dict[str, list[NamedKey]] = {}
    for key in named_keys(document):
        found.setdefault(key.arn, []).append(key)
    return [KeyDemand(arn, tuple(keys)) for arn, keys in found.items()]


def needs(demand: KeyDemand, roles: Roles, region: str) -> list[Need]:
    """What each role needs of the key; roles in the order of `roles`."""
    found: list[Need] = []
    instance_uses = _of(demand.uses, KeyUse.S3, KeyUse.LOCAL_DISK)
    if instance_uses:
        # A node makes and opens LUKS keys without an encryption context, and asks KMS itself.
        absent = NO_CONTEXT if KeyUse.LOCAL_DISK in instance_uses else ()
        found += [Need(role, Who.INSTANCE, instance_uses, _USERS, absent=absent) for role in roles.instance]
    if KeyUse.S3 in demand.uses:
        known = {role.text for role in roles.instance}
        emrfs = [role for role in roles.emrfs if role.text not in known]
        found += [Need(role, Who.EMRFS, (KeyUse.S3,), _USERS) for role in emrfs]
    if KeyUse.EBS in demand.uses:
        by_ec2 = (("kms:ViaService", f"ec2.{region}.amazonaws.com"),)
        for_aws = (*by_ec2, ("kms:GrantIsForAWSResource", "true"))
        for role in roles.service:
            found.append(Need(role, Who.SERVICE, (KeyUse.EBS,), _USERS, by_ec2))
            found.append(Need(role, Who.SERVICE, (KeyUse.EBS,), ("kms:CreateGrant",), for_aws))
    if KeyUse.WAL in demand.uses:
        found += [Need(role, Who.INSTANCE, (KeyUse.WAL,), _WAL) for role in roles.instance]
    if KeyUse.CERTIFICATES in demand.uses:
        everybody = [(role, Who.INSTANCE) for role in roles.instance] + [(role, Who.SERVICE) for role in roles.service]
        found += [Need(role, who, (KeyUse.CERTIFICATES,), _SECRET, is_inferred=True) for role, who in everybody]
    return found


def _of(uses: Sequence[KeyUse], *wanted: KeyUse) -> tuple[KeyUse, ...]:
    return tuple(use for use in uses if use in wanted)


def spelled_uses(uses: Iterable[KeyUse]) -> str:
    """`S3, local disks`."""
    words = {
        KeyUse.S3: "S3",
        KeyUse.LOCAL_DISK: "local disks",
        KeyUse.EBS: "EBS volumes",
        KeyUse.CERTIFICATES: "certificates",
        KeyUse.WAL: "write-ahead logs",
    }
    return ", ".join(words[use] for use in uses)
