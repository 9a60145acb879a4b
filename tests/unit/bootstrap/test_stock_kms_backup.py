"""Backups of a stock KMS's key store: for one key pair, whole or refused, and where they lie."""

from __future__ import annotations

import base64
import datetime
import errno
import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from moto import mock_aws

from ringfence_bootstrap.account.connection import AwsPlace, Connection
from ringfence_bootstrap.stock_kms.backup import (
    Content,
    backup_name,
    fingerprint,
    is_backup_of,
    read_private_key,
    read_public_key,
    seal,
    unseal,
)
from ringfence_bootstrap.stock_kms.backup_places import BucketPlace, DirectoryPlace
from ringfence_bootstrap.stock_kms.key_store import opens, read_key_store
from ringfence_zones.errors import AwsError, BackupError, ConfigError, InputError, InstallError
from ringfence_zones.secret import Secret

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
PASSWORD = Secret(b"a-password-that-nobody-guesses")


@pytest.fixture(scope="module")
def pair() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def key_store(password: Secret = PASSWORD, body: bytes = b"entries") -> bytes:
    """The outside of a JCEKS file."""
    content = b"\xce\xce\xce\xce" + body
    text = password.reveal().decode().encode("utf-16-be")
    return content + hashlib.sha1(text + b"Mighty Aphrodite" + content).digest()


def test_a_backup_gives_back_what_went_in_and_shows_none_of_it(pair: rsa.RSAPrivateKey) -> None:
    store = key_store()
    made = seal(Content(Secret(store), PASSWORD), pair.public_key(), NOW)
    assert PASSWORD.reveal() not in made
    assert store not in made
    content = unseal(made, pair, "b")
    assert (content.key_store.reveal(), content.password) == (store, PASSWORD)


def test_another_key_and_every_altered_byte_are_refused(pair: rsa.RSAPrivateKey) -> None:
    made = seal(Content(Secret(key_store()), PASSWORD), pair.public_key(), NOW)
    with pytest.raises(BackupError, match="another key pair"):
        unseal(made, rsa.generate_private_key(65537, 2048), "b")
    for at in [*range(0, len(made), 7), len(made) - 1]:
        altered = made[:at] + bytes([made[at] ^ 1]) + made[at + 1 :]
        with pytest.raises(BackupError):
            unseal(altered, pair, "b")
    for length in range(0, len(made), 11):
        with pytest.raises(BackupError):
            unseal(made[:length], pair, "b")


def test_a_key_store_that_its_password_does_not_open_is_not_backed_up(pair: rsa.RSAPrivateKey) -> None:
    assert opens(key_store(), PASSWORD)
    for broken in (key_store(Secret(b"none")), key_store()[:-1], b"", key_store()[4:]):
        with pytest.raises(BackupError, match="not backed up"):
            seal(Content(Secret(broken), PASSWORD), pair.public_key(), NOW)


def test_a_name_says_when_and_of_which_file() -> None:
    name = backup_name(key_store(), NOW)
    assert name.startswith("kms-20260102T030405Z-")
    assert is_backup_of(name, key_store())
    assert not is_backup_of(name, key_store(body=b"more"))


def test_keys_that_are_none_are_refused_by_name(tmp_path: Path, pair: rsa.RSAPrivateKey) -> None:
    path = tmp_path / "key.pem"
    path.write_text("no key")
    for read in (read_public_key, read_private_key):
        with pytest.raises(ConfigError, match=r"key\.pem"):
            read(path)
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    path.write_bytes(curve.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(ConfigError, match="not RSA"):
        read_public_key(path)
    path.write_bytes(
        pair.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    assert read_public_key(path) == pair.public_key()


def test_a_directory_keeps_backups_and_replaces_none(tmp_path: Path) -> None:
    place = DirectoryPlace(tmp_path)
    place.put("kms-2.rfstock", b"two")
    place.put("kms-1.rfstock", b"one")
    (tmp_path / "other").touch()
    assert place.names() == ["kms-1.rfstock", "kms-2.rfstock"]
    assert place.get("kms-2.rfstock") == b"two"
    assert stat.S_IMODE((tmp_path / "kms-1.rfstock").stat().st_mode) == 0o600
    with pytest.raises(BackupError, match="cannot write"):
        place.put("kms-1.rfstock", b"other")
    assert place.get("kms-1.rfstock") == b"one"
    with pytest.raises(BackupError, match="cannot look into"):
        DirectoryPlace(tmp_path / "gone").names()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "y")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("s3", region_name="eu-west-1")
        client.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield client


def test_a_bucket_gets_sse_kms_and_no_backup_in_the_place_of_another(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"
    place = BucketPlace("s3://bucket/kms/", key, Connection(AwsPlace("eu-west-1")))
    assert place.names() == []
    for name in ("kms-2.rfstock", "kms-1.rfstock", "kms-3.rfstock"):
        place.put(name, name.encode())
    s3.put_object(Bucket="bucket", Key="kms/below/kms-0.rfstock", Body=b"")
    monkeypatch.setattr("ringfence_bootstrap.stock_kms.backup_places._PAGE", 2)
    assert place.names() == ["kms-1.rfstock", "kms-2.rfstock", "kms-3.rfstock"]
    assert place.get("kms-2.rfstock") == b"kms-2.rfstock"
    head = s3.head_object(Bucket="bucket", Key="kms/kms-2.rfstock")
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)
    with pytest.raises(AwsError):
        place.put("kms-2.rfstock", b"another")
    assert place.get("kms-2.rfstock") == b"kms-2.rfstock"
    with pytest.raises(AwsError):
        place.get("kms-9.rfstock")
    with pytest.raises(InputError, match="names no place in S3"):
        BucketPlace("s3://B", None, Connection(AwsPlace("eu-west-1")))


def test_a_key_store_that_hadoop_is_replacing_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "kms.keystore"
    (tmp_path / "kms.keystore_OLD").write_bytes(b"old")

    new = tmp_path / "kms.keystore_NEW"
    new.write_bytes(b"new")
    timer = threading.Timer(0.3, new.rename, [path])
    timer.start()
    assert read_key_store(path) == b"new"
    timer.join()
    with pytest.raises(InstallError, match="cannot read the key store"):
        read_key_store(tmp_path / "none")


def header(text: bytes) -> bytes:
    return b"RINGFENCE-STOCK-KMS-BACKUP 1\n" + len(text).to_bytes(4, "big") + text


def sealed(inner: bytes, pair: rsa.RSAPrivateKey) -> bytes:
    """What anybody with the public key can make."""
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    key, nonce = AESGCM.generate_key(256), bytes(12)
    fields = {"key": pair.public_key().encrypt(key, oaep), "nonce": nonce}
    named = {name: base64.b64encode(value).decode() for name, value in fields.items()}
    head = json.dumps(named | {"recipient": fingerprint(pair.public_key())}).encode()
    return header(head) + AESGCM(key).encrypt(nonce, inner, head)


def test_what_somebody_else_made_is_refused_in_one_sentence(pair: rsa.RSAPrivateKey) -> None:
    no_text = {
        name: base64.b64encode(value).decode()
        for name, value in {"key_store": key_store(), "password": b"\xff"}.items()
    }
    for made in (
        header(b"[" * 16_000),
        sealed(b"[" * 100_000, pair),
        sealed(b"[]", pair),
        sealed(json.dumps(no_text).encode(), pair),
    ):
        with pytest.raises(BackupError):
            unseal(made, pair, "b")


def test_a_place_that_is_full_keeps_nothing_of_each_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for number in range(3):
        with pytest.raises(BackupError, match="No space left"):
            DirectoryPlace(tmp_path).put(f"kms-{number}.rfstock", b"content")
    assert list(tmp_path.iterdir()) == []


class _Endless:
    """A bucket whose listing never ends, or says it goes on and not where."""

    def __init__(self, **following: str) -> None:
        self._following = following

    def call(self, service: str, operation: str, about: str, **request: Any) -> dict[str, Any]:
        return {"IsTruncated": True, **self._following}


@pytest.mark.parametrize("following", [{"NextContinuationToken": "again"}, {}])
def test_a_listing_without_end_is_given_up(following: dict[str, str]) -> None:
    with pytest.raises(BackupError, match="has no end"):
        BucketPlace("s3://bucket/kms/", None, _Endless(**following)).names()
