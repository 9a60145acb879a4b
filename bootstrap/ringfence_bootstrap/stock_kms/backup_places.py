"""Where backups lie: a directory (of a file system that is not this node's), or a bucket of S3.

In S3 each object is written with SSE-KMS under the key that is named, or the bucket's own default; it never replaces
one. Names sort by time.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol

from ringfence_bootstrap.stock_kms.backup import MAX_BACKUP_BYTES, SUFFIX
from ringfence_bootstrap.stock_kms.foreign_directories import read_regular
from ringfence_zones.aws_names import BUCKET
from ringfence_zones.durable_file import install_durably, write_new_file
from ringfence_zones.errors import BackupError, InputError

_S3 = re.compile(rf"s3://(?P<bucket>{BUCKET})/(?P<prefix>[^?#]*)")
_PAGE, _MAX_PAGES = 1000, 1000


class BackupPlace(Protocol):
    """A place that keeps backups."""

    def names(self) -> list[str]:
        """Of every backup there, oldest first. Raises BackupError."""

    def put(self, name: str, content: bytes) -> None:
        """Keeps a new one. Raises BackupError."""

    def get(self, name: str) -> bytes:
        """One that is there. Raises BackupError."""


class AwsCaller(Protocol):
    """What is needed of a connection to AWS."""

    def call(self, service: str, operation: str, about: str, **request: Any) -> dict[str, Any]:
        """One request and its answer."""


class DirectoryPlace:
    """A directory that is there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def names(self) -> list[str]:
        """See BackupPlace."""
        try:
            return sorted(each.name for each in self._directory.iterdir() if each.name.endswith(SUFFIX))
        except OSError as error:
            raise BackupError(
                f"cannot look into {self._directory}: {error.strerror}", hint="mount it, or make it"
            ) from error

    def put(self, name: str, content: bytes) -> None:
        """See BackupPlace."""
        draft = self._directory / f".{name}.new"
        try:
            draft.unlink(missing_ok=True)
            try:
                write_new_file(draft, content)
                install_durably(draft, self._directory / name)
            finally:
                # Each try has a name of its own: left here, they would fill a disk that is full for good.
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise BackupError(f"cannot write {self._directory / name}: {error.strerror}") from error

    def get(self, name: str) -> bytes:
        """See BackupPlace."""
        return read_backup_file(self._directory / name)


class BucketPlace:
    """A prefix in a bucket. `key` is the AWS KMS key of SSE-KMS, None for the bucket's default."""

    def __init__(self, uri: str, key: str | None, aws: AwsCaller) -> None:
        match = _S3.fullmatch(uri)
        if match is None:
            raise InputError(f"{uri!r} names no place in S3", hint="write s3://BUCKET/PREFIX")
        self._bucket = match["bucket"]
        self._prefix = match["prefix"].rstrip("/") + "/" if match["prefix"].strip("/") else ""
        self._key = key
        self._aws = aws

    def names(self) -> list[str]:
        """See BackupPlace."""
        found: list[str] = []
        more: dict[str, str] = {}
        for _ in range(_MAX_PAGES):
            answer = self._aws.call(
                "s3",
                "list_objects_v2",
                self._about(""),
                Bucket=self._bucket,
                Prefix=self._prefix,
                MaxKeys=_PAGE,
                **more,
            )
            found += [str(each["Key"]).removeprefix(self._prefix) for each in answer.get("Contents", [])]
            if not answer.get("IsTruncated"):
                return sorted(name for name in found if name.endswith(SUFFIX) and "/" not in name)
            more = {"ContinuationToken": str(answer.get("NextContinuationToken", ""))}
        raise BackupError(
            f"the list of {self._about('')} has no end",
            hint="name a prefix where nothing lies but backups, which nobody else may write to",
        )

    def put(self, name: str, content: bytes) -> None:
        """See BackupPlace."""
        sealed = {"ServerSideEncryption": "aws:kms"}
        if self._key is not None:
            sealed["SSEKMSKeyId"] = self._key
        key = self._prefix + name
        self._aws.call(
            "s3", "put_object", self._about(name), Bucket=self._bucket, Key=key, Body=content, IfNoneMatch="*", **sealed
        )

    def get(self, name: str) -> bytes:
        """See BackupPlace."""
        answer = self._aws.call("s3", "get_object", self._about(name), Bucket=self._bucket, Key=self._prefix + name)
        try:
            content: bytes = answer["Body"].read(MAX_BACKUP_BYTES + 1)
        except Exception as error:  # noqa: BLE001 - the SDK's, of no class that is imported here
            raise BackupError(f"{self._about(name)} broke off: {type(error).__name__}", hint="try again") from None
        return _bounded(content, name)

    def _about(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{name}"


def read_backup_file(path: Path) -> bytes:
    """A backup's bytes. Raises BackupError."""
    try:
        return _bounded(read_regular(path, MAX_BACKUP_BYTES + 1), str(path))
    except OSError as error:
        raise BackupError(f"cannot read {path}: {error.strerror}") from error


def _bounded(content: bytes, name: str) -> bytes:
    if len(content) > MAX_BACKUP_BYTES:
        raise BackupError(f"{name} is larger than {MAX_BACKUP_BYTES} bytes: not a backup of a key store")
    return content
