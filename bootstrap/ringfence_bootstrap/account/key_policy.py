"""What a KMS key's policy says to a role, and the same policy with the statements that EMR needs. Pure.

Rules:

1. What a condition asks for and is not known here makes an answer `MAYBE`; nothing is called allowed that may be not.
2. A statement is only ever added, or a role to a statement that was added before: every other statement keeps its
   place and its content. AWS itself refuses a policy that locks out whoever writes it.
3. The whole of IAM's evaluation is AWS's. This is the part that key policies are made of: effect, principal, action,
   resource, conditions on who asks, through which service, with which encryption context, for whose grant.

Source: "Policy evaluation logic" and "IAM JSON policy elements" of the IAM user guide; "Key policies" and "Condition
keys" of the KMS developer guide. The statements are those of the console's "key users".
"""

from __future__ import annotations

import copy
import enum
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ringfence_bootstrap.account.key_calls import RoleArn

USER_ACTIONS = ("kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey")
GRANT_ACTIONS = ("kms:CreateGrant", "kms:ListGrants", "kms:RevokeGrant")
WAL_ACTIONS = ("kms:Decrypt", "kms:GenerateDataKey*")
WAL_SERVICE = "emrwal.amazonaws.com"
USERS_SID, GRANTS_SID, WAL_SID = "RingfenceEmrKeyUsers", "RingfenceEmrVolumeGrants", "RingfenceEmrWal"
MAX_POLICY_BYTES = 32 * 1024
_FOR_AWS = {"Bool": {"kms:GrantIsForAWSResource": "true"}}
_CONTEXT = "kms:encryptioncontext:"


class Answer(enum.IntEnum):
    """Whether something holds; ordered, so that `min` is *and*, `max` is *or*."""

    NO = 0
    MAYBE = 1
    YES = 2


@dataclass(frozen=True, slots=True)
class Question:
    """One action of a role on a key. `facts` are condition keys with the values they will have; a key that
    starts with one of `absent` will have none; of every other nothing is known.
    """

    action: str
    role: RoleArn
    key_arn: str
    facts: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicySays:
    """A key policy's part in the answer: it names the role itself, leaves it to the role's account, or forbids it."""

    named: Answer
    delegated: Answer
    denied: Answer


def ask(policy: Mapping[str, Any], question: Question) -> PolicySays:
    """What the policy says to the question."""
    named = delegated = denied = Answer.NO
    for statement in statements(policy):
        holds = min(
            _acts(statement, question.action), _on(statement, question.key_arn), _conditions(statement, question)
        )
        if statement.get("Effect") == "Deny":
            denied = max(denied, min(holds, _is_principal(statement, question.role, whole_account=True)))
        elif statement.get("Effect") == "Allow":
            named = max(named, min(holds, _is_principal(statement, question.role, whole_account=False)))
            delegated = max(delegated, min(holds, _is_account(statement, question.role)))
    return PolicySays(named, delegated, denied)


def allows_service(policy: Mapping[str, Any], service: str, actions: Sequence[str]) -> bool:
    """Whether statements without a condition let an AWS service do all of `actions`, patterns of their own."""
    open_to_it = [
        each
        for each in statements(policy)
        if each.get("Effect") == "Allow" and service in _listed(_of_principal(each, "Service"))
    ]
    return all(any(_acts(each, action.replace("*", "")) is Answer.YES for each in open_to_it) for action in actions)


def statements(policy: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The statements of a policy, which may have one without a list around it."""
    return [each for each in _listed(policy.get("Statement")) if isinstance(each, Mapping)]


def key_users(roles: Iterable[RoleArn]) -> dict[str, Any]:
    """The console's statement for key users."""
    return _statement(USERS_SID, {"AWS": _arns(roles)}, USER_ACTIONS, None)


def volume_grants(roles: Iterable[RoleArn]) -> dict[str, Any]:
    """For the service role, so that EC2 may attach volumes under the key; for AWS's own services and nobody else."""
    return _statement(GRANTS_SID, {"AWS": _arns(roles)}, GRANT_ACTIONS, _FOR_AWS)


def wal_service() -> dict[str, Any]:
    """For the service that keeps EMR's write-ahead logs."""
    return _statement(WAL_SID, {"Service": WAL_SERVICE}, WAL_ACTIONS, None)


def with_statements(policy: Mapping[str, Any], wanted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A policy that says what `policy` says, and `wanted` besides. `policy` itself is left as it is."""
    changed: dict[str, Any] = dict(copy.deepcopy(dict(policy)))
    found = _listed(changed.get("Statement"))
    for statement in wanted:
        mine = next(
            (each for each in found if isinstance(each, dict) and _is_same_but_for_roles(each, statement)), None
        )
        if mine is None:
            found.append({**statement, "Sid": _free_sid(str(statement["Sid"]), found)})
        elif "AWS" in statement["Principal"]:
            roles = {*_listed(mine["Principal"]["AWS"]), *_listed(statement["Principal"]["AWS"])}
            mine["Principal"]["AWS"] = _one_or_all(sorted(roles))
    changed["Statement"] = found
    return changed


def _statement(
    sid: str, principal: Mapping[str, Any], actions: Sequence[str], condition: Mapping[str, Any] | None
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": dict(principal),
        "Action": list(actions),
        "Resource": "*",
    }
    return found if condition is None else found | {"Condition": copy.deepcopy(dict(condition))}


def _arns(roles: Iterable[RoleArn]) -> str | list[str]:
    return _one_or_all(sorted({role.text for role in roles}))


def _one_or_all(texts: list[str]) -> str | list[str]:
    # AWS writes one principal without a list around it; so a policy reads the same before and after.
    return texts[0] if len(texts) == 1 else texts


def _is_same_but_for_roles(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if not str(one.get("Sid", "")).startswith(str(other["Sid"])):
        return False
    plain = [
        (
            sorted(_listed(each.get("Action"))),
            each.get("Effect"),
            each.get("Resource"),
            each.get("Condition"),
            sorted(each["Principal"]) if isinstance(each.get("Principal"), Mapping) else each.get("Principal"),
            set(each) - {"Sid"},
        )
        for each in (one, other)
    ]
    return plain[0] == plain[1]


def _free_sid(sid: str, found: Sequence[Any]) -> str:
    taken = {each.get("Sid") for each in found if isinstance(each, Mapping)}
    return next(
        name for number in range(1, len(taken) + 3) if (name := f"{sid}{number}" if number > 1 else sid) not in taken
    )


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _of_principal(statement: Mapping[str, Any], kind: str) -> Any:
    principal = statement.get("Principal")
    return principal.get(kind) if isinstance(principal, Mapping) else None


def _is_principal(statement: Mapping[str, Any], role: RoleArn, *, whole_account: bool) -> Answer:
    """Whether a statement speaks of the role itself. A denial of an account holds for its roles too."""
    if "NotPrincipal" in statement:
        return Answer.MAYBE
    principal = statement.get("Principal")
    names = set(map(str, ["*"] if principal == "*" else _listed(_of_principal(statement, "AWS"))))
    wanted = {"*", role.text} | ({role.account, role.account_arn} if whole_account else set())
    return Answer.YES if names & wanted else Answer.NO


def _is_account(statement: Mapping[str, Any], role: RoleArn) -> Answer:
    names = set(map(str, _listed(_of_principal(statement, "AWS"))))
    return Answer.YES if names & {role.account, role.account_arn} else Answer.NO


def _acts(statement: Mapping[str, Any], action: str) -> Answer:
    if "NotAction" in statement:
        return Answer.NO if _matches(action, statement["NotAction"]) else Answer.YES
    return Answer.YES if _matches(action, statement.get("Action")) else Answer.NO


def _on(statement: Mapping[str, Any], key_arn: str) -> Answer:
    if "NotResource" in statement:
        return Answer.NO if _matches(key_arn, statement["NotResource"]) else Answer.YES
    return Answer.YES if _matches(key_arn, statement.get("Resource")) else Answer.NO


def _matches(text: str, patterns: Any) -> bool:
    # AWS's patterns know * and ? alone; [ is a plain character.
    return any(fnmatch.fnmatchcase(text.lower(), str(each).lower().replace("[", "[[]")) for each in _listed(patterns))


def _conditions(statement: Mapping[str, Any], question: Question) -> Answer:
    found = statement.get("Condition")
    if not isinstance(found, Mapping):
        return Answer.YES if found is None else Answer.MAYBE
    answers = [
        _condition(str(operator), str(name).lower(), [str(each) for each in _listed(wanted)], question)
        for operator, tests in found.items()
        if isinstance(tests, Mapping)
        for name, wanted in tests.items()
    ]
    return min(answers, default=Answer.YES)


def _condition(operator: str, name: str, wanted: list[str], question: Question) -> Answer:
    word = operator.lower()
    if word.startswith(("forallvalues:", "foranyvalue:")):
        return Answer.MAYBE
    if_exists = word.endswith("ifexists")
    word = word.removesuffix("ifexists")
    facts = {
        "aws:principalarn": question.role.text,
        "aws:principalaccount": question.role.account,
        "kms:calleraccount": question.role.account,
        **{fact.lower(): value for fact, value in question.facts.items()},
    }
    value = facts.get(name)
    is_absent = value is None and name.startswith(question.absent)
    if word == "null":
        known = Answer.YES if (wanted == ["true"]) == is_absent else Answer.NO
        return known if is_absent or value is not None else Answer.MAYBE
    if is_absent:
        return Answer.YES if if_exists or "not" in word else Answer.NO
    if value is None or word not in _COMPARE:
        return Answer.MAYBE
    compare, expected = _COMPARE[word]
    return Answer.YES if any(compare(value, each) for each in wanted) is expected else Answer.NO


def _equal(value: str, wanted: str) -> bool:
    return value == wanted


def _equal_any_case(value: str, wanted: str) -> bool:
    return value.lower() == wanted.lower()


def _like(value: str, wanted: str) -> bool:
    return fnmatch.fnmatchcase(value, wanted.replace("[", "[[]"))


_COMPARE = {
    "stringequals": (_equal, True),
    "stringnotequals": (_equal, False),
    "stringequalsignorecase": (_equal_any_case, True),
    "stringlike": (_like, True),
    "stringnotlike": (_like, False),
    "arnequals": (_like, True),
    "arnnotequals": (_like, False),
    "arnlike": (_like, True),
    "arnnotlike": (_like, False),
    "bool": (_equal_any_case, True),
}
NO_CONTEXT = (_CONTEXT, "kms:encryptioncontextkeys", "kms:viaservice")
"""Condition keys that a request has not which a node makes itself and without an encryption context."""
