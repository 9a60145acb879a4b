"""`/ringfence/v1/keys/deleted` and `/ringfence/v1/key/NAME/_undelete`: keys that were deleted, and taking that back.

For administrators, as the policy is. A deleted key is a tombstone: nothing is destroyed, and within `tombstone` (30
days) the key comes back with all its versions. Not when a key of its name was made since: its versions would be two
keys'.

`GET keys/deleted` answers `{"keys": [{"name", "versions", "deleted", "until"}]}`, times in epoch milliseconds, by name;
`until` is null once the window is over. `POST key/NAME/_undelete` answers the key's metadata, as Hadoop's API does.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable

from ringfence_agent.http.response import Response
from ringfence_agent.kms.answers import json_ok
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.kms import Kms
from ringfence_agent.kms.parameters import json_body, require_text
from ringfence_zones import kms_wire
from ringfence_zones.errors import KeyExistsError


def list_deleted(kms: Kms, call: Call) -> Awaitable[Response]:
    """Every key that is deleted and was not made again."""
    call.op = "GET_DELETED_KEYS"
    return _list_deleted(kms)


async def _list_deleted(kms: Kms) -> Response:
    window_ms, now_ms = _window_ms(kms), _now_ms()
    keys = [
        {
            "name": key.metadata.name,
            "versions": key.metadata.versions,
            "deleted": key.deleted_ms,
            "until": key.deleted_ms + window_ms if key.deleted_ms + window_ms > now_ms else None,
        }
        for key in await kms.store.read(lambda store: store.list_deleted())
    ]
    return json_ok(kms_wire.encode({"keys": keys}))


def undelete(kms: Kms, call: Call) -> Awaitable[Response]:
    """Brings a key back."""
    call.op, call.key = "UNDELETE_KEY", call.name
    json_body(call.request)  # nothing is read from it: a browser cannot be made to send it from elsewhere
    return _undelete(kms, call, require_text(call.name, "name"))


async def _undelete(kms: Kms, call: Call, name: str) -> Response:
    not_before_ms = _now_ms() - _window_ms(kms)
    try:
        metadata = await kms.change(call, lambda store: store.undelete_key(name, not_before_ms))
    except KeyExistsError:
        raise KeyExistsError(
            name,
            "the key store",
            f"key {name} is not deleted, so there is nothing to bring back; if it was deleted and made again, the one"
            " that was made again stays",
        ) from None
    call.version = metadata.versions - 1
    return json_ok(kms_wire.encode(kms_wire.metadata_json(metadata)))


def _window_ms(kms: Kms) -> int:
    return int(kms.keeper.settings.tombstone_s * 1000)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
