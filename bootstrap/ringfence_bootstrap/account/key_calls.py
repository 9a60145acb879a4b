"""KMS keys and roles as the account has them, as values. Nothing here decides anything.

A key is asked for in the region that its ARN names, whatever the connection's own is.

Source of the shapes: the KMS and IAM API references.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringfence_bootstrap.account.connection import Connection
from ringfence_zones.aws_names import KeyArn
from ringfence_zones.errors import AwsError, InputError

_ROLE = re.compile(r"arn:(?P<partition>aws[a-z-]*):iam::(?P<account>\d{12}):role/(?P<path>\S+)")
_PROFILE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:instance-profile/(?P<path>\S+)")
_SIMULATED_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class RoleArn:
    """`arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`."""

    text: str
    partition: str
    account: str

    @property
    def name(self) -> str:
        """The role's name, without its path."""
        return self.text.rpartition("/")[2]

    @property
    def account_arn(self) -> str:
        """Its whole account, as key policies name it."""
        return f"arn:{self.partition}:iam::{self.account}:root"


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What DescribeKey says of a key, in AWS's words. `arn` is the key's own, also when an alias was asked for."""

    arn: str
    account: str
    state: str
    spec: str
    usage: str
    manager: str
    origin: str
    deletion: datetime.datetime | None


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """One grant on a key; `is_conditional` when it holds for some encryption contexts only."""

    grantee: str
    operations: tuple[str, ...]
    is_conditional: bool


def find_role_arn(text: str) -> RoleArn | None:
    """The parts of a role's ARN; None for what is none."""
    match = _ROLE.fullmatch(text)
    return RoleArn(text, match["partition"], match["account"]) if match is not None else None


class KeyCalls:
    """KMS and IAM through one connection. Methods raise AwsError, ConfigError and MissingExtraError."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def describe_key(self, key: KeyArn) -> KeyFacts:
        """The key, or the key that an alias means now."""
        answer = self._kms("describe_key", key, KeyId=key.text).get("KeyMetadata")
        found = answer if isinstance(answer, dict) else {}
        deletion = found.get("DeletionDate")
        return KeyFacts(
            arn=str(found.get("Arn", key.text)),
            account=str(found.get("AWSAccountId", key.account)),
            state=str(found.get("KeyState", "")),
            spec=str(found.get("KeySpec", found.get("CustomerMasterKeySpec", ""))),
            usage=str(found.get("KeyUsage", "")),
            manager=str(found.get("KeyManager", "")),
            origin=str(found.get("Origin", "")),
            deletion=deletion if isinstance(deletion, datetime.datetime) else None,
        )

    def key_policy(self, key: KeyArn) -> str:
        """The key's policy as it is stored: a JSON document. Only of a key's own ARN, not an alias's."""
        answer = self._kms("get_key_policy", key, KeyId=key.text, PolicyName="default")
        return str(answer.get("Policy", ""))

    def put_key_policy(self, key: KeyArn, policy: str) -> None:
        """Puts another policy in place of the key's. AWS refuses one that would lock out whoever asks."""
        self._kms("put_key_policy", key, KeyId=key.text, PolicyName="default", Policy=policy)

    def grants(self, key: KeyArn) -> list[KeyGrant]:
        """All grants on the key."""
        entries = self._connection.pages(
            "kms", "list_grants", _about(key), "Grants", region=key.region, KeyId=key.text, Limit=100
        )
        return [_grant(entry) for entry in entries]

    def role(self, name_or_arn: str) -> RoleArn:
        """The role of a name, in the account of the credentials; an ARN is taken as it is."""
        given = find_role_arn(name_or_arn)
        if given is not None:
            return given
        answer = self._connection.call("iam", "get_role", f"role {name_or_arn}", RoleName=name_or_arn).get("Role")
        return _role_of(answer, name_or_arn)

    def instance_profile_role(self, name_or_arn: str) -> RoleArn:
        """The role of an EC2 instance profile, which EMR calls by its name or its ARN."""
        match = _PROFILE.fullmatch(name_or_arn)
        name = match["path"].rpartition("/")[2] if match is not None else name_or_arn
        about = f"instance profile {name}"
        answer = self._connection.call("iam", "get_instance_profile", about, InstanceProfileName=name)
        roles = (answer.get("InstanceProfile") or {}).get("Roles") or [None]
        return _role_of(roles[0], about)

    def simulate(self, role: RoleArn, actions: Sequence[str], key_arn: str, facts: Mapping[str, str]) -> dict[str, str]:
        """What the role's own policies say of each action on the key: `allowed`, `implicitDeny` or `explicitDeny`.

        The key's policy has no part in it. `facts` are condition keys with their values.
        """
        context = [
            {
                "ContextKeyName": name,
                "ContextKeyValues": [value],
                "ContextKeyType": "boolean" if value in ("true", "false") else "string",
            }
            for name, value in facts.items()
        ]
        decided: dict[str, str] = {}
        for begin in range(0, len(actions), _SIMULATED_AT_ONCE):
            entries = self._connection.pages(
                "iam",
                "simulate_principal_policy",
                f"role {role.name}",
                "EvaluationResults",
                PolicySourceArn=role.text,
                ActionNames=list(actions[begin : begin + _SIMULATED_AT_ONCE]),
                ResourceArns=[key_arn],
                ContextEntries=context,
            )
            decided |= {str(each.get("EvalActionName")): str(each.get("EvalDecision")) for each in entries}
        return decided

    def _kms(self, operation: str, key: KeyArn, **request: Any) -> dict[str, Any]:
        return self._connection.call("kms", operation, _about(key), region=key.region, **request)


def parse_policy(text: str, about: str) -> dict[str, Any]:
    """A policy document. Raises InputError for what is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{about} is no policy document", hint="look at it with `aws kms get-key-policy`")
    return found


def _role_of(answer: object, about: str) -> RoleArn:
    role = find_role_arn(str(answer.get("Arn", ""))) if isinstance(answer, dict) else None
    if role is None:
        raise AwsError(f"{about} has no role", hint="EMR's machines need an instance profile with one role in it")
    return role


def _grant(entry: Mapping[str, Any]) -> KeyGrant:
    return KeyGrant(
        str(entry.get("GranteePrincipal", entry.get("GranteeServicePrincipal", "?"))),
        tuple(str(operation) for operation in entry.get("Operations", ())),
        bool(entry.get("Constraints")),
    )


def _about(key: KeyArn) -> str:
    return f"KMS key {key.text}"
