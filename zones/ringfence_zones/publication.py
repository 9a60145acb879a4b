"""What a published policy grants on each key, in the words of Hadoop's key ACLs.

Source of the operations: `org.apache.hadoop.crypto.key.kms.server.KeyAuthorizationKeyProvider.KeyOpType`. Rules:

1. Readers and writers of a zone get DECRYPT_EEK on its key: the KMS cannot tell a read from a create, HDFS's ACL
   does. The NameNode's users get GENERATE_EEK and READ, the administrators MANAGEMENT and READ.
2. Nobody gets ALL, and nothing here grants key material: GET is an operation ACL, refused for every key of a
   revision.
3. A key the policy does not name is not in the result: `kms-acls.xml` decides about it.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ringfence_zones.policy import Policy, ZonePolicy
from ringfence_zones.policy_document import EVERYONE


class KeyOp(enum.StrEnum):
    """A key ACL's operation, spelled as in `key.acl.NAME.OPERATION`."""

    MANAGEMENT = "MANAGEMENT"
    GENERATE_EEK = "GENERATE_EEK"
    DECRYPT_EEK = "DECRYPT_EEK"
    READ = "READ"
    ALL = "ALL"


@dataclass(frozen=True, slots=True)
class Grant:
    """Who may do one thing: short user names, group names without `@`, or everybody."""

    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    everyone: bool = False

    @classmethod
    def of(cls, principals: Iterable[str]) -> Grant:
        """From policy's spelling: `etl`, `@analysts`, `*`."""
        names = frozenset(principals)
        groups = frozenset(name[1:] for name in names if name.startswith("@"))
        users = frozenset(name for name in names if not name.startswith("@")) - {EVERYONE}
        return cls(users, groups, EVERYONE in names)

    def allows(self, user: str, groups: Collection[str]) -> bool:
        """Whether `user`, a member of `groups`, is meant."""
        return self.everyone or user in self.users or not self.groups.isdisjoint(groups)


NOBODY = Grant()


def key_grants(policy: Policy) -> Mapping[str, Mapping[KeyOp, Grant]]:
    """By key name, then by operation: every operation but ALL is present, `NOBODY` where nobody has it.

    Without a `kms` block nobody generates or manages: the planner refuses to publish such a policy.
    """
    namenode = Grant.of(policy.kms.namenode_users if policy.kms else ())
    admins = Grant.of(policy.kms.admins if policy.kms else ())
    read = Grant.of((*policy.kms.namenode_users, *policy.kms.admins) if policy.kms else ())
    return MappingProxyType({zone.key: _zone_grants(zone, namenode, admins, read) for zone in policy.zones})


def _zone_grants(zone: ZonePolicy, namenode: Grant, admins: Grant, read: Grant) -> Mapping[KeyOp, Grant]:
    return MappingProxyType(
        {
            KeyOp.MANAGEMENT: admins,
            KeyOp.GENERATE_EEK: namenode,
            KeyOp.DECRYPT_EEK: Grant.of(zone.all_readers),
            KeyOp.READ: read,
        }
    )
