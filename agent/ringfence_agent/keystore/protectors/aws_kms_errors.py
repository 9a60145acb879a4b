"""What AWS KMS's error codes mean for a key store, and what to do about each. Pure.

Two kinds (`zones.errors`): *unavailable*, when the same call may do later (throttling, a failure of AWS's, the network,
credentials that are not there yet or ran out), and *refused*, when it will not until somebody changes something. Each
has a `Reason`, names the key and the fix, and carries nothing of the answer but a code that looks like one.

Source of the codes: the KMS API reference, "Common errors" and the errors of Encrypt, Decrypt, ReEncrypt, DescribeKey,
GetKeyPolicy and ListGrants.
"""

from __future__ import annotations

import datetime
import enum
import re
from dataclasses import dataclass

from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9.]{0,79}")
# AWS sends some codes with the namespace of the service before them.
_NAMESPACE = "#"


class Reason(enum.StrEnum):
    """The word for what stood in the way: `reason` of the errors made here."""

    # refused
    DISABLED = "disabled"
    PENDING_DELETION = "pending_deletion"
    PENDING_IMPORT = "pending_import"
    UNUSABLE_STATE = "unusable_state"
    WRONG_KEY = "wrong_key"
    WRONG_CLUSTER = "wrong_cluster"
    NOT_FOUND = "not_found"
    ACCESS_DENIED = "access_denied"
    UNFIT_KEY = "unfit_key"
    CREDENTIALS_REFUSED = "credentials_refused"
    REQUEST_REFUSED = "request_refused"
    # unavailable
    NO_CREDENTIALS = "no_credentials"
    CREDENTIALS_EXPIRED = "credentials_expired"
    THROTTLED = "throttled"
    NO_CONNECTION = "no_connection"
    DEADLINE = "deadline"
    AWS_FAILED = "aws_failed"
    BAD_ANSWER = "bad_answer"


_REASONS = {
    "DisabledException": Reason.DISABLED,
    "KMSInvalidStateException": Reason.UNUSABLE_STATE,
    "IncorrectKeyException": Reason.WRONG_KEY,
    "NotFoundException": Reason.NOT_FOUND,
    "InvalidArnException": Reason.NOT_FOUND,
    "InvalidKeyUsageException": Reason.UNFIT_KEY,
    "UnsupportedOperationException": Reason.UNFIT_KEY,
    "AccessDeniedException": Reason.ACCESS_DENIED,
    "AccessDenied": Reason.ACCESS_DENIED,
    "NotAuthorized": Reason.ACCESS_DENIED,
    "UnrecognizedClientException": Reason.CREDENTIALS_REFUSED,
    "InvalidClientTokenId": Reason.CREDENTIALS_REFUSED,
    "InvalidSignatureException": Reason.CREDENTIALS_REFUSED,
    "SignatureDoesNotMatch": Reason.CREDENTIALS_REFUSED,
    "IncompleteSignature": Reason.CREDENTIALS_REFUSED,
    "IncompleteSignatureException": Reason.CREDENTIALS_REFUSED,
    "MissingAuthenticationToken": Reason.CREDENTIALS_REFUSED,
    "MissingAuthenticationTokenException": Reason.CREDENTIALS_REFUSED,
    "OptInRequired": Reason.CREDENTIALS_REFUSED,
    "ExpiredToken": Reason.CREDENTIALS_EXPIRED,
    "ExpiredTokenException": Reason.CREDENTIALS_EXPIRED,
    "RequestExpired": Reason.CREDENTIALS_EXPIRED,
    "Throttling": Reason.THROTTLED,
    "ThrottlingException": Reason.THROTTLED,
    "ThrottledException": Reason.THROTTLED,
    "TooManyRequestsException": Reason.THROTTLED,
    "RequestLimitExceeded": Reason.THROTTLED,
    "LimitExceededException": Reason.THROTTLED,
    "SlowDown": Reason.THROTTLED,
    "KMSInternalException": Reason.AWS_FAILED,
    "KeyUnavailableException": Reason.AWS_FAILED,
    "DependencyTimeoutException": Reason.AWS_FAILED,
    "CloudHsmClusterInvalidConfigurationException": Reason.AWS_FAILED,
    "InternalFailure": Reason.AWS_FAILED,
    "ServiceUnavailable": Reason.AWS_FAILED,
    "ServiceUnavailableException": Reason.AWS_FAILED,
    "RequestTimeout": Reason.AWS_FAILED,
}


@dataclass(frozen=True, slots=True)
class Call:
    """One operation of AWS's and what it is about. `key` is a key's ARN, id or alias, or what else is asked for;
    `source` is the other key of a ReEncrypt.
    """

    operation: str
    key: str
    region: str
    service: str = "kms"
    source: str | None = None

    @property
    def action(self) -> str:
        """What a policy calls it."""
        if self.operation == "ReEncrypt":
            return "kms:ReEncryptFrom or kms:ReEncryptTo"
        return f"{self.service}:{self.operation}"


def error_of_code(code: object, status: int, call: Call) -> ProtectorRefusedError | ProtectorUnavailableError:
    """The error for a code and an HTTP status that AWS answered with; an unknown code counts by its status."""
    text = code.rpartition(_NAMESPACE)[2] if isinstance(code, str) else ""
    word = text if _CODE.fullmatch(text) else "no error code"
    reason = _REASONS.get(word)
    if reason is None:
        reason = Reason.THROTTLED if status == 429 else Reason.AWS_FAILED if status >= 500 else Reason.REQUEST_REFUSED
    return _UNAVAILABLE[reason](call, word) if reason in _UNAVAILABLE else _refused(reason, call, word, status)


def error_of_state(
    state: str | None, deletion: datetime.datetime | None, call: Call
) -> ProtectorRefusedError | ProtectorUnavailableError:
    """The error for a key that its state lets nobody use; `state` as DescribeKey says it, None where it may not."""
    name = f"AWS KMS key {call.key}"
    arguments = f"--region {call.region} --key-id {call.key}"
    if state == "Disabled":
        return _disabled(call)
    if state in ("PendingDeletion", "PendingReplicaDeletion"):
        when = f" on {deletion:%Y-%m-%d}" if deletion is not None else ""
        return ProtectorRefusedError(
            f"{name} is to be deleted{when}, and every key of this store with it",
            hint="cancel its deletion and enable it again, or move the store to another protector from a backup",
            command=f"aws kms cancel-key-deletion {arguments} && aws kms enable-key {arguments}",
            reason=Reason.PENDING_DELETION,
        )
    if state == "PendingImport":
        return ProtectorRefusedError(
            f"{name} has no key material: it expired, was deleted or was never imported",
            hint="import the same material again; other material opens nothing of this store",
            command=f"aws kms get-parameters-for-import {arguments} "
            "--wrapping-algorithm RSAES_OAEP_SHA_256 --wrapping-key-spec RSA_4096",
            reason=Reason.PENDING_IMPORT,
        )
    if state in ("Unavailable", "Updating", "Creating"):
        return ProtectorUnavailableError(
            f"{name} is in the state {state} now",
            hint="wait, and look at its custom key store if it has one (CloudHSM cluster, external key manager)",
            reason=Reason.AWS_FAILED,
        )
    return ProtectorRefusedError(
        f"{name} is in a state in which it cannot be used",
        hint="look at its state; allowed kms:DescribeKey, this server names it",
        command=f"aws kms describe-key {arguments}",
        reason=Reason.UNUSABLE_STATE,
    )


def wrong_key(call: Call, why: str) -> ProtectorRefusedError:
    """For what was sealed, or answered, with another key than the one that was named."""
    return ProtectorRefusedError(
        f"{why} another AWS KMS key than {call.key}",
        hint="name in aws_kms.key the key that the store was protected with (`ringfence keystore slots` shows it), "
        "and keys that it moves away from in aws_kms.former_keys",
        reason=Reason.WRONG_KEY,
    )


def no_credentials(call: Call) -> ProtectorUnavailableError:
    """For when the SDK found none."""
    return ProtectorUnavailableError(
        f"no AWS credentials are found to call {call.action} with",
        hint="give this machine or container a role, or its user a profile (AWS_PROFILE, ~/.aws); "
        "`aws sts get-caller-identity` shows who is found",
        reason=Reason.NO_CREDENTIALS,
    )


def no_connection(call: Call, what: str) -> ProtectorUnavailableError:
    """For a connection that did not come about or broke; `what` says so in a few words."""
    return ProtectorUnavailableError(
        f"AWS {call.service.upper()} in {call.region} does not answer {call.operation}: {what}",
        hint="check the route to AWS: NAT or a VPC endpoint, security groups, DNS, a proxy (HTTPS_PROXY), "
        "aws_kms.region and aws_kms.endpoint",
        reason=Reason.NO_CONNECTION,
    )


def too_late(call: Call, deadline_s: float) -> ProtectorUnavailableError:
    """For an operation that was not done when its time was over."""
    return ProtectorUnavailableError(
        f"AWS {call.service.upper()} in {call.region} did not answer {call.operation} within {deadline_s:g} s",
        hint="check the route to AWS; aws_kms.deadline says how long an operation may take",
        reason=Reason.DEADLINE,
    )


def bad_answer(call: Call) -> ProtectorUnavailableError:
    """For an answer that is none of KMS's."""
    return ProtectorUnavailableError(
        f"what answered {call.operation} in place of AWS {call.service.upper()} does not speak its protocol",
        hint="check aws_kms.endpoint and the proxy (HTTPS_PROXY)",
        reason=Reason.BAD_ANSWER,
    )


def _disabled(call: Call) -> ProtectorRefusedError:
    return ProtectorRefusedError(
        f"AWS KMS key {call.key} is disabled",
        hint="enable it, once it is known who disabled it and why",
        command=f"aws kms enable-key --region {call.region} --key-id {call.key}",
        reason=Reason.DISABLED,
    )


def _refused(reason: Reason, call: Call, code: str, status: int) -> ProtectorRefusedError:
    if reason is Reason.DISABLED:
        return _disabled(call)
    if reason is Reason.WRONG_KEY:
        return wrong_key(call, "this was sealed with")
    message, hint, command = _REFUSALS[reason]
    key = f"{call.source} or {call.key}" if call.source is not None else call.key
    facts = {"action": call.action, "key": key, "region": call.region, "code": code, "status": status}
    return ProtectorRefusedError(
        message.format(**facts), hint=hint, command=command.format(**facts) if command else None, reason=reason
    )


_REFUSALS: dict[Reason, tuple[str, str, str | None]] = {
    Reason.NOT_FOUND: (
        "AWS KMS in {region} has no key {key}",
        "check aws_kms.key, aws_kms.region and whose account the credentials are of: a key of another account needs "
        "its whole ARN. A key that was deleted is gone for good, and what it sealed with it",
        "aws sts get-caller-identity",
    ),
    Reason.ACCESS_DENIED: (
        "AWS does not let this server call {action} on {key}",
        "its role, or another account's key, lacks the permission; the command prints the statement to add",
        "ringfence doctor aws-kms",
    ),
    Reason.UNFIT_KEY: (
        "AWS KMS key {key} is not for encrypting and decrypting ({code})",
        "make a symmetric key: SYMMETRIC_DEFAULT with the usage ENCRYPT_DECRYPT",
        "aws kms create-key --region {region} --description 'Ringfence key store'",
    ),
    Reason.CREDENTIALS_REFUSED: (
        "AWS does not take this server's credentials ({code})",
        "they were withdrawn, belong to another partition, or this machine's clock is wrong (`ringfence doctor`)",
        "aws sts get-caller-identity",
    ),
    Reason.UNUSABLE_STATE: (
        "AWS KMS key {key} is in a state in which it cannot be used",
        "look at its state",
        "aws kms describe-key --region {region} --key-id {key}",
    ),
    Reason.REQUEST_REFUSED: (
        "AWS refused {action} on {key} ({code}, HTTP status {status})",
        "check aws_kms.key, aws_kms.region and aws_kms.endpoint",
        None,
    ),
}


def _throttled(call: Call, code: str) -> ProtectorUnavailableError:
    return ProtectorUnavailableError(
        f"AWS KMS in {call.region} throttles {call.operation} ({code})",
        hint="all callers of the account share one rate in a region, S3 and EBS too: raise the quota "
        "'Cryptographic operations (symmetric) request rate', or find who uses it up",
        reason=Reason.THROTTLED,
    )


def _expired(call: Call, code: str) -> ProtectorUnavailableError:
    return ProtectorUnavailableError(
        f"this server's AWS credentials have expired, says AWS of {call.operation} ({code})",
        hint="a role's are renewed by themselves; those of a profile or the environment somebody must renew",
        reason=Reason.CREDENTIALS_EXPIRED,
    )


def _failed(call: Call, code: str) -> ProtectorUnavailableError:
    return ProtectorUnavailableError(
        f"AWS {call.service.upper()} in {call.region} failed at {call.operation} ({code})",
        hint="wait; AWS's health dashboard, or the key's custom key store if it has one, says more",
        reason=Reason.AWS_FAILED,
    )


_UNAVAILABLE = {Reason.THROTTLED: _throttled, Reason.CREDENTIALS_EXPIRED: _expired, Reason.AWS_FAILED: _failed}
