"""The published policy as the KMS enforces it: key ACLs of the keys it names.

With no revision the KMS behaves as plain Hadoop. With one, the keys it names take their key ACLs from it alone:
neither `kms-acls.xml` nor a whitelist there reaches them, and the attribute `key.acl.name` does not lead around it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ringfence_agent.keystore.interface import PolicyRevision
from ringfence_agent.kms.acls import AccessList, KeyOperation
from ringfence_zones.errors import PolicyError, StoreTamperedError
from ringfence_zones.policy import policy_from_json
from ringfence_zones.publication import Grant, key_grants

KeyGrants = Mapping[str, Mapping[KeyOperation, AccessList]]


@dataclass(frozen=True, slots=True)
class PublishedPolicy:
    """One revision; 0 with no digest before the first. `document` is the canonical JSON."""

    revision: int = 0
    digest: str | None = None
    document: bytes | None = None
    grants: KeyGrants = field(default_factory=lambda: MappingProxyType({}))


NOTHING_PUBLISHED = PublishedPolicy()


def read_published(revision: PolicyRevision | None) -> PublishedPolicy:
    """What a stored revision grants.

    Raises StoreTamperedError when its document is not a policy: the KMS stores nothing else, and answering without
    the grants of a policy that somebody published would open its keys.
    """
    if revision is None:
        return NOTHING_PUBLISHED
    try:
        policy = policy_from_json(json.loads(revision.document))
    except (ValueError, KeyError, PolicyError) as error:
        raise StoreTamperedError(
            f"revision {revision.revision} of the published policy cannot be read",
            hint="publish the policy again with a release that can read it, or restore the key store",
        ) from error
    grants = {
        key: {KeyOperation[operation.value]: _access_list(grant) for operation, grant in by_operation.items()}
        for key, by_operation in key_grants(policy).items()
    }
    return PublishedPolicy(revision.revision, revision.digest, revision.document, grants)


def _access_list(grant: Grant) -> AccessList:
    return AccessList(grant.users, grant.groups, grant.everyone)
