"""Who may do what on which key, and what decides it: the server's own rules, asked by a person.

`AccessRules` decides here as in the server; this module only says where each deciding line stands. An answer is
about files as they are now and, when there is one, about the policy given; a running server follows within a second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ringfence_agent.keystore.interface import PolicyRevision
from ringfence_agent.kms.authorization.access import AccessRules, Subject
from ringfence_agent.kms.authorization.acl_document import AclDocument
from ringfence_agent.kms.authorization.acls import FILE_NAME, Decision, KeyOperation, Operation
from ringfence_agent.kms.authorization.published import read_published
from ringfence_zones.errors import InputError
from ringfence_zones.policy import Policy, ZonePolicy, canonical_json
from ringfence_zones.publication import Grant, KeyOp, key_grants


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request for one operation is checked for: any of `operations`, then the key ACL."""

    operations: tuple[Operation, ...]
    key: KeyOperation | None


# Source: KMS.java's assertAccess calls and KeyAuthorizationKeyProvider's doAccessCheck calls.
ASKED: Mapping[str, Asked] = {
    "CREATE": Asked((Operation.CREATE,), KeyOperation.MANAGEMENT),
    "DELETE": Asked((Operation.DELETE,), KeyOperation.MANAGEMENT),
    "ROLLOVER": Asked((Operation.ROLLOVER,), KeyOperation.MANAGEMENT),
    "SET_KEY_MATERIAL": Asked((Operation.SET_KEY_MATERIAL,), KeyOperation.MANAGEMENT),
    "INVALIDATE_CACHE": Asked((Operation.ROLLOVER, Operation.DELETE), KeyOperation.MANAGEMENT),
    "GET": Asked((Operation.GET,), KeyOperation.READ),
    "GET_METADATA": Asked((Operation.GET_METADATA,), KeyOperation.READ),
    "GET_KEYS": Asked((Operation.GET_KEYS,), None),
    "GENERATE_EEK": Asked((Operation.GENERATE_EEK,), KeyOperation.GENERATE_EEK),
    "DECRYPT_EEK": Asked((Operation.DECRYPT_EEK,), KeyOperation.DECRYPT_EEK),
    "REENCRYPT_EEK": Asked((Operation.GENERATE_EEK,), KeyOperation.GENERATE_EEK),
    "READ": Asked((), KeyOperation.READ),
    "MANAGEMENT": Asked((), KeyOperation.MANAGEMENT),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One check. `rule` as the audit log has it; `source` is FILE:LINE or the policy's zone, `value` what stands there.

    Both are None where a default decides.
    """

    check: Literal["operation", "key"]
    allowed: bool
    rule: str
    source: str | None
    value: str | None

    def to_json(self) -> dict[str, Any]:
        """Every field, None as null."""
        return {name: getattr(self, name) for name in ("check", "allowed", "rule", "source", "value")}


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer: allowed when every step is."""

    subject: Subject
    operation: str
    key: str
    groups: frozenset[str]
    steps: tuple[Step, ...]

    @property
    def allowed(self) -> bool:
        """Whether the server would do it."""
        return all(step.allowed for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """`{"user", "real_user", "groups", "operation", "key", "allowed", "steps"}`."""
        return {
            "user": self.subject.user,
            "real_user": self.subject.real_user,
            "groups": sorted(self.groups),
            "operation": self.operation,
            "key": self.key,
            "allowed": self.allowed,
            "steps": [step.to_json() for step in self.steps],
        }


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """A policy with its number (0 for a document that nobody published) and how it is called."""

    policy: Policy
    revision: int
    label: str


class Explainer:
    """Answers questions about one ACL file and at most one policy."""

    def __init__(
        self,
        document: AclDocument,
        in_force: PolicyInForce | None,
        groups_of: Callable[[str], frozenset[str]] | None = None,
    ) -> None:
        self._document = document
        self._in_force = in_force
        self._groups_of = groups_of or document.groups_of
        self._access = AccessRules(document.acls, self._groups_of, key_authorization=document.key_authorization)
        if in_force is not None:
            text = canonical_json(in_force.policy)
            digest = hashlib.sha256(text).hexdigest()
            self._access.use_published(read_published(PolicyRevision(in_force.revision, text, digest, "", 0)))

    def explain(self, subject: Subject, operation: str, key: str, acl_name: str | None = None) -> Explanation:
        """What becomes of `operation` (one of ASKED) on a key whose `key.acl.name` is `acl_name`, by default its name.

        Raises InputError for another operation.
        """
        asked = ASKED.get(operation)
        if asked is None:
            raise InputError(f"there is no operation {operation}", hint=f"ask about one of {', '.join(ASKED)}")
        steps = []
        if asked.operations:
            steps.append(self._operation_step(subject, asked.operations, key))
        if asked.key is not None:
            decision = self._access.decide_key(subject, key, acl_name or key, asked.key)
            steps.append(self._step("key", decision, key, asked.key))
        return Explanation(subject, operation, key, self._groups_of(subject.user), tuple(steps))

    def _operation_step(self, subject: Subject, operations: tuple[Operation, ...], key: str) -> Step:
        if operations == (Operation.GET,):
            decision = self._access.decide_material(subject, key)
            return self._step("operation", decision, key, None)
        decisions = [self._access.decide_operation(subject, operation) for operation in operations]
        return self._step("operation", next((d for d in decisions if d.allowed), decisions[0]), key, None)

    def _step(
        self, check: Literal["operation", "key"], decision: Decision, key: str, operation: KeyOperation | None
    ) -> Step:
        source, value = self._source(decision.rule, key, operation)
        return Step(check, decision.allowed, decision.rule, source, value)

    def _source(self, rule: str, key: str, operation: KeyOperation | None) -> tuple[str | None, str | None]:
        if rule.startswith("policy:"):
            return self._policy_source(key, operation)
        name = rule.removeprefix(f"{FILE_NAME}:")
        if name in self._document.conf:
            return self._document.place(name), self._document.conf.find_untrimmed(name)
        # The key has lines of its own, and none of them is for this operation.
        own = next((line for line in self._document.lines if line.startswith(f"{name}.")), None)
        return (self._document.place(own), None) if own is not None else (None, None)

    def _policy_source(self, key: str, operation: KeyOperation | None) -> tuple[str | None, str | None]:
        assert self._in_force is not None, "a policy decided"
        zone = self._zone_of(key)
        label = f"{self._in_force.label}: {zone.path}"
        if operation is None:
            return label, "nobody is given material"
        grant = key_grants(self._in_force.policy)[key].get(KeyOp(operation.value))
        return label, _spelled(grant) if grant is not None else "nobody"

    def _zone_of(self, key: str) -> ZonePolicy:
        assert self._in_force is not None, "a policy decided"
        return next(zone for zone in self._in_force.policy.zones if zone.key == key)


def _spelled(grant: Grant) -> str:
    names = ["*"] if grant.everyone else []
    names += sorted(grant.users) + [f"@{group}" for group in sorted(grant.groups)]
    return ", ".join(names) or "nobody"
