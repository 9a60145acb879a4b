"""One request on its way through the KMS, what its handlers work with, and what an authenticator is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from ringfence_agent.http.request import Request
from ringfence_agent.http.response import Response
from ringfence_agent.kms.access import AccessRules
from ringfence_agent.kms.caller import Caller
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
    """One request, from its first look to its answer; it survives every `Unready` in between.

    request   as it came
    query     its parameters
    session   who sent it, once proven. Kept, because a SPNEGO token is good for one acceptance only
    caller    for whom the request is decided: `session`, or the user it acts for (doAs). None until that is decided
    user      `caller.user`
    name      the key or key version in the path

    real_user `caller.real_user`: who acts for the user, None when nobody does
    rule      what allowed or refused it, as `ringfence_agent.kms.access` words it; None when nothing was asked

    Handlers note in `op`, `key` and `detail` what the audit log is to say; the access rules note `rule`.
    """

    request: Request
    query: Query
    session: Caller | None = None
    caller: Caller | None = None
    user: str = ""
    real_user: str | None = None
    name: str = ""
    op: str = ""
    key: str | None = None
    rule: str | None = None
    detail: dict[str, object] | None = None
    policy_is_current: bool = False


class Authenticator(Protocol):
    """Proves who sent a request."""

    @property
    def challenge(self) -> str:
        """The WWW-Authenticate header of a 401."""

    def authenticate(self, call: Call) -> Caller:
        """Who sent the request.

        Raises AuthenticationError when nobody was proven (its message becomes the reason phrase), and Unready when
        the proof takes a thread or the store: the load then sets `call.session`, and this is not asked again.
        """


# A handler answers from memory, raises Unready for what is not there, or returns an awaitable once it has begun to
# change something. Errors of the RingfenceError family become the answer.
Handler = Callable[[Kms, Call], Response | Awaitable[Response]]
