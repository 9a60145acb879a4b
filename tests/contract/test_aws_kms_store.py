"""A key store under AWS KMS keys: what AWS is asked for, and a move from one key to another."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from aws_kms_double import ROLE, AwsKmsDouble
from aws_kms_places import double_settings, make_key, policy_for
from local_stores import material_of, new_key

from ringfence_agent.keystore.open import open_protected
from ringfence_agent.keystore.protector import Protectors
from ringfence_agent.keystore.protectors.aws_kms import open_aws_kms
from ringfence_agent.keystore.protectors.aws_kms_errors import Reason
from ringfence_agent.keystore.sql.store import SqlKeyStore
from ringfence_zones.errors import ProtectorRefusedError, StoreTamperedError

NAMES = ("a", "b", "c")


class AwsStore:
    """An SQLite store under keys of the double, the first of them the current one."""

    def __init__(self, directory: Path, double: AwsKmsDouble) -> None:
        self.uri = f"sqlite:///{directory}/keys.db"
        self._double = double

    def open(self, key: str, *former_keys: str, init: bool = False) -> SqlKeyStore:
        protectors = open_aws_kms(double_settings(self._double, key, former_keys=former_keys))
        return open_protected(self.uri, None, init, None, Protectors(with_file=False, others=tuple(protectors)))


@pytest.fixture
def place(tmp_path: Path, aws_kms_double: AwsKmsDouble) -> AwsStore:
    tmp_path.chmod(0o700)
    return AwsStore(tmp_path, aws_kms_double)


@pytest.fixture
def key(aws_kms_double: AwsKmsDouble, place: AwsStore) -> str:
    """A key, and three keys of two versions sealed by it."""
    key = make_key(aws_kms_double)
    store = place.open(key, init=True)
    for name in NAMES:
        store.create_key(new_key(name))
        store.roll_key(name, material_of(name, 1))
    store.close()
    aws_kms_double.take_requests()
    return key


def check_all(store: SqlKeyStore) -> None:
    for name in NAMES:
        found = store.find_key(name)
        assert found is not None
        assert [each.material for each in found.versions] == [material_of(name, number) for number in range(2)]


def operations(double: AwsKmsDouble) -> Counter[str]:
    return Counter(each["operation"] for each in double.take_requests())


def test_opening_a_store_asks_once_and_each_version_once(
    aws_kms_double: AwsKmsDouble, place: AwsStore, key: str
) -> None:
    store = place.open(key)
    # The root, from the one slot.
    assert operations(aws_kms_double) == {"Decrypt": 1}
    check_all(store)
    requests = aws_kms_double.take_requests()
    contexts = {(each["context"]["ringfence:key"], each["context"]["ringfence:version"]) for each in requests}
    assert (len(requests), len(contexts)) == (6, 6)
    store.close()


def test_a_store_moves_to_another_key_without_its_material_leaving_aws(
    aws_kms_double: AwsKmsDouble, place: AwsStore, key: str
) -> None:
    target = make_key(aws_kms_double)
    store, reader = place.open(target, key), place.open(target, key)
    protector = open_aws_kms(double_settings(aws_kms_double, target))[0]
    store.slots.protect_with(protector)
    aws_kms_double.take_requests()
    assert store.slots.rewrap() == 6
    assert operations(aws_kms_double) == {"ReEncrypt": 6}
    check_all(reader)
    store.slots.remove(1)
    store.close()
    reader.close()
    # Nothing needs the old key any more.
    aws_kms_double.client("kms", aws_kms_double.admin).schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    alone = place.open(target)
    check_all(alone)
    alone.close()


def test_a_move_that_aws_refuses_leaves_every_version_openable_and_goes_on_later(
    aws_kms_double: AwsKmsDouble, place: AwsStore, key: str
) -> None:
    target = make_key(aws_kms_double, "kms:Encrypt", "kms:Decrypt", "kms:DescribeKey")
    store = place.open(target, key)
    store.slots.protect_with(open_aws_kms(double_settings(aws_kms_double, target))[0])
    with pytest.raises(ProtectorRefusedError) as refused:
        store.slots.rewrap()
    assert refused.value.reason == Reason.ACCESS_DENIED
    assert "kms:ReEncryptTo" in refused.value.message
    check_all(store)
    policy = policy_for(ROLE, "kms:Encrypt", "kms:Decrypt", "kms:ReEncryptTo")
    aws_kms_double.client("kms", aws_kms_double.admin).put_key_policy(KeyId=target, Policy=json.dumps(policy))
    assert store.slots.rewrap() == 6
    check_all(store)
    store.close()


def test_a_version_of_one_key_in_place_of_another_s_is_tampering(
    aws_kms_double: AwsKmsDouble, place: AwsStore, key: str
) -> None:
    store = place.open(key)
    with closing(sqlite3.connect(place.uri.removeprefix("sqlite:///"))) as database:
        (sealed,) = database.execute("SELECT sealed FROM key_version WHERE key_name = 'b' AND version = 0").fetchone()
        database.execute("UPDATE key_version SET sealed = ? WHERE key_name = 'a' AND version = 0", (sealed,))
        database.commit()
    aws_kms_double.take_requests()
    with pytest.raises(StoreTamperedError):
        store.find_key("a")
    # Its place in the store is bound before AWS is asked.
    assert operations(aws_kms_double) == {}
    store.close()
    with pytest.raises(StoreTamperedError):
        place.open(key)


def test_a_disabled_key_keeps_a_store_from_opening_and_says_so(
    aws_kms_double: AwsKmsDouble, place: AwsStore, key: str
) -> None:
    admin = aws_kms_double.client("kms", aws_kms_double.admin)
    admin.disable_key(KeyId=key)
    with pytest.raises(ProtectorRefusedError) as refused:
        place.open(key)
    assert refused.value.reason == Reason.DISABLED
    admin.enable_key(KeyId=key)
    store = place.open(key)
    check_all(store)
    store.close()
