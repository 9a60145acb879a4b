"""A grant: the leave for one job to bring data from one zone to another, where the policy's flows have no edge.

It is for one session of one user, as the KMS knows sessions: a delegation token by its number, which is one job on
YARN, or, for who comes without one, the user at one address (and who acts for them). It lasts for a bounded time, and
says for which purpose and who approved it. What HDFS permissions or key ACLs refuse it does not admit.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field


def new_grant_id() -> str:
    """A random one: 32 hex digits."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """What to ask of the KMS.

    user        whose job it is: the short name, as the KMS knows it
    source      the root of the zone that is read, in the published policy
    target      the root of the zone that is written
    lifetime_s  how long it lasts from when the KMS takes it, by the KMS's clock
    purpose     what it is for, one line for people and the audit log
    approver    who said yes
    token       the sequence number of the session's delegation token; exactly one of this and `address`
    address     the IP address that the session's requests come from
    real_user   who acts for the user, where somebody does and `address` is given
    id          names the grant; the same request sent again under the same id is the same grant
    """

    user: str
    source: str
    target: str
    lifetime_s: float
    purpose: str
    approver: str
    token: int | None = None
    address: str | None = None
    real_user: str | None = None
    id: str = field(default_factory=new_grant_id)


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as the KMS has it. Times are epoch milliseconds by the KMS's clock.

    granted_by  the principal that asked the KMS for it
    ended_ms    when it ended before its time, None when it did not
    ended_by    why: `deleted`, `time` or `token`
    """

    id: str
    user: str
    source: str
    target: str
    token: int | None
    address: str | None
    real_user: str | None
    purpose: str
    approver: str
    granted_by: str
    created_ms: int
    not_after_ms: int
    ended_ms: int | None = None
    ended_by: str | None = None
