"""Whether this server's role can protect a key store with an AWS KMS key, and who else could open it.

It asks AWS as the server would: describes the key, seals and opens 32 random bytes of its own with an encryption
context, and tries another context, which must fail. It reads the key's policy and grants where it may. Nothing is
changed. When something is missing, `statements` is what to add to the key's policy, exactly.

One check stands on what another found, so they run in the order of CHECKS.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ringfence_agent.doctor.aws_caller import Caller, parse_caller
from ringfence_agent.doctor.aws_key_policy import limits_to_cluster, openers
from ringfence_agent.keystore.protectors.aws_kms import encryption_context
from ringfence_agent.keystore.protectors.aws_kms_answers import KeyDescription
from ringfence_agent.keystore.protectors.aws_kms_api import AwsKms
from ringfence_agent.keystore.protectors.aws_kms_errors import Call, Reason, error_of_state
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_zones.aws_names import find_key_arn
from ringfence_zones.errors import ProtectorRefusedError, RingfenceError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.named_checks import Check, NotChecked, finding, finding_of
from ringfence_zones.secret import Secret

_PURPOSE = "preflight"
_OTHER_PURPOSE = "preflight-other"
_UNNAMED_CLUSTER = "preflight"
_OPENING = {"Decrypt", "ReEncryptFrom"}
_SHOWN_OPENERS = 5
# The instance profiles that EMR's own tools make.
_NODES = "EMR_EC2_"

T = TypeVar("T")


@dataclass(slots=True)
class KeyPreflight:
    """The key that is looked at, and what came out so far. `cluster` is None when nobody named it.

    `is_moving` tells that the store moves to this key from another, which takes one permission more.
    """

    kms: AwsKms
    key: str
    cluster: str | None
    is_moving: bool = False
    caller: Caller | None = None
    description: KeyDescription | None = None
    missing: list[str] = field(default_factory=list)
    sealed: bytes | None = None

    @property
    def arn(self) -> str:
        """The key's ARN, as far as it is known."""
        return self.description.arn if self.description is not None else self.key

    @property
    def is_pinned(self) -> bool:
        """Whether `arn` is a key's own ARN, as the server uses it."""
        named = find_key_arn(self.arn)
        return named is not None and not named.is_alias

    @property
    def is_foreign(self) -> bool:
        """Whether the key belongs to another account than the caller."""
        named = find_key_arn(self.arn)
        return self.caller is not None and named is not None and named.account != self.caller.account


def check_caller(preflight: KeyPreflight) -> Iterator[Finding]:
    """Whether there are credentials, and whose they are."""
    try:
        caller = parse_caller(preflight.kms.caller_arn())
    except RingfenceError as error:
        yield finding_of(error, Rule.AWS_KMS, "this caller")
        return
    if caller is None:
        raise NotChecked("AWS names this caller in a form that is not known here")
    if caller.role_name is not None:
        try:
            caller = caller.with_arn(preflight.kms.role_arn(caller.role_name))
        except RingfenceError:
            pass  # few roles may look at themselves; `Caller.is_whole` tells
    preflight.caller = caller
    if caller.role_name is not None and caller.role_name.startswith(_NODES):
        message = f"{caller.role_name} is the role of every node of an EMR cluster: each job is a user of the key"
        hint = "run the key server on a machine with a role of its own, or accept and write down that jobs are trusted"
        yield finding(Severity.WARN, Rule.AWS_KMS_OPEN, caller.arn, message, hint)


def check_key(preflight: KeyPreflight) -> Iterator[Finding]:
    """Whether the key is one for encrypting, enabled, and stays so."""
    try:
        description = preflight.kms.describe(preflight.key)
    except ProtectorRefusedError as error:
        if error.reason != Reason.ACCESS_DENIED:
            yield finding_of(error, Rule.AWS_KMS, preflight.key)
            return
        preflight.missing.append("kms:DescribeKey")
        yield _denied(preflight, "kms:DescribeKey", "an alias cannot be looked up, nor the key's state be named")
        return
    except RingfenceError as error:
        yield finding_of(error, Rule.AWS_KMS, preflight.key)
        return
    preflight.description = description
    yield from _kind_problems(preflight, description)
    if description.state != "Enabled":
        call = Call("Encrypt", description.arn, preflight.kms.region)
        problem = error_of_state(description.state, description.deletion, call)
        yield finding_of(problem, Rule.AWS_KMS, description.arn)
    if description.material_expires is not None:
        message = f"the key's material was imported and expires at {description.material_expires:%Y-%m-%d %H:%M}Z"
        hint = "import it without expiry, or note the day: nothing of the store opens after it"
        yield finding(Severity.WARN, Rule.AWS_KMS, description.arn, message, hint)


def _kind_problems(preflight: KeyPreflight, description: KeyDescription) -> Iterator[Finding]:
    hint = "make a symmetric key of your own: SYMMETRIC_DEFAULT with the usage ENCRYPT_DECRYPT"
    command = f"aws kms create-key --region {preflight.kms.region} --description 'Ringfence key store'"
    if (description.spec, description.usage) != ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"):
        message = f"the key is a {description.spec} for {description.usage}"
        yield finding(Severity.ERROR, Rule.AWS_KMS, description.arn, message, hint, command)
    if description.manager == "AWS":
        message = "the key is managed by AWS: who may use it cannot be limited to this server"
        yield finding(Severity.ERROR, Rule.AWS_KMS, description.arn, message, hint, command)
    named = find_key_arn(preflight.key)
    found = find_key_arn(description.arn)
    if found is None or found.region != preflight.kms.region or (named and named.account != found.account):
        message = f"{preflight.key} is answered for by {description.arn}, in another account or region"
        yield finding(
            Severity.ERROR, Rule.AWS_KMS, description.arn, message, "check aws_kms.endpoint and the key's ARN"
        )


def check_round_trip(preflight: KeyPreflight) -> Iterator[Finding]:
    """Whether this server may seal and open under the contexts that it uses."""
    if not preflight.is_pinned:
        raise NotChecked(f"which key {preflight.key} is could not be found out")
    plain = Secret(secrets.token_bytes(32))
    context = _context(preflight, _PURPOSE)
    try:
        (preflight.sealed,) = preflight.kms.encrypt(preflight.arn, [(plain, context)])
    except RingfenceError as error:
        yield _refusal(preflight, error, "kms:Encrypt", "no key can be made or rolled")
        raise NotChecked("opening: nothing could be sealed to try it with") from None
    try:
        (opened,) = preflight.kms.decrypt(preflight.arn, [(preflight.sealed, context)])
    except RingfenceError as error:
        yield _refusal(preflight, error, "kms:Decrypt", "no key can be opened")
        return
    except SealBrokenError:
        opened = Secret(b"")
    if opened != plain:
        message = "what it sealed does not open again as it was"
        yield finding(Severity.ERROR, Rule.AWS_KMS, preflight.arn, message, "check aws_kms.endpoint: this is not KMS")


def check_context(preflight: KeyPreflight) -> Iterator[Finding]:
    """Whether a seal opens under its own context only."""
    if preflight.sealed is None or "kms:Decrypt" in preflight.missing:
        raise NotChecked("nothing could be sealed and opened")
    try:
        preflight.kms.decrypt(preflight.arn, [(preflight.sealed, _context(preflight, _OTHER_PURPOSE))])
    except SealBrokenError:
        return
    except RingfenceError as error:
        yield finding_of(error, Rule.AWS_KMS, preflight.arn)
        return
    message = "a seal opened under an encryption context that is not its own"
    yield finding(Severity.ERROR, Rule.AWS_KMS, preflight.arn, message, "check aws_kms.endpoint: this is not KMS")


def check_policy(preflight: KeyPreflight) -> Iterator[Finding]:
    """Whether the key's policy opens more than this server's seals, or to others."""
    text = _where_allowed(lambda: preflight.kms.key_policy(preflight.arn), "kms:GetKeyPolicy", "policy")
    try:
        policy = json.loads(text)
    except ValueError:
        raise NotChecked("the key's policy is not JSON") from None
    own = preflight.caller.arn if preflight.caller is not None else ""
    others = sorted(openers(policy) - {own})
    if "*" in others:
        message = "the key's policy lets everybody open what it seals"
        yield finding(Severity.ERROR, Rule.AWS_KMS_OPEN, preflight.arn, message, "name principals, or add a condition")
        others.remove("*")
    if others:
        shown = ", ".join(others[:_SHOWN_OPENERS]) + (" and others" if len(others) > _SHOWN_OPENERS else "")
        message = f"the key's policy also lets these open what it seals: {shown}"
        hint = "a key store needs no other user of its key; keep those out who do not restore it"
        yield finding(Severity.WARN, Rule.AWS_KMS_OPEN, preflight.arn, message, hint)
    if preflight.cluster is not None and own and not limits_to_cluster(policy, own, preflight.cluster):
        message = f"{own} may open everything that the key sealed, another cluster's keys too"
        hint = "put the condition of the statement below on what the key's policy allows this role"
        yield finding(Severity.WARN, Rule.AWS_KMS_OPEN, preflight.arn, message, hint)


def check_grants(preflight: KeyPreflight) -> Iterator[Finding]:
    """Whether grants let others open what the key seals."""
    grants = _where_allowed(lambda: preflight.kms.grants(preflight.arn), "kms:ListGrants", "grants")
    own = preflight.caller.arn if preflight.caller is not None else ""
    others = sorted({grant.grantee for grant in grants if _OPENING & set(grant.operations) and grant.grantee != own})
    if others:
        shown = ", ".join(others[:_SHOWN_OPENERS]) + (" and others" if len(others) > _SHOWN_OPENERS else "")
        message = f"grants let these open what the key seals: {shown}"
        command = f"aws kms list-grants --region {preflight.kms.region} --key-id {preflight.arn}"
        yield finding(
            Severity.WARN, Rule.AWS_KMS_OPEN, preflight.arn, message, "revoke those without a reason", command
        )


CHECKS: tuple[Check[KeyPreflight], ...] = (
    Check("caller", "credentials, and whose they are", check_caller),
    Check("key", "the key: symmetric, for encrypting, enabled, in this account and region", check_key),
    Check("round_trip", "seals and opens under an encryption context", check_round_trip),
    Check("context", "refuses another encryption context", check_context),
    Check("policy", "the key's policy: who else could open what it seals", check_policy),
    Check("grants", "the key's grants: likewise", check_grants),
)


def key_policy_statements(preflight: KeyPreflight) -> list[dict[str, Any]]:
    """The statements that let this caller do all that the server needs; none when nothing is missing.

    DescribeKey has no encryption context, so it stands apart from what the cluster's condition limits.
    """
    if not preflight.missing or preflight.caller is None:
        return []
    principal = {"AWS": preflight.caller.arn}
    use: dict[str, Any] = {
        "Sid": "RingfenceSealsAndOpens",
        "Effect": "Allow",
        "Principal": principal,
        "Action": ["kms:Encrypt", "kms:Decrypt", *(["kms:ReEncryptTo"] if preflight.is_moving else [])],
        "Resource": "*",
    }
    if preflight.cluster is not None:
        use["Condition"] = {"StringEquals": {"kms:EncryptionContext:ringfence:cluster": preflight.cluster}}
    look = {
        "Sid": "RingfenceLooks",
        "Effect": "Allow",
        "Principal": principal,
        "Action": "kms:DescribeKey",
        "Resource": "*",
    }
    return [use, look]


def role_policy_statements(preflight: KeyPreflight) -> list[dict[str, Any]]:
    """What the role's own policy needs besides: AWS asks both when the key is another account's."""
    if not preflight.is_foreign:
        return []
    return [
        {name: value for name, value in statement.items() if name != "Principal"} | {"Resource": preflight.arn}
        for statement in key_policy_statements(preflight)
    ]


def notes(preflight: KeyPreflight) -> Iterator[str]:
    """What the statements leave open."""
    if preflight.caller is not None and not preflight.caller.is_whole:
        name = preflight.caller.role_name
        yield f"if the role has a path, write it into its ARN: aws iam get-role --role-name {name} --query Role.Arn"
    if preflight.cluster is None:
        yield "with --cluster NAME the statement is limited to what that cluster sealed"


def _where_allowed(read: Callable[[], T], action: str, what: str) -> T:
    try:
        return read()
    except RingfenceError as error:
        if isinstance(error, ProtectorRefusedError) and error.reason == Reason.ACCESS_DENIED:
            raise NotChecked(f"the key's {what}: this caller may not call {action}; an administrator may") from None
        raise NotChecked(f"the key's {what}: {error.message}") from None


def _context(preflight: KeyPreflight, purpose: str) -> dict[str, str]:
    return encryption_context(preflight.cluster or _UNNAMED_CLUSTER, _PURPOSE, 0, purpose)


def _denied(preflight: KeyPreflight, action: str, consequence: str) -> Finding:
    who = preflight.caller.arn if preflight.caller is not None else "this caller"
    message = f"{who} may not call {action}: {consequence}"
    hint = "add the statement below to the key's policy; a role's own policy or an organisation's can forbid it too"
    command = (
        f"aws kms get-key-policy --region {preflight.kms.region} --key-id {preflight.arn} --policy-name default"
        " --query Policy --output text"
    )
    return finding(Severity.ERROR, Rule.AWS_KMS_PERMISSION, preflight.arn, message, hint, command)


def _refusal(preflight: KeyPreflight, error: RingfenceError, action: str, consequence: str) -> Finding:
    if isinstance(error, ProtectorRefusedError) and error.reason == Reason.ACCESS_DENIED:
        preflight.missing.append(action)
        return _denied(preflight, action, consequence)
    return finding_of(error, Rule.AWS_KMS, preflight.arn)
