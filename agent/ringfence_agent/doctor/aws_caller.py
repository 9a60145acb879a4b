"""Whose AWS credentials these are, as a policy names them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_SESSION = re.compile(r"arn:(?P<partition>aws[a-z-]*):sts::(?P<account>\d{12}):assumed-role/(?P<name>[\w+=,.@-]+)/.+")
_OTHER = re.compile(r"arn:aws[a-z-]*:(?:iam|sts)::(?P<account>\d{12}):(?:user/.+|root|federated-user/.+)")


@dataclass(frozen=True, slots=True)
class Caller:
    """`arn` is what a policy's Principal names: for a session its role. `role_name` is None for what is no role.

    `is_whole` is False while the role's path is not known: a session's ARN leaves it out, a policy needs it.
    """

    arn: str
    account: str
    role_name: str | None = None
    is_whole: bool = True

    def with_arn(self, arn: str) -> Caller:
        """The same role by the ARN that IAM gave."""
        return replace(self, arn=arn, is_whole=True)


def parse_caller(arn: str) -> Caller | None:
    """The caller of an ARN that GetCallerIdentity gave; None for a form that is not known here."""
    session = _SESSION.fullmatch(arn)
    if session is not None:
        role = f"arn:{session['partition']}:iam::{session['account']}:role/{session['name']}"
        return Caller(role, session["account"], session["name"], is_whole=False)
    other = _OTHER.fullmatch(arn)
    return Caller(arn, other["account"]) if other is not None else None
