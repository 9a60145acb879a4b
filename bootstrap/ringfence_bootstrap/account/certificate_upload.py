"""A bundle of certificates to S3, where EMR's nodes fetch it. What is there is never written over by accident.

The object holds a private key: it is encrypted under a KMS key that is named, sent with its SHA-256, which S3 checks,
and looked at afterwards. S3 itself refuses to replace it (`If-None-Match`), also when two people upload at once.

Rights needed: s3:PutObject and s3:GetObject on the object, kms:GenerateDataKey and kms:Decrypt on the key, and
s3:GetBucketPublicAccessBlock on the bucket.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from ringfence_bootstrap.account.connection import Connection
from ringfence_bootstrap.account.failures import DENIED, TAKEN
from ringfence_zones.aws_names import BUCKET
from ringfence_zones.errors import AwsError, InputError, RingfenceError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.secret import Secret

_URI = re.compile(rf"s3://(?P<bucket>{BUCKET})/(?P<key>[^\s/](?:.*[^/])?)", re.DOTALL)
_MAX_KEY_BYTES = 1024
_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


@dataclass(frozen=True, slots=True)
class S3Target:
    """One object."""

    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """As a security configuration names it (`S3Object`)."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class Uploaded:
    """`is_new` is False when the very same bundle was there already. `findings` is about the bucket."""

    target: S3Target
    is_new: bool
    findings: tuple[Finding, ...]


def parse_target(uri: str) -> S3Target:
    """The bucket and key of `s3://BUCKET/KEY.zip`. Raises InputError."""
    match = _URI.fullmatch(uri)
    key = match["key"] if match is not None else ""
    if match is None or len(key.encode()) > _MAX_KEY_BYTES or not key.isprintable() or not key.endswith(".zip"):
        raise InputError(f"{uri!r} names no zip in S3", hint="write s3://BUCKET/PREFIX/NAME.zip")
    return S3Target(match["bucket"], key)


def upload(
    connection: Connection, content: Secret, target: S3Target, kms_key: str, *, replace: bool = False
) -> Uploaded:
    """Uploads a zip. Raises AwsError, and RingfenceError when another one is there and not `replace`."""
    digest = base64.b64encode(hashlib.sha256(content.reveal()).digest()).decode()
    is_new = _put(connection, content, target, kms_key, digest, replace=replace)
    found = _head(connection, target)
    if found.get("ChecksumSHA256") != digest or not _is_under(found, kms_key):
        raise RingfenceError(
            f"{target.uri} is there, but not encrypted under {kms_key}",
            hint="a rule of the bucket or a proxy changed it: remove the object, and make other certificates, because"
            " others may have read it",
        )
    return Uploaded(target, is_new, tuple(_bucket_findings(connection, target)))


def _put(
    connection: Connection, content: Secret, target: S3Target, kms_key: str, digest: str, *, replace: bool
) -> bool:
    request: dict[str, Any] = {} if replace else {"IfNoneMatch": "*"}
    try:
        connection.call(
            "s3",
            "put_object",
            target.uri,
            Bucket=target.bucket,
            Key=target.key,
            Body=content.reveal(),
            ContentType="application/zip",
            ServerSideEncryption="aws:kms",
            SSEKMSKeyId=kms_key,
            ChecksumAlgorithm="SHA256",
            ChecksumSHA256=digest,
            **request,
        )
    except AwsError as error:
        if error.code not in TAKEN:
            raise
        found = _head(connection, target)
        # The SDK sends again what was not answered, and then finds what it sent before.
        if found.get("ChecksumSHA256") == digest and _is_under(found, kms_key):
            return False
        raise RingfenceError(
            f"another object is at {target.uri}, and is not written over",
            hint="clusters that start later would get other certificates than those that run: name another object,"
            " best with the date in it, and a new security configuration; or give --replace",
        ) from None
    return True


def _head(connection: Connection, target: S3Target) -> dict[str, Any]:
    return connection.call(
        "s3", "head_object", target.uri, Bucket=target.bucket, Key=target.key, ChecksumMode="ENABLED"
    )


def _is_under(found: dict[str, Any], kms_key: str) -> bool:
    if found.get("ServerSideEncryption") != "aws:kms":
        return False
    # S3 answers with the key's ARN, whatever it was called in the request.
    has = str(found.get("SSEKMSKeyId", ""))
    return "alias/" in kms_key or kms_key in (has, has.rpartition("/")[2])


def _bucket_findings(connection: Connection, target: S3Target) -> list[Finding]:
    try:
        answer = connection.call("s3", "get_public_access_block", f"bucket {target.bucket}", Bucket=target.bucket).get(
            "PublicAccessBlockConfiguration", {}
        )
    except AwsError as error:
        if error.code in DENIED:
            return [
                Finding(
                    severity=Severity.INFO,
                    rule=Rule.EMR_UNCHECKED,
                    path=target.uri,
                    message="whether the bucket can be made public could not be read",
                    hint=error.hint or "",
                )
            ]
        if error.code != "NoSuchPublicAccessBlockConfiguration":
            raise
        answer = {}
    if all(answer.get(name) for name in _BLOCKS):
        return []
    return [
        Finding(
            severity=Severity.WARN,
            rule=Rule.SECRET_EXPOSED,
            path=target.uri,
            message=f"bucket {target.bucket} does not block public access by itself, and a private key lies in it",
            hint="block it, unless the whole account does",
            command=f"aws s3api put-public-access-block --bucket {target.bucket} --public-access-block-configuration"
            f" {','.join(f'{name}=true' for name in _BLOCKS)}",
        )
    ]
