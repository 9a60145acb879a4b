"""`keyversion/NAME@N`: one key version with its material. Source: `KMS.getKeyVersion`."""

from __future__ import annotations

from ringfence_agent.http.response import Response
from ringfence_agent.kms.answers import json_ok, version_json
from ringfence_agent.kms.authorization.acls import KeyOperation, Operation
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.kms import Kms
from ringfence_agent.kms.parameters import find_version, require_text
from ringfence_zones import kms_wire


def get(kms: Kms, call: Call) -> Response:
    """`GET keyversion/NAME@N`: `{}` when there is no such version, null material when Vault holds it."""
    version_name = require_text(call.name, "versionName")
    call.op = "GET_KEY_VERSION"
    kms.access.require_operation(call, call.op, None, Operation.GET)
    found = find_version(kms.keys, version_name)
    if found is None:
        return json_ok(b"{}")
    key, number = found
    name = call.key = key.metadata.name
    kms.access.require_material(call, call.op, name)
    kms.access.require_key(call, name, key.acl_name, KeyOperation.READ)
    return json_ok(kms_wire.encode(version_json(key.get_version(number))))
