"""Backups in S3, against moto: what it does not do as AWS does is answered by a stub here."""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from backups import BackupScene
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from ringfence_agent.keystore.backup.drill import drill
from ringfence_agent.keystore.backup.make import BackupMade, make_backup
from ringfence_agent.keystore.backup.place import S3Options
from ringfence_agent.keystore.backup.places import find_change_beside, opened_backup, parse_place
from ringfence_agent.keystore.backup.s3 import S3Place
from ringfence_zones.errors import BackupError, ConfigError, InputError

BUCKET = "backups-of-keys"
TO = f"s3://{BUCKET}/kms"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "y"), ("DEFAULT_REGION", "eu-west-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield boto3.client("s3", region_name="eu-west-1")


def make_bucket(s3: Any, *, versioned: bool = True, locked: bool = False) -> None:
    where = {"LocationConstraint": "eu-west-1"}
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where, ObjectLockEnabledForBucket=locked)
    if versioned and not locked:
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})


@pytest.fixture
def scene(tmp_path: Path) -> BackupScene:
    return BackupScene.make(tmp_path)


def back_up(scene: BackupScene, options: S3Options | None = None) -> BackupMade:
    store = scene.store.open()
    try:
        return make_backup(store, parse_place(TO, options or S3Options()))
    finally:
        store.close()


def test_a_backup_goes_to_s3_and_comes_back_from_there_alone(s3: Any, scene: BackupScene) -> None:
    make_bucket(s3)
    made = back_up(scene)
    assert made.where.startswith(f"{TO}/ringfence-{made.manifest.store_id[:16]}-")
    scene.store.path.unlink()
    with opened_backup(made.where) as backup:
        keys = drill(backup, scene.protectors)
    assert [key.key_name for key in keys if key.passed] == ["again", "gone", "plain", "rolled"]
    assert find_change_beside(made.where, made.manifest.store_id) == made.manifest.change_number
    assert find_change_beside(made.where, "00" * 16) is None


def test_canaries_are_taken_over_from_the_newest_object(s3: Any, scene: BackupScene) -> None:
    make_bucket(s3)
    first, second = back_up(scene), back_up(scene)
    assert first.canaries == second.canaries
    assert first.where != second.where


def test_the_object_is_sealed_with_the_key_that_is_named(s3: Any, scene: BackupScene) -> None:
    make_bucket(s3)
    key = boto3.client("kms", region_name="eu-west-1").create_key()["KeyMetadata"]["Arn"]
    made = back_up(scene, S3Options(kms_key_id=key))
    found = s3.head_object(Bucket=BUCKET, Key=made.where.removeprefix(f"s3://{BUCKET}/"))
    assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", key)


def test_the_bucket_is_versioned_or_refused(s3: Any, scene: BackupScene) -> None:
    make_bucket(s3, versioned=False)
    with pytest.raises(ConfigError, match="is not versioned") as raised:
        back_up(scene)
    assert raised.value.command is not None
    assert "put-bucket-versioning" in raised.value.command
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)


def test_an_object_is_locked_where_the_bucket_can(s3: Any, scene: BackupScene) -> None:
    make_bucket(s3, locked=True)
    made = back_up(scene, S3Options(lock_s=86_400 * 30))
    key = made.where.removeprefix(f"s3://{BUCKET}/")
    found = s3.head_object(Bucket=BUCKET, Key=key)
    assert found["ObjectLockMode"] == "GOVERNANCE"
    left = found["ObjectLockRetainUntilDate"] - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=29) < left <= datetime.timedelta(days=30)
    version = found["VersionId"]
    with pytest.raises(ClientError):
        s3.delete_object(Bucket=BUCKET, Key=key, VersionId=version)


def test_a_lock_that_the_bucket_has_not_is_refused(s3: Any, scene: BackupScene) -> None:
    make_bucket(s3)
    with pytest.raises(ConfigError, match="no Object Lock"):
        back_up(scene, S3Options(lock_s=86_400))
    assert back_up(scene).where


def test_the_digest_of_what_is_sent_goes_with_it(s3: Any, scene: BackupScene, monkeypatch: pytest.MonkeyPatch) -> None:
    make_bucket(s3)
    sent: dict[str, Any] = {}
    with watched(monkeypatch, sent):
        made = back_up(scene)
    body = s3.get_object(Bucket=BUCKET, Key=made.where.removeprefix(f"s3://{BUCKET}/"))["Body"].read()
    assert sent["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(body).digest()).decode()
    assert (sent["ContentLength"], sent["IfNoneMatch"]) == (len(body), "*")


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, sent: dict[str, Any]) -> Iterator[None]:
    """What is asked of `put_object`."""
    real = S3Place._protection

    def note(place: S3Place) -> dict[str, Any]:
        place._client.meta.events.register(
            "provide-client-params.s3.PutObject", lambda params, **_: sent.update(params) or None
        )
        return real(place)

    monkeypatch.setattr(S3Place, "_protection", note)
    yield


def refusing(code: str) -> Any:
    body = {"Error": {"Code": code, "Message": "arn:aws:sts::123456789012:assumed-role/secret-looking"}}
    return ClientError(body, "PutObject")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (refusing("AccessDenied"), "access denied"),
        (refusing("SlowDown"), "SlowDown"),
        (EndpointConnectionError(endpoint_url="https://x"), "cannot be reached"),
    ],
)
def test_what_s3_says_becomes_a_sentence_without_its_body(
    s3: Any, scene: BackupScene, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    make_bucket(s3)

    def refuse(_place: S3Place) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(S3Place, "_protection", refuse)
    with pytest.raises(BackupError, match=says) as raised:
        back_up(scene)
    assert "assumed-role" not in raised.value.message
    assert raised.value.__cause__ is None


def test_an_object_that_was_sent_before_its_answer_was_lost_is_ours(
    s3: Any, scene: BackupScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bucket(s3)
    real = S3Place._protection
    sent: list[str] = []

    def send_first(place: S3Place) -> dict[str, Any]:
        """As the SDK's first try, whose answer is lost."""
        if not sent:
            place._client.meta.events.register_first("before-call.s3.PutObject", once)
        return real(place)

    def once(params: dict[str, Any], **_: Any) -> None:
        key = params["url_path"].removeprefix(f"/{BUCKET}/").removeprefix("/")
        body = params["body"]
        if key not in sent:
            sent.append(key)
            s3.put_object(Bucket=BUCKET, Key=key, Body=body.read() + suffix, ChecksumAlgorithm="SHA256")
            body.seek(0)

    monkeypatch.setattr(S3Place, "_protection", send_first)
    suffix = b""
    assert back_up(scene).where.endswith(sent[0].rpartition("/")[2])
    sent.clear()
    suffix = b"of another"
    with pytest.raises(BackupError, match="ever written over"):
        back_up(scene)


@pytest.mark.parametrize("uri", ["s3://", "s3://B/x", "s3://b/x", f"s3://{BUCKET}//x", f"s3://{BUCKET}/{'x' * 1025}"])
def test_a_place_that_cannot_be_is_named(s3: Any, uri: str) -> None:
    with pytest.raises(InputError, match="no place in S3"):
        parse_place(uri, S3Options())


def test_a_prefix_is_no_backup(s3: Any) -> None:
    make_bucket(s3)
    with pytest.raises(InputError, match="names no object"), opened_backup(f"s3://{BUCKET}/kms/"):
        pass
    with pytest.raises(BackupError, match="NoSuchKey"), opened_backup(f"s3://{BUCKET}/kms/nothing"):
        pass
