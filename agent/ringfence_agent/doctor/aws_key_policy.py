"""Who a key policy lets open what the key seals. Pure; reads, and judges nothing that it does not understand.

The statement by which an account hands its key to its own identity policies (`arn:aws:iam::ACCOUNT:root`, in every
policy that the console makes) names nobody: who may do what stands in those policies then, which are not read here.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from typing import Any

_OPENING = ("kms:Decrypt", "kms:ReEncryptFrom")
_CLUSTER = "kms:encryptioncontext:ringfence:cluster"
_ACCOUNT = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):root|(\d{12})")


def openers(policy: object) -> set[str]:
    """The principals that a statement lets open; `*` for everybody without a condition. Accounts are left out."""
    found: set[str] = set()
    for statement in _opening_statements(policy):
        names = _principals(statement)
        if "*" in names and statement.get("Condition"):
            names.remove("*")
        found |= {name for name in names if _ACCOUNT.fullmatch(name) is None}
    return found


def limits_to_cluster(policy: object, principal: str, cluster: str) -> bool:
    """Whether each statement that lets `principal` by name open is bound to the cluster's encryption context."""
    return all(
        _is_limited(statement.get("Condition"), cluster)
        for statement in _opening_statements(policy)
        if principal in _principals(statement)
    )


def _opening_statements(policy: object) -> Iterator[Mapping[str, Any]]:
    statements = policy.get("Statement", []) if isinstance(policy, dict) else []
    for statement in _list(statements):
        if isinstance(statement, dict) and statement.get("Effect") == "Allow" and _opens(statement):
            yield statement


def _opens(statement: Mapping[str, Any]) -> bool:
    if "NotAction" in statement:
        return not all(_any_matches(action, statement["NotAction"]) for action in _OPENING)
    return any(_any_matches(action, statement.get("Action", [])) for action in _OPENING)


def _any_matches(action: str, patterns: object) -> bool:
    return any(fnmatch.fnmatchcase(action.lower(), str(pattern).lower()) for pattern in _list(patterns))


def _principals(statement: Mapping[str, Any]) -> set[str]:
    principal = statement.get("Principal")
    if principal == "*" or "NotPrincipal" in statement:
        return {"*"}
    if not isinstance(principal, dict):
        return set()
    return {str(name) for names in principal.values() for name in _list(names)}


def _is_limited(condition: object, cluster: str) -> bool:
    if not isinstance(condition, dict):
        return False
    for operator, tests in condition.items():
        if operator in ("StringEquals", "StringLike") and isinstance(tests, dict):
            for name, wanted in tests.items():
                if str(name).lower() == _CLUSTER and _list(wanted) == [cluster]:
                    return True
    return False


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]
