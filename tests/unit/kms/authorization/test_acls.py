from __future__ import annotations

import pytest

from ringfence_agent.kms.authorization.acls import KeyOperation, KmsAcls, Operation, find_ineffective, read_acls
from ringfence_zones.access_list import EVERYBODY, AccessList, parse_access_list
from ringfence_zones.hadoop_conf import HadoopConf

GROUPS = {"alice": frozenset({"staff", "pii"}), "bob": frozenset({"staff"})}


def groups_of(user: str) -> frozenset[str]:
    return GROUPS.get(user, frozenset())


def acls_of(**properties: str) -> KmsAcls:
    return read_acls(HandyConf(properties))


class HandyConf(HadoopConf):
    """Keyword arguments cannot hold dots: `__` stands for one."""

    def __init__(self, properties: dict[str, str]) -> None:
        super().__init__({name.replace("__", "."): value for name, value in properties.items()})


def allowed(acls: KmsAcls, key: str, operation: KeyOperation, user: str) -> bool:
    return acls.decide_key(key, operation, user, groups_of).allowed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*", EVERYBODY),
        (" * ", EVERYBODY),
        ("alice *", EVERYBODY),
        ("* staff", EVERYBODY),
        ("", AccessList()),
        (" ", AccessList()),
        ("alice,bob", AccessList(frozenset({"alice", "bob"}))),
        ("alice, bob", AccessList(frozenset({"alice"}), frozenset({"bob"}))),
        (" staff,pii", AccessList(frozenset(), frozenset({"staff", "pii"}))),
        ("alice staff", AccessList(frozenset({"alice"}), frozenset({"staff"}))),
        ("a,*", AccessList(frozenset({"a", "*"}))),
        ("alice\nbob", AccessList(frozenset({"alice", "bob"}))),
        ("alice staff,\n  pii", AccessList(frozenset({"alice"}), frozenset({"staff", "pii"}))),
        ("alice staff pii", AccessList(frozenset({"alice"}), frozenset({"staff pii"}))),
        ("alice\u00a0", AccessList(frozenset({"alice\u00a0"}))),
        (",,alice,", AccessList(frozenset({"alice"}))),
    ],
)
def test_access_lists_read_as_hadoops(text: str, expected: AccessList) -> None:
    assert parse_access_list(text) == expected


def test_an_operation_without_acl_is_open_to_all() -> None:
    for operation in Operation:
        assert acls_of().decide_operation(operation, "anyone", groups_of).allowed


def test_an_operation_acl_admits_by_user_and_by_group_only() -> None:
    acls = acls_of(hadoop__kms__acl__CREATE="carol pii")
    assert acls.decide_operation(Operation.CREATE, "carol", groups_of).allowed
    assert acls.decide_operation(Operation.CREATE, "alice", groups_of).allowed
    assert not acls.decide_operation(Operation.CREATE, "bob", groups_of).allowed
    assert acls.decide_operation(Operation.DELETE, "bob", groups_of).allowed


def test_a_leading_blank_in_the_file_means_groups_only() -> None:
    acls = acls_of(hadoop__kms__acl__GET=" staff")
    assert acls.decide_operation(Operation.GET, "bob", groups_of).allowed
    assert not acls.decide_operation(Operation.GET, "staff", groups_of).allowed


def test_a_blank_value_admits_nobody() -> None:
    assert not acls_of(hadoop__kms__acl__GET=" ").decide_operation(Operation.GET, "alice", groups_of).allowed


def test_a_blacklist_overrules_the_acl() -> None:
    acls = acls_of(hadoop__kms__acl__DECRYPT_EEK="*", hadoop__kms__blacklist__DECRYPT_EEK="hdfs staff")
    assert not acls.decide_operation(Operation.DECRYPT_EEK, "hdfs", groups_of).allowed
    assert not acls.decide_operation(Operation.DECRYPT_EEK, "bob", groups_of).allowed
    assert acls.decide_operation(Operation.DECRYPT_EEK, "carol", groups_of).allowed


def test_without_any_key_acl_every_key_is_closed() -> None:
    for operation in KeyOperation:
        assert not allowed(acls_of(), "k", operation, "alice")


def test_defaults_hold_for_keys_without_acls_of_their_own() -> None:
    acls = acls_of(default__key__acl__READ="alice")
    assert allowed(acls, "k", KeyOperation.READ, "alice")
    assert not allowed(acls, "k", KeyOperation.READ, "bob")
    assert not allowed(acls, "k", KeyOperation.MANAGEMENT, "alice")


def test_one_line_for_a_key_switches_all_its_defaults_off() -> None:
    acls = acls_of(default__key__acl__READ="*", default__key__acl__DECRYPT_EEK="*", key__acl__k__READ="alice")
    assert allowed(acls, "k", KeyOperation.READ, "alice")
    assert not allowed(acls, "k", KeyOperation.READ, "bob")
    assert not allowed(acls, "k", KeyOperation.DECRYPT_EEK, "alice")
    assert allowed(acls, "other", KeyOperation.DECRYPT_EEK, "alice")


def test_the_whitelist_adds_to_a_keys_own_acls() -> None:
    acls = acls_of(key__acl__k__READ="alice", whitelist__key__acl__MANAGEMENT="admin")
    assert allowed(acls, "k", KeyOperation.MANAGEMENT, "admin")
    assert not allowed(acls, "k", KeyOperation.READ, "admin")
    assert allowed(acls, "any", KeyOperation.MANAGEMENT, "admin")


def test_all_on_a_key_stands_for_every_operation() -> None:
    acls = acls_of(key__acl__k__ALL="alice")
    for operation in KeyOperation:
        assert allowed(acls, "k", operation, "alice")
        assert not allowed(acls, "k", operation, "bob")


def test_all_as_a_default_or_whitelist_is_ignored() -> None:
    acls = acls_of(default__key__acl__ALL="*", whitelist__key__acl__ALL="*")
    assert not allowed(acls, "k", KeyOperation.READ, "alice")


def test_the_operation_follows_the_last_dot_of_a_key_name() -> None:
    acls = acls_of(key__acl__a__b__c__READ="alice")
    assert allowed(acls, "a.b.c", KeyOperation.READ, "alice")


def test_properties_without_effect_are_told() -> None:
    conf = HandyConf(
        {
            "hadoop__kms__acl__CRATE": "*",
            "key__acl__k__WRITE": "*",
            "default__key__acl__ALL": "*",
            "hadoop__kms__acl__CREATE": "*",
            "key__acl__k__READ": "*",
            "other": "x",
        }
    )
    assert set(find_ineffective(conf)) == {"hadoop.kms.acl.CRATE", "key.acl.k.WRITE", "default.key.acl.ALL"}


def test_an_empty_value_is_told_to_be_no_acl() -> None:
    conf = HadoopConf({}, empty={"hadoop.kms.acl.GET", "other"})
    assert set(find_ineffective(conf)) == {"hadoop.kms.acl.GET"}
    assert "empty value" in find_ineffective(conf)["hadoop.kms.acl.GET"]
