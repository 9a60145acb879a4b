"""One request on its way through the KMS, and what an authenticator is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from ringfence_agent.http.request import Request
from ringfence_agent.http.response import Response
from ringfence_agent.kms.audit.record import Decision, Details
from ringfence_agent.kms.authentication.caller import Caller, Identity
from ringfence_agent.kms.repeated_change import Made
from ringfence_agent.kms.routes import Query
from ringfence_zones.errors import AuthenticationError


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
    rule      what allowed or refused it, as `authorization.access` words it; None when nothing was asked

    version   the number of the key version that was used or made
    count     how many EDEKs or keys the call was about, where that is not one

    is_caught_up  the store was looked at for this call
    opened        what opening an EDEK was to its zone, as `flow_control` words it; None without flow rules

    Handlers note in `op`, `key`, `version`, `count` and `detail` what the audit log is to say; the access rules note
    `rule`.
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
    version: int | None = None
    count: int | None = None
    rule: str | None = None
    detail: Details | None = None
    is_caught_up: bool = False
    opened: str | None = None
    began_s: float = field(default_factory=time.perf_counter)

    @property
    def is_token_operation(self) -> bool:
        """Whether this asks for a token operation. OPTIONS with its parameters only authenticates."""
        return self.query.token_operation is not None and self.request.method != b"OPTIONS"

    @property
    def acting_user(self) -> str:
        """The user, with whoever acts for them: two that differ in either are two callers."""
        return self.user if self.real_user is None else f"{self.user} via {self.real_user}"

    def note_made(self, made: Made) -> None:
        """Notes for the audit log which version a create or roll made, and whether it was made by an earlier try."""
        self.version = made.version.version
        if made.again:
            self.detail = {**(self.detail or {}), "answered_again": True}

    def decision(self, status: int | None, outcome: str, revision: int) -> Decision:
        """What the audit log says of this call."""
        # A refused doAs leaves no caller: it is the session's own doing.
        caller = self.caller or self.session
        return Decision(
            self.op or "UNKNOWN",
            self.key,
            self.version,
            self.user or None,
            self.real_user,
            None if caller is None else caller.principal,
            (Identity.NONE if caller is None else caller.identity).word,
            self.request.peer.address,
            status,
            outcome,
            self.rule,
            revision,
            self.count,
            self.opened,
            None if caller is None or self.opened is None else caller.token,
        )


class Authenticator(Protocol):
    """Proves who sent a request."""

    @property
    def cleared_cookie(self) -> str:
        """The Set-Cookie header that ends a session."""

    def authenticate(self, call: Call) -> Caller:
        """Who sent the request.

        Raises AuthenticationError when nobody was proven, and Unready when the proof takes a thread or the store: the
        load then sets `call.session`, and this is not asked again.
        """

    def refuse(self, call: Call, error: AuthenticationError) -> Response:
        """The answer to a request of which nobody was proven to be the sender; its message is for the client."""
