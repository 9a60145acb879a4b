"""Whether EMR's roles may use the KMS keys that a security configuration names, before a cluster finds out.

EMR says nothing of it when a configuration or a cluster is created: a node that may not use its key ends the cluster
up to an hour later, with a sentence about something else. So each key is looked at here: where it is, what state and
kind it is of, and for each role what the key's policy, the key's grants and the role's own policies say together.

Rules:

1. AWS decides over a role's own policies (SimulatePrincipalPolicy, which knows boundaries and the organisation's
   policies too); over the key's policy `key_policy` does, for AWS has no simulation of that for roles.
2. An action counts as allowed in the key's own account by the key's policy that names the role, by one that leaves it
   to the account when the role's own policies allow it, or by a grant; in another account both sides must. A denial
   anywhere wins.
3. What cannot be read or decided is a finding of its own, never taken for allowed.
4. Nothing is changed here: `proposal` says what the key's policy would be, `key_policy_change` changes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ringfence_bootstrap.account.failures import DENIED, NOT_FOUND
from ringfence_bootstrap.account.key_calls import (
    KeyCalls,
    KeyFacts,
    KeyGrant,
    RoleArn,
    find_role_arn,
    parse_policy,
)
from ringfence_bootstrap.account.key_needs import KeyDemand, Need, Roles, demands, needs, spelled_uses
from ringfence_bootstrap.account.key_policy import (
    GRANT_ACTIONS,
    MAX_POLICY_BYTES,
    USER_ACTIONS,
    WAL_ACTIONS,
    WAL_SERVICE,
    Answer,
    Question,
    allows_service,
    ask,
    key_users,
    volume_grants,
    wal_service,
    with_statements,
)
from ringfence_bootstrap.security_configuration.document import SecurityConfiguration
from ringfence_bootstrap.security_configuration.keys import KeyUse
from ringfence_zones.aws_names import KeyArn, find_key_arn
from ringfence_zones.errors import AwsError
from ringfence_zones.findings import Finding, Rule, Severity

_SYMMETRIC = ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT")
_READY = "Enabled"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A key whose policy lacks statements. `before` is the policy as AWS gave it; `statements` is what is added."""

    key: KeyArn
    before: str
    statements: tuple[dict[str, Any], ...]

    @property
    def after(self) -> str:
        """The policy with the statements in it, as JSON text."""
        policy = parse_policy(self.before, f"the policy of {self.key.text}")
        changed = with_statements(policy, self.statements)
        text = json.dumps(changed, indent=2)
        # Blanks count.
        return text if len(text.encode()) <= MAX_POLICY_BYTES else json.dumps(changed, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found, and what would mend it. `own_policies` are statements for roles of other accounts than the
    key's, by role.
    """

    findings: tuple[Finding, ...]
    proposals: tuple[Proposal, ...]
    own_policies: Mapping[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(slots=True)
class _Seen:
    """One key as it was found. What could not be read is None."""

    demand: KeyDemand
    arn: KeyArn
    policy_text: str | None = None
    grants: list[KeyGrant] | None = None
    lacking: list[Need] = field(default_factory=list)
    lacking_own: list[Need] = field(default_factory=list)
    lacks_wal: bool = False

    @property
    def policy(self) -> dict[str, Any] | None:
        return None if self.policy_text is None else parse_policy(self.policy_text, f"the policy of {self.arn.text}")


def check_permissions(calls: KeyCalls, document: SecurityConfiguration, roles: Roles, region: str) -> Preflight:
    """Looks at every key of the document. Raises AwsError for what says nothing of a key, such as no credentials."""
    check = _Check(calls, document, roles, region)
    for demand in demands(document):
        check.look_at(demand)
    return check.outcome()


class _Check:
    def __init__(self, calls: KeyCalls, document: SecurityConfiguration, roles: Roles, region: str) -> None:
        self._calls = calls
        self._document = document
        self._roles = roles
        self._region = region
        self._findings: list[Finding] = []
        self._seen: list[_Seen] = []
        self._demand: KeyDemand | None = None

    def outcome(self) -> Preflight:
        proposals = [found for seen in self._seen if (found := proposal_for(seen)) is not None]
        return Preflight(tuple(self._findings), tuple(proposals), _own_policies(self._seen))

    def look_at(self, demand: KeyDemand) -> None:
        self._demand = demand
        arn = self._find_usable(demand)
        if arn is None:
            return
        seen = _Seen(demand, arn)
        self._seen.append(seen)
        self._read(seen)
        for need in needs(demand, self._roles, self._region):
            self._judge(seen, need)
        self._judge_wal(seen)

    def _find_usable(self, demand: KeyDemand) -> KeyArn | None:
        """The key's own ARN; None when no role could use it, whatever it is allowed."""
        named = find_key_arn(demand.arn)
        if named is None:
            self._note(
                Severity.ERROR, Rule.EMR_KEY, "is no ARN of a KMS key", "write arn:aws:kms:REGION:ACCOUNT:key/ID"
            )
            return None
        if named.region != self._region:
            self._note(
                Severity.ERROR,
                Rule.EMR_KEY,
                f"is in {named.region}, and the cluster in {self._region} cannot use it",
                f"name a key of {self._region}; a multi-Region key has an ARN of its own there",
            )
            return None
        try:
            facts = self._calls.describe_key(named)
        except AwsError as error:
            return self._undescribed(named, error)
        return find_key_arn(facts.arn) if self._is_fit(demand, facts) else None

    def _undescribed(self, named: KeyArn, error: AwsError) -> KeyArn | None:
        if error.code in NOT_FOUND:
            self._note(
                Severity.ERROR,
                Rule.EMR_KEY,
                "does not exist",
                "check the ARN: a key that was deleted is gone, with everything that was encrypted under it",
            )
            return None
        if error.code in DENIED:
            self._unchecked("its state and kind", error)
            return None if named.is_alias else named
        raise error

    def _is_fit(self, demand: KeyDemand, facts: KeyFacts) -> bool:
        if facts.state != _READY:
            self._note(Severity.ERROR, Rule.EMR_KEY, *_of_state(facts, self._region))
            return False
        if (facts.spec, facts.usage) != _SYMMETRIC:
            message = f"is of kind {facts.spec or '?'} for {facts.usage or '?'}, and EMR needs a symmetric one"
            self._note(Severity.ERROR, Rule.EMR_KEY, message, "make one: SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT")
            return False
        if facts.manager == "AWS" and demand.must_be_own:
            message = f"is managed by AWS, and serves not for {spelled_uses(demand.uses)}"
            self._note(Severity.ERROR, Rule.EMR_KEY, message, "make a key of your own: only its policy can be written")
            return False
        return True

    def _read(self, seen: _Seen) -> None:
        try:
            seen.policy_text = self._calls.key_policy(seen.arn)
        except AwsError as error:
            if error.code not in DENIED:
                raise
            self._unchecked("its policy", error)
        try:
            seen.grants = self._calls.grants(seen.arn)
        except AwsError as error:
            if error.code not in DENIED:
                raise
            # Grants only ever add: without them something may be called missing that is not.
            seen.grants = None

    def _judge(self, seen: _Seen, need: Need) -> None:
        own, problem = self._own_policies_say(need, seen.arn.text)
        answers = {action: _decide(seen, need, action, own.get(action)) for action in need.actions}
        if seen.policy_text is None:
            # Said once already; what the role's own policies say is no answer by itself.
            return
        unsure = [action for action, answer in answers.items() if answer is Answer.MAYBE]
        refused = [action for action, answer in answers.items() if answer is Answer.NO]
        by = {action: _denied_by(seen, need, action, own.get(action)) for action in refused}
        missing = [action for action in refused if not by[action]]
        for who in dict.fromkeys(filter(None, by.values())):
            self._note_refused(need, [action for action in refused if by[action] == who], who)
        if missing:
            self._note_missing(seen, need, missing, own)
        elif unsure and not refused:
            self._note(
                Severity.WARN,
                Rule.EMR_KEY_PERMISSION,
                f"{need.who} {need.role.name} may use it only under conditions that are not known here:"
                f" {', '.join(unsure)} for {spelled_uses(need.uses)}",
                problem or "see the conditions of the statements that name the role; a first cluster shows it",
            )

    def _note_refused(self, need: Need, actions: Sequence[str], who: str) -> None:
        self._note(
            Severity.WARN if need.is_inferred else Severity.ERROR,
            Rule.EMR_KEY_PERMISSION,
            f"{need.who} {need.role.name} is forbidden {', '.join(actions)} {who}; {spelled_uses(need.uses)} need it",
            "take the denial away: a statement that allows it would not help",
        )

    def _note_missing(self, seen: _Seen, need: Need, missing: Sequence[str], own: Mapping[str, str]) -> None:
        is_foreign = need.role.account != seen.arn.account
        hints = []
        if not is_foreign or any(_key_side(seen, need, action) is not Answer.YES for action in missing):
            seen.lacking.append(need)
            hints.append("let the key's policy name the role: --apply adds the statement")
        if is_foreign and any(own.get(action) != "allowed" for action in missing):
            seen.lacking_own.append(need)
            hints.append("add the printed statement to the role's own policies, in its account")
        self._note(
            Severity.WARN if need.is_inferred else Severity.ERROR,
            Rule.EMR_KEY_PERMISSION,
            f"{need.who} {need.role.name} may not {', '.join(missing)}, which {spelled_uses(need.uses)} need",
            "; ".join(hints),
        )

    def _judge_wal(self, seen: _Seen) -> None:
        policy = seen.policy
        if (
            KeyUse.WAL in seen.demand.uses
            and policy is not None
            and not allows_service(policy, WAL_SERVICE, WAL_ACTIONS)
        ):
            seen.lacks_wal = True
            self._note(
                Severity.ERROR,
                Rule.EMR_KEY_PERMISSION,
                f"its policy does not let the service {WAL_SERVICE} use it",
                "let the key's policy name the service: --apply adds the statement",
            )

    def _own_policies_say(self, need: Need, key_arn: str) -> tuple[dict[str, str], str | None]:
        """Decisions by action, and what to say where there are none."""
        try:
            return self._calls.simulate(need.role, need.actions, key_arn, dict(need.facts)), None
        except AwsError as error:
            if error.code in NOT_FOUND:
                self._note(
                    Severity.ERROR,
                    Rule.EMR_KEY_PERMISSION,
                    f"{need.who} {need.role.text} does not exist, so nobody can use the key as it",
                    "check the role's name and account, or make it with `aws emr create-default-roles`",
                )
            elif error.code in DENIED:
                return {}, f"these credentials may not simulate the role's own policies: {error.hint}"
            else:
                raise
        return {}, None

    def _unchecked(self, what: str, error: AwsError) -> None:
        self._note(Severity.WARN, Rule.EMR_UNCHECKED, f"{what} could not be read", error.hint or "")

    def _note(self, severity: Severity, rule: Rule, message: str, hint: str, command: str | None = None) -> None:
        assert self._demand is not None
        path = self._document.where(self._demand.keys[0].place)
        finding = Finding(
            severity=severity,
            rule=rule,
            path=path,
            message=f"key {self._demand.arn} {message}",
            hint=hint,
            key=self._demand.arn,
            command=command,
        )
        if finding not in self._findings:
            self._findings.append(finding)


def _decide(seen: _Seen, need: Need, action: str, own: str | None) -> Answer:
    """Whether AWS would let the role do it. `own` is what the role's own policies say, None where nobody knows."""
    by_role = {"allowed": Answer.YES, "implicitDeny": Answer.NO}.get(own or "", Answer.NO if own else Answer.MAYBE)
    policy = seen.policy
    if policy is None:
        return Answer.MAYBE
    says = ask(policy, _question(seen, need, action))
    denied = max(says.denied, Answer.YES if own == "explicitDeny" else Answer.NO)
    if need.role.account == seen.arn.account:
        allowed = max(says.named, min(says.delegated, by_role), _granted(seen, need, action))
    else:
        allowed = min(max(says.named, says.delegated), by_role)
    return min(allowed, Answer(Answer.YES - denied))


def _granted(seen: _Seen, need: Need, action: str) -> Answer:
    operation = action.removeprefix("kms:")
    fitting = [each for each in seen.grants or () if each.grantee == need.role.text and operation in each.operations]
    if not fitting:
        return Answer.NO
    return Answer.MAYBE if all(each.is_conditional for each in fitting) else Answer.YES


def _question(seen: _Seen, need: Need, action: str) -> Question:
    return Question(action, need.role, seen.arn.text, dict(need.facts), need.absent)


def _key_side(seen: _Seen, need: Need, action: str) -> Answer:
    """Whether the key's policy lets a role of another account in, as far as it goes."""
    says = ask(seen.policy or {}, _question(seen, need, action))
    return max(says.named, says.delegated)


def _denied_by(seen: _Seen, need: Need, action: str, own: str | None) -> str:
    """Who forbids it, in words; empty when nobody does and it is only not allowed."""
    if own == "explicitDeny":
        return "by a policy of the role, its boundary or the organisation"
    denied = ask(seen.policy or {}, _question(seen, need, action)).denied
    return "by the key's policy" if denied is Answer.YES else ""


def proposal_for(seen: _Seen) -> Proposal | None:
    """What would be added to the key's policy; None when nothing is, or when its policy could not be read."""
    policy = seen.policy
    if policy is None or seen.policy_text is None:
        return None
    users = {need.role.text: need.role for need in seen.lacking if not need.is_for_grants}
    granters = {need.role.text: need.role for need in seen.lacking if need.is_for_grants}
    statements: list[dict[str, Any]] = []
    if users:
        statements.append(key_users(users.values()))
    if granters:
        statements.append(volume_grants(granters.values()))
    if seen.lacks_wal:
        statements.append(wal_service())
    if not statements or with_statements(policy, statements) == policy:
        return None
    return Proposal(seen.arn, seen.policy_text, tuple(statements))


def _own_policies(seen: Sequence[_Seen]) -> dict[str, dict[str, Any]]:
    """A role of another account than the key's needs both: the key's policy, and one of its own."""
    found: dict[str, dict[str, Any]] = {}
    for each in seen:
        for need in each.lacking_own:
            statement = found.setdefault(need.role.text, {"Effect": "Allow", "Action": [], "Resource": []})
            wanted = GRANT_ACTIONS if need.is_for_grants else USER_ACTIONS
            statement["Action"] += [action for action in wanted if action not in statement["Action"]]
            if each.arn.text not in statement["Resource"]:
                statement["Resource"].append(each.arn.text)
    return found


def _of_state(facts: KeyFacts, region: str) -> tuple[str, str, str | None]:
    """Message, hint and command for a key that its state lets nobody use."""
    arguments = f"--region {region} --key-id {facts.arn}"
    if facts.state == "Disabled":
        return (
            "is disabled",
            "enable it, once it is known who disabled it and why",
            f"aws kms enable-key {arguments}",
        )
    if facts.state in ("PendingDeletion", "PendingReplicaDeletion"):
        when = f" on {facts.deletion:%Y-%m-%d}" if facts.deletion is not None else ""
        return (
            f"is to be deleted{when}, and with it all that was encrypted under it",
            "cancel its deletion and enable it again, or name another key",
            f"aws kms cancel-key-deletion {arguments} && aws kms enable-key {arguments}",
        )
    if facts.state == "PendingImport":
        return (
            "has no key material: it expired, was deleted or was never imported",
            "import the same material again",
            None,
        )
    return (
        f"is in the state {facts.state or '?'}, in which nobody can use it",
        "wait, and look at its custom key store if it has one",
        f"aws kms describe-key {arguments}",
    )


def roles_of(document: SecurityConfiguration, instance: Sequence[RoleArn], service: Sequence[RoleArn]) -> Roles:
    """The given roles with those that the document maps for requests to S3."""
    authorization = document.authorization
    mappings = (authorization.emrfs.role_mappings if authorization and authorization.emrfs else None) or ()
    mapped = [role for each in mappings if (role := find_role_arn(each.role or "")) is not None]
    unique = {role.text: role for role in mapped}
    return Roles(tuple(instance), tuple(service), tuple(unique.values()))
