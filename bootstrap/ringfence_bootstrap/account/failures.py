"""What AWS's error codes mean to an operator of EMR, as sentences with the fix. Pure.

What AWS says in words is passed on where it tells more than its code does (EMR names the properties of a document that
it does not take): shortened, and without anything that could not be printed. No request is ever repeated in an error.

Source of the codes: "Common errors" of the API references of EMR, KMS, IAM, STS and S3, and S3's list of error codes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ringfence_zones.errors import AwsError, AwsUnavailableError

_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_MAX_SAID = 300

DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "NotAuthorized", "403"})
THROTTLED = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "LimitExceededException",
        "SlowDown",
    }
)
NOT_FOUND = frozenset(
    {"NotFoundException", "NoSuchEntity", "NoSuchEntityException", "NoSuchBucket", "NoSuchKey", "404", "NotFound"}
)
TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})
_BAD_CREDENTIALS = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidAccessKeyId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "OptInRequired",
        "AuthFailure",
    }
)
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_ELSEWHERE = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
)


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `service` and `operation` in the SDK's words; `about` is what it was about, for a sentence."""

    service: str
    operation: str
    about: str
    region: str

    @property
    def api_name(self) -> str:
        """`DescribeCluster`, as AWS's references and policies write it."""
        return "".join(word.capitalize() for word in self.operation.split("_"))

    @property
    def action(self) -> str:
        """The permission that the request needs."""
        prefix = {"emr": "elasticmapreduce"}.get(self.service, self.service)
        name = _S3_ACTIONS.get(self.operation, self.api_name) if self.service == "s3" else self.api_name
        return f"{prefix}:{name}"


# S3's permissions are not called as its requests are.
_S3_ACTIONS = {"head_object": "GetObject", "head_bucket": "ListBucket"}


def error_of_answer(code: object, status: int, said: object, call: Call) -> AwsError:
    """The error for a code, an HTTP status and a message that AWS answered with."""
    word = code if isinstance(code, str) and _CODE.fullmatch(code) else "no error code"
    if word in THROTTLED or status == 429:
        return AwsUnavailableError(
            f"AWS throttles {call.api_name} in {call.region} ({word})",
            code=word,
            hint="all callers of the account share one rate in a region: run it again in a minute, or raise the quota",
        )
    if word in _EXPIRED:
        return AwsUnavailableError(
            f"the AWS credentials in use have expired, AWS says of {call.api_name}",
            code=word,
            hint="renew them; a role's are renewed by themselves, those of a profile or the environment are not",
            command="aws sts get-caller-identity",
        )
    if status >= 500 and word not in _BAD_CREDENTIALS:
        return AwsUnavailableError(
            f"AWS failed at {call.api_name} for {call.about} ({word}, HTTP status {status})",
            code=word,
            hint="run it again; AWS's health dashboard says more",
        )
    return _refused(word, said, call)


def _refused(word: str, said: object, call: Call) -> AwsError:
    if word in DENIED:
        return AwsError(
            f"these credentials may not call {call.action} for {call.about}",
            code=word,
            hint=f"an administrator allows {call.action}; packaging/docs/emr-account.md lists what each command needs",
            command="aws sts get-caller-identity",
        )
    if word in _BAD_CREDENTIALS:
        return AwsError(
            f"AWS does not take these credentials ({word})",
            code=word,
            hint="they were withdrawn, belong to another partition, or this machine's clock is wrong",
            command="aws sts get-caller-identity",
        )
    if word in _ELSEWHERE:
        return AwsError(
            f"{call.about} is in another region than {call.region}", code=word, hint="name its region with --region"
        )
    if word in NOT_FOUND:
        return AwsError(
            f"AWS in {call.region} does not know {call.about}",
            code=word,
            hint="check the name, the region and whose account the credentials are of",
            command="aws sts get-caller-identity",
        )
    if word in TAKEN:
        return AwsError(f"{call.about} is there already", code=word)
    text = _said(said)
    return AwsError(f"AWS refuses {call.api_name} for {call.about} ({word})" + (f": {text}" if text else ""), code=word)


def no_credentials(call: Call) -> AwsError:
    """For when the SDK finds none, or a profile that cannot be used."""
    return AwsUnavailableError(
        f"no AWS credentials are found to call {call.action} with",
        hint="name a profile (--profile or AWS_PROFILE), or give this machine a role",
        command="aws sts get-caller-identity",
    )


def no_connection(call: Call, what: str) -> AwsError:
    """For a connection that did not come about or broke; `what` says so in a few words."""
    return AwsUnavailableError(
        f"AWS does not answer {call.api_name} in {call.region}: {what}",
        hint="check the route to AWS: NAT or a VPC endpoint, DNS, a proxy (HTTPS_PROXY), --region and --endpoint",
    )


def bad_request(call: Call, said: str) -> AwsError:
    """For a request that the SDK itself does not send."""
    return AwsError(f"the AWS SDK does not send {call.api_name} for {call.about}: {_said(said)}")


def bad_answer(call: Call) -> AwsError:
    """For an answer that is none of AWS's."""
    return AwsUnavailableError(
        f"what answered {call.api_name} in place of AWS does not speak its protocol",
        hint="check --endpoint, AWS_ENDPOINT_URL and the proxy (HTTPS_PROXY)",
    )


def _said(said: object) -> str:
    if not isinstance(said, str):
        return ""
    text = "".join(char if char.isprintable() else " " for char in said)
    text = " ".join(text.split()).removesuffix(".")
    return text if len(text) <= _MAX_SAID else text[:_MAX_SAID] + " …"
