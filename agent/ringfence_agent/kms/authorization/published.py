"""The published policy as the KMS enforces it: key ACLs of the keys it names.

With no revision the KMS behaves as plain Hadoop. With one, the keys it names take their key ACLs from it alone:
neither `kms-acls.xml` nor a whitelist there reaches them, and the attribute `key.acl.name` does not lead around it.
A key that only an earlier revision named is back to `kms-acls.xml`, but for its material, which stays closed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ringfence_agent.flow.rules import FlowRules, flow_rules
from ringfence_agent.keystore.interface import KeyStore, PolicyRevision
from ringfence_agent.kms.authorization.acls import KeyOperation
from ringfence_zones.access_list import AccessList
from ringfence_zones.errors import PolicyError, StoreTamperedError
from ringfence_zones.policy import Policy, policy_from_json
from ringfence_zones.publication import Grant, key_grants

KeyGrants = Mapping[str, Mapping[KeyOperation, AccessList]]


@dataclass(frozen=True, slots=True)
class PublishedPolicy:
    """One revision; 0 with no digest before the first. `document` is the canonical JSON.

    named  every key that this or an earlier revision names, with the newest revision that does
    rule   how decisions by this revision are called in the audit log
    admins who may read and replace the policy, once proven; `*` among them is about keys and admits nobody here
    flows  what may be copied where; None when the policy says nothing of it
    flows_since_ms  when the first of the unbroken run of revisions with flows was published; 0 without flows
    """

    revision: int = 0
    digest: str | None = None
    document: bytes | None = None
    grants: KeyGrants = field(default_factory=lambda: MappingProxyType({}))
    named: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    rule: str = "policy:0"
    admins: AccessList = field(default_factory=AccessList)
    flows: FlowRules | None = None
    flows_since_ms: int = 0


NOTHING_PUBLISHED = PublishedPolicy()


def read_if_newer(known: PublishedPolicy, store: KeyStore) -> PublishedPolicy | None:
    """The newest revision in `store`, None when it is `known`. Blocks. Raises StoreTamperedError.

    Revisions before it are read for the keys they name, each once: they never change.
    """
    newest = store.find_policy()
    if (newest.revision, newest.digest) == (known.revision, known.digest) if newest else known.revision == 0:
        return None
    if newest is None or newest.revision < known.revision:
        raise StoreTamperedError(
            f"the published policy of revision {known.revision} is gone", hint="restore the key store from its backup"
        )
    named, flows_since_ms = dict(known.named), known.flows_since_ms
    for earlier in store.list_policies(known.revision):
        keys, has_flows = _read_old(earlier)
        named |= dict.fromkeys(keys, earlier.revision)
        flows_since_ms = (flows_since_ms or earlier.published_ms) if has_flows else 0
    return read_published(newest, named, flows_since_ms)


def read_published(
    revision: PolicyRevision | None,
    named_before: Mapping[str, int] = NOTHING_PUBLISHED.named,
    flows_since_ms: int = 0,
) -> PublishedPolicy:
    """What a stored revision grants; `named_before` are the keys that earlier ones named.

    Raises StoreTamperedError when its document is not a policy: the KMS stores nothing else, and answering without
    the grants of a policy that somebody published would open its keys.
    """
    if revision is None:
        return NOTHING_PUBLISHED
    try:
        policy = policy_from_json(json.loads(revision.document))
    except (ValueError, KeyError, PolicyError) as error:
        raise _unreadable(revision.revision) from error
    grants = {
        key: {KeyOperation[operation.value]: _access_list(grant) for operation, grant in by_operation.items()}
        for key, by_operation in key_grants(policy).items()
    }
    return PublishedPolicy(
        revision.revision,
        revision.digest,
        revision.document,
        grants,
        {**named_before, **dict.fromkeys(grants, revision.revision)},
        f"policy:{revision.revision}",
        _administrators(policy),
        flow_rules(policy),
        (flows_since_ms or revision.published_ms) if policy.flows is not None else 0,
    )


def _administrators(policy: Policy) -> AccessList:
    admins = Grant.of(policy.kms.admins if policy.kms else ())
    return AccessList(admins.users, admins.groups)


def _read_old(revision: PolicyRevision) -> tuple[list[str], bool]:
    """The keys that a revision names, and whether it has flows."""
    # Not parsed as a policy: an old revision is not enforced any more, and what a document may say changes.
    try:
        document = json.loads(revision.document)
        return [zone["key"] for zone in document["zones"]], "flows" in document
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(revision.revision) from error


def _unreadable(revision: int) -> StoreTamperedError:
    return StoreTamperedError(
        f"revision {revision} of the published policy cannot be read",
        hint="publish the policy again with a release that can read it, or restore the key store",
    )


def _access_list(grant: Grant) -> AccessList:
    return AccessList(grant.users, grant.groups, grant.everyone)
