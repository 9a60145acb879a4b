"""Whether AWS would let a principal do something to a KMS key: key policy, identity policy, grants.

As much of IAM's evaluation as key policies use: explicit denials first; a key policy that names the role or its session
suffices in the key's own account; one that names the account asks the identity policy; another account always needs
both. Conditions: StringEquals, StringLike and their ForAllValues forms over the encryption context; Bool and the same
over other condition keys that a request has.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Principal:
    """Who signs. `arn` is what STS says (a session, for a role), `role_arn` what policies name."""

    access_key: str
    secret: str
    token: str | None
    arn: str
    role_arn: str
    account: str
    policy: dict[str, Any] = field(default_factory=dict)
    expired: bool = False


@dataclass(frozen=True)
class Asked:
    """One action on one key, with its encryption context; `facts` are other condition keys of the request."""

    action: str
    key_arn: str
    key_account: str
    context: Mapping[str, str]
    facts: Mapping[str, str] = field(default_factory=dict)


def is_allowed(
    principal: Principal, asked: Asked, key_policy: Mapping[str, Any], grants: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether AWS lets `principal` do what is asked."""
    key_statements = list(_statements(key_policy))
    own_statements = list(_statements(principal.policy))
    denials = [each for each in key_statements if each["Effect"] == "Deny" and _names(each, principal)]
    denials += [each for each in own_statements if each["Effect"] == "Deny"]
    if any(_matches(each, asked) for each in denials):
        return False
    allowing = [each for each in key_statements if each["Effect"] == "Allow" and _matches(each, asked)]
    named = any(_names(each, principal) for each in allowing) or any(
        _by_grant(each, principal, asked) for each in grants
    )
    delegated = any(f"arn:aws:iam::{principal.account}:root" in _principals(each) for each in allowing)
    by_identity = any(each["Effect"] == "Allow" and _matches(each, asked, own=True) for each in own_statements)
    if principal.account != asked.key_account:
        return (named or delegated) and by_identity
    return named or (delegated and by_identity)


def identity_decision(policy: Mapping[str, Any], asked: Asked) -> str:
    """What an identity policy says by itself, in the words of IAM's simulation."""
    matching = [each["Effect"] for each in _statements(policy) if _matches(each, asked, own=True)]
    if "Deny" in matching:
        return "explicitDeny"
    return "allowed" if matching else "implicitDeny"


def _statements(policy: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return iter(_list(policy.get("Statement", ())))


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _principals(statement: Mapping[str, Any]) -> list[str]:
    principal = statement.get("Principal", {})
    return ["*"] if principal == "*" else _list(principal.get("AWS", []))


def _names(statement: Mapping[str, Any], principal: Principal) -> bool:
    return bool({"*", principal.arn, principal.role_arn} & set(_principals(statement)))


def _matches(statement: Mapping[str, Any], asked: Asked, *, own: bool = False) -> bool:
    if not any(fnmatch.fnmatchcase(asked.action, pattern) for pattern in _list(statement["Action"])):
        return False
    # In a key policy `*` means the key itself; an identity policy names ARNs.
    resources = _list(statement.get("Resource", "*"))
    if not any(resource == "*" or (own and fnmatch.fnmatchcase(asked.key_arn, resource)) for resource in resources):
        return False
    return all(
        _holds(operator, name, _list(wanted), asked)
        for operator, tests in statement.get("Condition", {}).items()
        for name, wanted in tests.items()
    )


def _holds(operator: str, name: str, wanted: list[str], asked: Asked) -> bool:
    compare = {"StringEquals": str.__eq__, "StringLike": fnmatch.fnmatchcase, "Bool": str.__eq__}[
        operator.removeprefix("ForAllValues:")
    ]
    if name in asked.facts:
        return any(compare(asked.facts[name], pattern) for pattern in wanted)
    if name == "kms:EncryptionContextKeys":
        return all(any(compare(each, pattern) for pattern in wanted) for each in asked.context)
    value = asked.context.get(name.removeprefix("kms:EncryptionContext:"))
    return value is not None and any(compare(value, pattern) for pattern in wanted)


def _by_grant(grant: Mapping[str, Any], principal: Principal, asked: Asked) -> bool:
    limits = grant.get("Constraints", {})
    subset = limits.get("EncryptionContextSubset", {})
    return (
        grant["GranteePrincipal"] in (principal.arn, principal.role_arn)
        and asked.action.removeprefix("kms:") in grant["Operations"]
        and all(asked.context.get(key) == value for key, value in subset.items())
    )
