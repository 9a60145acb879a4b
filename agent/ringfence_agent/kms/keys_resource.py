"""`keys`, `keys/names` and `keys/metadata`: create a key, list keys.

Source: `KMS.createKey`, `getKeyNames`, `getKeysMetadata`, `KeyAuthorizationKeyProvider.authorizeCreateKey` and, for
the messages, `JavaKeyStoreProvider`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Mapping
from urllib.parse import quote

from ringfence_agent.http.response import Response
from ringfence_agent.keystore.held import Material, TransitVersion, new_transit_name
from ringfence_agent.keystore.interface import ChangeOrigin, NewKey
from ringfence_agent.kms.answers import json_created, json_ok, version_json
from ringfence_agent.kms.authorization.acls import KeyOperation, Operation
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.custody.key import KEY_ACL_NAME
from ringfence_agent.kms.held_changes import create_held
from ringfence_agent.kms.kms import Kms
from ringfence_agent.kms.parameters import check_name, json_body, require_text
from ringfence_zones import kms_wire
from ringfence_zones.custody import CUSTODY_ATTRIBUTE, parse_custody
from ringfence_zones.errors import (
    InputError,
    KeyExistsError,
    KeyLengthError,
    MalformedJsonError,
    ProtectorRefusedError,
)
from ringfence_zones.keys import CipherSuite
from ringfence_zones.kms_wire import CreateKeyBody
from ringfence_zones.secret import Secret

_LENGTHS_BITS = {suite.hadoop_name: suite.lengths_bits for suite in CipherSuite}
# Metadata stays in every worker's memory, and one request may ask for that of 500 keys.
_MAX_METADATA_CHARS = 32 * 1024
# What a client's Host header may look like to be quoted in Location, which no known client reads.
_HOST = re.compile(rb"[A-Za-z0-9.\-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


def create(kms: Kms, call: Call) -> Awaitable[Response]:
    """`POST keys`."""
    call.op = "CREATE_KEY"
    body = kms_wire.decode_create_key(json_body(call.request))
    name = call.key = require_text(check_name(body.name), "name")
    _check_size(body)
    kms.access.require_operation(call, call.op, name, Operation.CREATE)
    if body.material is not None:
        kms.access.require_operation(call, call.op, name, Operation.SET_KEY_MATERIAL)
    new = _new_key(kms, name, body)
    kms.access.require_creation(call, name, (body.attributes or {}).get(KEY_ACL_NAME))
    call.detail = {
        "length": new.length_bits,
        "material_given": body.material is not None,
        "description": new.description,
        **_custody_detail(new),
    }
    # Before the commit: it may need to look up groups, and nothing may be asked for again after the change.
    may_see = kms.access.may_see_material(call, name)
    request = (name, body.cipher, body.length, body.material, body.description, sorted((body.attributes or {}).items()))
    origin = kms.repeated.origin(call.acting_user, call.op, *request)
    return _create(kms, call, new, origin, may_see)


async def _create(kms: Kms, call: Call, new: NewKey, origin: ChangeOrigin, may_see: bool) -> Response:
    try:
        if isinstance(new.material, TransitVersion):
            version = await create_held(kms, call, kms.get_transit_changes(), new, new.material, origin)
        else:
            version = await kms.change(call, lambda store: store.create_key(new, origin))
        made = kms.repeated.created(version, origin)
    except KeyExistsError:
        found = await kms.repeated.find(new.name, origin)
        if found is None:
            raise
        made, version = found, found.version
    call.note_made(made)
    body = kms_wire.encode(version_json(version, with_material=may_see))
    return json_created(body, _location(call, new.name), made.answered)


def _new_key(kms: Kms, name: str, body: CreateKeyBody) -> NewKey:
    cipher = body.cipher or kms.defaults.cipher
    length_bits = body.length or kms.defaults.length_bits
    if cipher not in _LENGTHS_BITS:
        known = ", ".join(_LENGTHS_BITS)
        raise MalformedJsonError(f"the cipher {cipher} is not supported; zones use {known}")
    if length_bits not in _LENGTHS_BITS[cipher]:
        lengths = " or ".join(map(str, _LENGTHS_BITS[cipher]))
        raise KeyLengthError(f"Wrong keysize: must be equal to {lengths}")
    attributes = dict(body.attributes or {})
    if kms.access.stores_acl_name and not attributes.get(KEY_ACL_NAME):
        attributes[KEY_ACL_NAME] = name
    material = _material(kms, attributes, body.material, length_bits)
    return NewKey(name, cipher, length_bits, material, body.description, attributes)


def _material(kms: Kms, attributes: Mapping[str, str], given: str | None, length_bits: int) -> Material:
    """Of the custody that the attributes ask for: bytes, or the place in Vault where the key is to be made."""
    custody = parse_custody(attributes)
    if custody not in kms.custodies:
        raise ProtectorRefusedError(
            f"this key server has no custody {custody}, for it is not set up for Vault",
            hint="write the vault block in kms.yaml and restart the key server, or make the key without"
            f" {CUSTODY_ATTRIBUTE}",
        )
    if custody == "transit":
        if given is not None:
            raise InputError("a key in custody transit is made in Vault: give no material")
        return TransitVersion(new_transit_name(), 1)
    return Secret(secrets.token_bytes(length_bits // 8) if given is None else check_material(given, length_bits))


def _custody_detail(new: NewKey) -> dict[str, str]:
    """For the audit log. The name of the Transit key is on record before there is one."""
    if isinstance(new.material, TransitVersion):
        return {"custody": "transit", "transit_key": new.material.key}
    return {}


def _check_size(body: CreateKeyBody) -> None:
    texts = [body.cipher or "", body.description or ""]
    for item in (body.attributes or {}).items():
        texts += item
    if sum(map(len, texts)) > _MAX_METADATA_CHARS:
        raise InputError(f"description and attributes of a key have at most {_MAX_METADATA_CHARS} characters together")


def check_material(text: str, length_bits: int) -> bytes:
    """Material a client sent, when it has the key's length. Raises MalformedJsonError with Hadoop's message."""
    material = kms_wire.decode_base64(text)
    if len(material) * 8 != length_bits:
        raise MalformedJsonError(f"Wrong key length. Required {length_bits}, but got {len(material) * 8}")
    return material


def _location(call: Call, name: str) -> str:
    host = call.request.headers.get(b"host", b"")
    base = f"http://{host.decode('ascii')}" if _HOST.fullmatch(host) else ""
    return f"{base}/kms/v1/key/{quote(name, safe='')}"


def list_names(kms: Kms, call: Call) -> Awaitable[Response]:
    """`GET keys/names`: every key, whatever the key ACLs, as Hadoop."""
    call.op = "GET_KEYS"
    kms.access.require_operation(call, call.op, None, Operation.GET_KEYS)
    return _list_names(kms)


async def _list_names(kms: Kms) -> Response:
    keys = await kms.store.read(lambda store: store.list_metadata())
    return json_ok(kms_wire.encode([key.name for key in keys]))


def list_metadata(kms: Kms, call: Call) -> Response:
    """`GET keys/metadata?key=a&key=b`: in that order; one key that may not be read refuses all."""
    call.op = "GET_KEYS_METADATA"
    kms.access.require_operation(call, call.op, None, Operation.GET_METADATA)
    keys = kms.keys.find_all(call.query.keys)
    for key in keys:
        if key is not None:
            kms.access.require_key(call, key.metadata.name, key.acl_name, KeyOperation.READ)
    call.count = len(keys)
    return json_ok(b"[%b]" % b",".join([b"{}" if key is None else key.metadata_json for key in keys]))
