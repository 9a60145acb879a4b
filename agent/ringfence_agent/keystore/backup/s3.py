"""Backups in S3: the one file that speaks to it, through boto3 (the extra `aws`).

Rules:

1. The bucket is versioned, or it is refused: then not even somebody with the key server's own rights to write can make
   an earlier backup disappear. Rights needed: s3:PutObject, s3:ListBucket, s3:GetBucketVersioning and
   s3:GetBucketObjectLockConfiguration; s3:GetObject to restore; kms:GenerateDataKey on the SSE-KMS key.
2. An object is sent with its SHA-256, which S3 checks, and never over another of the same name.
3. Where the bucket has Object Lock its own default retention holds; `lock_s` sets one for each object, in governance
   mode, and is refused where the bucket cannot.
4. Errors of botocore become sentences here, with their code and without their body. Credentials, region and endpoint
   are found as boto3 finds them; none is ever in a setting of ours.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from ringfence_agent.keystore.backup.file_format import Manifest, copy_bytes
from ringfence_agent.keystore.backup.names import backup_name, change_number_of, name_prefix, newest_of
from ringfence_agent.keystore.backup.place import S3Options, unnamed_file
from ringfence_zones.errors import BackupError, ConfigError, InputError, MissingExtraError

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
except ModuleNotFoundError as exc:
    raise MissingExtraError("a backup in S3", "aws") from exc

_URI = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<key>.*))?", re.DOTALL)
_MAX_KEY_BYTES = 1024
_MAX_OBJECT_BYTES = 5 * 1024**3  # what one PUT takes
_CONNECT_S, _READ_S, _ATTEMPTS = 5, 60, 4
_TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


class S3Place:
    """See `place.BackupPlace`."""

    def __init__(self, uri: str, options: S3Options) -> None:
        self.label = uri
        self._bucket, key = _parse(uri)
        self._prefix = key if not key or key.endswith("/") else key + "/"
        self._options = options
        self._client = _client()
        self._is_checked = False

    def check(self) -> None:
        """See BackupPlace. The bucket is asked once."""
        if self._is_checked:
            return
        with _translated(self.label):
            versioning = self._client.get_bucket_versioning(Bucket=self._bucket).get("Status")
        if versioning != "Enabled":
            raise ConfigError(
                f"bucket {self._bucket} is not versioned: whoever may write there could remove the backups",
                hint="switch versioning on, best with Object Lock, which takes a new bucket",
                command=f"aws s3api put-bucket-versioning --bucket {self._bucket}"
                " --versioning-configuration Status=Enabled",
            )
        if self._options.lock_s is not None and not self._has_object_lock():
            raise ConfigError(
                f"bucket {self._bucket} has no Object Lock, so nothing can hold backups there for a time",
                hint="make a bucket with Object Lock, or leave the lock out",
                command=f"aws s3api create-bucket --object-lock-enabled-for-bucket --bucket {self._bucket}-locked",
            )
        self._is_checked = True

    def find_newest_change(self, store_id: str) -> int | None:
        """See BackupPlace. By the names of the objects."""
        newest = newest_of(self._list(store_id), store_id)
        return None if newest is None else change_number_of(newest, store_id)

    def find_newest(self, store_id: str) -> str | None:
        """See BackupPlace."""
        newest = newest_of(self._list(store_id), store_id)
        return None if newest is None else f"s3://{self._bucket}/{self._prefix}{newest}"

    def _list(self, store_id: str) -> list[str]:
        with _translated(self.label):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + name_prefix(store_id)
            )
            return [found["Key"].removeprefix(self._prefix) for page in pages for found in page.get("Contents", ())]

    def put(self, manifest: Manifest, content: BinaryIO) -> str:
        """See BackupPlace."""
        self.check()
        key = self._prefix + backup_name(manifest)
        length, digest = _measure(content)
        if length > _MAX_OBJECT_BYTES:
            raise BackupError(f"the backup has {length} bytes, more than S3 takes in one request")
        where = f"s3://{self._bucket}/{key}"
        with _translated(where):
            try:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=content,
                    ContentLength=length,
                    ContentType="application/octet-stream",
                    ChecksumAlgorithm="SHA256",  # said as well, because Object Lock asks for it
                    ChecksumSHA256=digest,
                    IfNoneMatch="*",
                    **self._protection(),
                )
            except ClientError as error:
                # The SDK sends again what was not answered, and then finds what it sent before.
                if _code(error) not in _TAKEN or not self._holds(key, digest):
                    raise
        return where

    def _holds(self, key: str, digest: str) -> bool:
        found = self._client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
        return bool(found.get("ChecksumSHA256") == digest)

    def is_beside(self, path: Path) -> bool:  # noqa: ARG002 -- never
        """See BackupPlace."""
        return False

    def _protection(self) -> dict[str, Any]:
        protection: dict[str, Any] = {}
        if self._options.kms_key_id is not None:
            protection |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self._options.kms_key_id}
        if self._options.lock_s is not None:
            until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self._options.lock_s)
            protection |= {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}
        return protection

    def _has_object_lock(self) -> bool:
        try:
            found = self._client.get_object_lock_configuration(Bucket=self._bucket)
        except ClientError as error:
            if _code(error) == "ObjectLockConfigurationNotFoundError":
                return False
            raise _refused(self.label, error) from None
        except BotoCoreError as error:
            raise _unreachable(self.label, error) from None
        return bool(found.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")


@contextmanager
def fetched_object(uri: str) -> Iterator[BinaryIO]:
    """The object's content in an unnamed file, at its beginning. Raises BackupError."""
    bucket, key = _parse(uri)
    if not key or key.endswith("/"):
        raise InputError(f"{uri} names no object", hint="name one backup, s3://BUCKET/PREFIX/ringfence-....rfbackup")
    client = _client()
    with unnamed_file() as stream:
        with _translated(uri):
            body = client.get_object(Bucket=bucket, Key=key)["Body"]
            copy_bytes(cast(BinaryIO, body), stream.write)
        stream.seek(0)
        yield stream


def _measure(stream: BinaryIO) -> tuple[int, str]:
    """Length and SHA-256 (base64) of a stream, which is then at its beginning."""
    stream.seek(0)
    digest = hashlib.sha256()
    copy_bytes(stream, digest.update)
    length = stream.tell()
    stream.seek(0)
    return length, base64.b64encode(digest.digest()).decode()


def _parse(uri: str) -> tuple[str, str]:
    match = _URI.fullmatch(uri)
    key = (match["key"] or "") if match is not None else ""
    if match is None or len(key.encode()) > _MAX_KEY_BYTES or key.startswith("/") or not key.isprintable():
        raise InputError(f"{uri!r} names no place in S3", hint="write s3://BUCKET/PREFIX")
    return match["bucket"], key


def _client() -> Any:
    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "adaptive", "total_max_attempts": _ATTEMPTS},
        request_checksum_calculation="when_required",
    )
    try:
        return boto3.session.Session().client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"S3 cannot be used from here: {type(error).__name__}", hint="set AWS_REGION") from None


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        raise _refused(what, error) from None
    except BotoCoreError as error:
        raise _unreachable(what, error) from None


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", "?"))


def _refused(what: str, error: Any) -> BackupError:
    code = _code(error)
    if code in _TAKEN:
        return BackupError(f"{what} is there already, and no backup is ever written over")
    if code in ("AccessDenied", "403"):
        return BackupError(
            f"S3 refuses {error.operation_name} on {what}: access denied",
            hint="the role needs s3:PutObject, s3:GetObject and, on the bucket, s3:ListBucket, s3:GetBucketVersioning"
            " and s3:GetBucketObjectLockConfiguration; with an SSE-KMS key kms:GenerateDataKey and kms:Decrypt on it",
        )
    return BackupError(f"S3 refuses {error.operation_name} on {what}: {code}")


def _unreachable(what: str, error: Any) -> BackupError:
    return BackupError(
        f"S3 cannot be reached for {what}: {type(error).__name__}",
        hint="see whether the network, AWS_REGION and the credentials of this machine's role are there",
    )
