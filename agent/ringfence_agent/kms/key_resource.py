"""`key/NAME` and what lies below it: roll, delete, invalidate, metadata, current version, versions.

Source: `KMS.rolloverKey`, `deleteKey`, `invalidateCache`, `getMetadata`, `getCurrentVersion`, `getKeyVersions`. What
is absent is not an error on reads: `{}` or `[]`, which Hadoop's clients turn into null.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ringfence_agent.http.response import Response
from ringfence_agent.keystore.held import AnyVersion
from ringfence_agent.keystore.interface import ChangeOrigin
from ringfence_agent.kms.answers import empty_ok, json_ok, version_json
from ringfence_agent.kms.authorization.acls import KeyOperation, Operation
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.custody.envelope import EnvelopeKey
from ringfence_agent.kms.custody.held import TransitHeldKey
from ringfence_agent.kms.held_changes import roll_held
from ringfence_agent.kms.key_cache import CachedKey
from ringfence_agent.kms.keys_resource import check_material
from ringfence_agent.kms.kms import Kms
from ringfence_agent.kms.parameters import json_body, require_text
from ringfence_zones import kms_wire
from ringfence_zones.errors import InputError, KeyNotFoundError, UnconfirmedChangeError
from ringfence_zones.secret import Secret


def roll(kms: Kms, call: Call) -> Awaitable[Response]:
    """`POST key/NAME`: a new version, of random material unless it is given."""
    call.op, call.key = "ROLL_NEW_VERSION", call.name
    kms.access.require_operation(call, call.op, call.name, Operation.ROLLOVER)
    name = require_text(call.name, "name")
    body = kms_wire.decode_roll_key(json_body(call.request))
    if body.material is not None:
        kms.access.require_operation(call, call.op, name, Operation.SET_KEY_MATERIAL)
    key = kms.keys.find(name)
    if key is None:
        raise KeyNotFoundError(name, f"Can't find Metadata for key {name}")
    kms.access.require_key(call, name, key.acl_name, KeyOperation.MANAGEMENT)
    material = None
    if body.material is not None:
        if isinstance(key, TransitHeldKey):
            raise InputError(
                f"key {name} is held by Vault (custody transit), which makes its versions: give no material"
            )
        material = Secret(check_material(body.material, key.metadata.length_bits))
    call.detail = {"material_given": material is not None}
    may_see = kms.access.may_see_material(call, name)
    origin = kms.repeated.origin(call.acting_user, call.op, name, body.material)
    if isinstance(key, TransitHeldKey):
        changes = kms.get_transit_changes()
        return _roll(kms, call, name, origin, may_see, lambda: roll_held(kms, call, changes, name, origin))
    return _roll(
        kms,
        call,
        name,
        origin,
        may_see,
        lambda: kms.change(call, lambda store: store.roll_key(name, material, origin)),
    )


async def _roll(
    kms: Kms, call: Call, name: str, origin: ChangeOrigin, may_see: bool, roll_key: Callable[[], Awaitable[AnyVersion]]
) -> Response:
    made = None
    while made is None:
        try:
            version = await roll_key()
            made = kms.repeated.rolled(version, origin)
        except UnconfirmedChangeError:
            # None when it was answered after all: then this is a second request, whose turn it is now.
            made = await kms.repeated.find(name, origin)
    call.note_made(made)
    return json_ok(kms_wire.encode(version_json(made.version, with_material=may_see)), made.answered)


def delete(kms: Kms, call: Call) -> Awaitable[Response]:
    """`DELETE key/NAME`: the store keeps a tombstone."""
    call.op, call.key = "DELETE_KEY", call.name
    kms.access.require_operation(call, call.op, call.name, Operation.DELETE)
    name = require_text(call.name, "name")
    key = kms.keys.find(name)
    if key is None:
        raise KeyNotFoundError(name, f"Key {name} does not exist in {kms.store.label}")
    kms.access.require_key(call, name, key.acl_name, KeyOperation.MANAGEMENT)
    return _delete(kms, call, name)


async def _delete(kms: Kms, call: Call, name: str) -> Response:
    await kms.change(call, lambda store: store.delete_key(name))
    return empty_ok()


def invalidate_cache(kms: Kms, call: Call) -> Response:
    """`POST key/NAME/_invalidatecache`: 200 for a key just deleted as well.

    Nothing is dropped: what this server remembers is never older than the last commit. It is what Hadoop's client sends
    when it has the answer to its roll, and once this is answered it asks for that roll no more (`repeated_change`).
    """
    name = call.key = require_text(call.name, "name")
    call.op = "INVALIDATE_CACHE"
    kms.access.require_operation(call, call.op, name, Operation.ROLLOVER, Operation.DELETE)
    key = kms.keys.find(name)
    if key is not None:
        kms.access.require_key(call, name, key.acl_name, KeyOperation.MANAGEMENT)
    user = call.acting_user
    return empty_ok(lambda: kms.repeated.settle(name, user))


def get_metadata(kms: Kms, call: Call) -> Response:
    """`GET key/NAME` and `key/NAME/_metadata`."""
    name = call.key = require_text(call.name, "name")
    call.op = "GET_METADATA"
    known = kms.access.is_known(call, Operation.GET_METADATA, name)
    if not known:
        kms.access.require_operation(call, call.op, name, Operation.GET_METADATA)
    key = kms.keys.find(name) if known else _readable(kms, call, name)
    if key is None:
        return json_ok(b"{}")
    if not known:
        kms.access.remember(call, Operation.GET_METADATA, name)
    return json_ok(key.metadata_json)


def get_current_version(kms: Kms, call: Call) -> Response:
    """`GET key/NAME/_currentversion`, with material."""
    name = call.key = require_text(call.name, "name")
    call.op = "GET_CURRENT_KEY"
    kms.access.require_material(call, call.op, name)
    key = _readable(kms, call, name)
    if key is None:
        return json_ok(b"{}")
    return json_ok(kms_wire.encode(version_json(key.get_version(key.metadata.versions - 1))))


def list_versions(kms: Kms, call: Call) -> Response:
    """`GET key/NAME/_versions`, with material, oldest first."""
    name = call.key = require_text(call.name, "name")
    call.op = "GET_KEY_VERSIONS"
    kms.access.require_material(call, call.op, name)
    key = _readable(kms, call, name)
    if key is None:
        return json_ok(b"[]")
    if isinstance(key, EnvelopeKey):
        key.require(key.numbers)
    return json_ok(kms_wire.encode([version_json(key.get_version(number)) for number in key.numbers]))


def _readable(kms: Kms, call: Call, name: str) -> CachedKey | None:
    key = kms.keys.find(name)
    if key is not None:
        kms.access.require_key(call, name, key.acl_name, KeyOperation.READ)
    return key
