"""`/ringfence/v1/policy`: the published policy, read and replaced by administrators.

`GET` answers `{"revision", "digest", "policy"}`, revision 0 and nulls before the first. `PUT` takes
`{"expected_revision": N, "policy": {...}}`, checks the document as every program does, stores its canonical JSON and
answers `{"revision": N+1, "digest"}`; 409 when the newest revision is not N.

Published means in force in every worker before the answer leaves. So what this server cannot enforce is refused
here, not ignored.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping, Sequence

import msgspec

from ringfence_agent.http.response import Response
from ringfence_agent.keystore.interface import KeyStore, PolicyRevision
from ringfence_agent.kms.answers import json_ok
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.kms import Kms
from ringfence_zones import kms_wire
from ringfence_zones.custody import Custody, custody_word
from ringfence_zones.errors import InputError
from ringfence_zones.keys import KeyMetadata
from ringfence_zones.kms_wire import PublishBody
from ringfence_zones.policy import Policy, canonical_json, policy_from_json


def get(kms: Kms, call: Call) -> Response:
    """The revision in force."""
    call.op = "GET_POLICY"
    published = kms.access.published
    document = msgspec.Raw(published.document if published.document is not None else b"null")
    return json_ok(kms_wire.encode({"revision": published.revision, "digest": published.digest, "policy": document}))


def put(kms: Kms, call: Call) -> Awaitable[Response]:
    """Publishes a revision."""
    call.op = "PUBLISH_POLICY"
    body = kms_wire.decode_publish(call.request.body)
    return _publish(kms, call, body)


async def _publish(kms: Kms, call: Call, body: PublishBody) -> Response:
    custodies = kms.custodies
    if b'"flows"' in bytes(body.policy):
        # In force, they would refuse everybody without it.
        await kms.flows.prepare()
    # Checking a document of a thousand zones takes a while: it is done in the store's thread, off the event loop.
    published = await kms.change(call, lambda store: _check_and_store(store, body, call.user, custodies))
    call.detail = {"published": published.revision, "digest": published.digest}
    return json_ok(kms_wire.encode({"revision": published.revision, "digest": published.digest}))


def _check_and_store(
    store: KeyStore, body: PublishBody, published_by: str, custodies: Sequence[Custody]
) -> PolicyRevision:
    policy = policy_from_json(kms_wire.decode_json(body.policy))
    _refuse_unenforceable(policy)
    _refuse_before_shadow(policy, store)
    _refuse_other_custody(policy, custodies, {key.name: key for key in store.list_metadata()})
    return store.publish_policy(body.expected_revision, canonical_json(policy), published_by)


def _refuse_unenforceable(policy: Policy) -> None:
    if policy.kms is None:
        raise InputError(
            "the policy has no kms block: nobody could make an EDEK with its keys",
            hint="name kms.namenode_users and kms.admins",
        )


def _refuse_before_shadow(policy: Policy, store: KeyStore) -> None:
    """Rules refuse nobody before they were seen at work: what they would refuse is in the audit log by then."""
    if policy.flow_control.mode != "enforce":
        return
    flows = json.loads(canonical_json(policy))["flows"]
    for earlier in store.list_policies(0):
        document = json.loads(earlier.document)
        if document.get("flows") == flows and document["flow_control"]["mode"] == "shadow":
            return
    raise InputError(
        "flow_control.mode enforce is not taken for flows that were never published in mode shadow",
        hint="publish the policy with flow_control.mode: shadow, see in the audit log what it would refuse,"
        " then enforce",
    )


def _refuse_other_custody(policy: Policy, custodies: Sequence[Custody], keys: Mapping[str, KeyMetadata]) -> None:
    """A policy says of no key that it is where it is not: a key that is there keeps its custody."""
    for zone in policy.zones:
        if zone.custody not in custodies:
            raise InputError(
                f"the policy asks for custody {zone.custody} for {zone.path}, and this KMS is connected to no Vault",
                hint="set `vault` in kms.yaml and restart the KMS, or publish the policy with custody: envelope",
            )
        key = keys.get(zone.key)
        if key is not None and (found := custody_word(key.attributes)) != zone.custody:
            raise InputError(
                f"key {zone.key} of {zone.path} is in custody {found}, which it keeps; the policy says {zone.custody}",
                hint=f"write  custody: {found}  for the zone",
            )
