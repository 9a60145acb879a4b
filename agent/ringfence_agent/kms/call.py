"""One request on its way through the KMS, and what its handlers work with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ringfence_agent.http.request import Request
from ringfence_agent.http.response import Response
from ringfence_agent.kms.access import AccessRules
from ringfence_agent.kms.key_cache import KeyCache
from ringfence_agent.kms.routes import Query
from ringfence_agent.kms.store_access import StoreAccess


@dataclass(frozen=True, slots=True)
class KeyDefaults:
    """What a create without cipher or length gets (`hadoop.security.key.default.{cipher,bitlength}`)."""

    cipher: str
    length_bits: int


@dataclass(frozen=True, slots=True)
class Kms:
    """What the handlers of one worker share. `version` is the product's."""

    store: StoreAccess
    keys: KeyCache
    access: AccessRules
    defaults: KeyDefaults
    version: str


@dataclass(slots=True)
class Call:
    """A request with its caller. Handlers note in `op`, `key` and `detail` what the audit log is to say.

    `name` is the key or key version in the path. `user` is who calls; for the administrator of the Unix socket or
    of the bearer token it is how the log names them.
    """

    request: Request
    name: str
    query: Query
    user: str = ""
    op: str = ""
    key: str | None = None
    detail: dict[str, object] | None = field(default=None)


# A handler answers from memory, raises Unready for what is not there, or returns an awaitable once it has begun to
# change something. Errors of the RingfenceError family become the answer.
Handler = Callable[[Kms, Call], Response | Awaitable[Response]]
