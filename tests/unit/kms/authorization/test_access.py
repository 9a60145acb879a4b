from __future__ import annotations

import pytest

from ringfence_agent.kms.authorization.access import AccessRules, Subject
from ringfence_agent.kms.authorization.acls import KeyOperation, Operation, read_acls
from ringfence_agent.kms.authorization.published import PublishedPolicy
from ringfence_zones.access_list import AccessList
from ringfence_zones.errors import AccessDeniedError
from ringfence_zones.hadoop_conf import HadoopConf

OPEN = {f"default.key.acl.{operation}": "*" for operation in ("MANAGEMENT", "READ", "GENERATE_EEK", "DECRYPT_EEK")}


def rules(properties: dict[str, str], *, key_authorization: bool = True) -> AccessRules:
    return AccessRules(
        read_acls(HadoopConf(properties)), lambda _: frozenset({"staff"}), key_authorization=key_authorization
    )


def published(**grants: AccessList) -> PublishedPolicy:
    by_operation = {KeyOperation[name]: who for name, who in grants.items()}
    return PublishedPolicy(1, "d", b"{}", {"zone": by_operation}, {"zone": 1, "dropped": 0}, "policy:1")


def test_a_published_key_takes_nothing_from_the_acl_file() -> None:
    access = rules({**OPEN, "whitelist.key.acl.DECRYPT_EEK": "*", "key.acl.zone.ALL": "*"})
    access.use_published(published(DECRYPT_EEK=AccessList(frozenset({"etl"}))))
    access.require_key(Subject("etl"), "zone", "zone", KeyOperation.DECRYPT_EEK)
    for operation in KeyOperation:
        with pytest.raises(AccessDeniedError):
            access.require_key(Subject("hdfs"), "zone", "zone", operation)
    access.require_key(Subject("hdfs"), "other", "other", KeyOperation.DECRYPT_EEK)


def test_a_published_key_is_enforced_when_key_authorization_is_off() -> None:
    access = rules({}, key_authorization=False)
    access.use_published(published(READ=AccessList(groups=frozenset({"staff"}))))
    access.require_key(Subject("anyone"), "zone", "zone", KeyOperation.READ)
    access.require_key(Subject("anyone"), "other", "other", KeyOperation.MANAGEMENT)
    with pytest.raises(AccessDeniedError):
        access.require_key(Subject("anyone"), "zone", "zone", KeyOperation.MANAGEMENT)
    with pytest.raises(AccessDeniedError):
        access.require_creation(Subject("anyone"), "zone", "elsewhere")


def test_nobody_sees_the_material_of_a_published_key() -> None:
    access = rules(OPEN)
    assert access.may_see_material(Subject("hdfs"), "zone")
    access.use_published(published())
    assert not access.may_see_material(Subject("hdfs"), "zone")
    assert access.may_see_material(Subject("hdfs"), "other")


def test_nobody_sees_the_material_of_a_key_that_only_an_earlier_revision_named() -> None:
    access = rules(OPEN)
    access.use_published(published())
    asker = Subject("hdfs")
    access.require_key(asker, "dropped", "dropped", KeyOperation.READ)
    with pytest.raises(AccessDeniedError, match="User:hdfs not allowed to do 'GET_KEY_VERSION' on 'dropped'"):
        access.require_material(asker, "GET_KEY_VERSION", "dropped")
    assert asker.rule == "policy:0"


@pytest.mark.parametrize(
    ("properties", "rule"),
    [
        ({}, "kms-acls.xml:none"),
        ({"default.key.acl.READ": "alice"}, "kms-acls.xml:default.key.acl.READ"),
        ({"whitelist.key.acl.READ": "alice"}, "kms-acls.xml:whitelist.key.acl.READ"),
        ({"key.acl.other.READ": "alice"}, "kms-acls.xml:key.acl.other.READ"),
        ({"key.acl.other.ALL": "alice", "default.key.acl.READ": "*"}, "kms-acls.xml:key.acl.other"),
    ],
)
def test_a_refusal_leaves_the_line_that_refused(properties: dict[str, str], rule: str) -> None:
    access, asker = rules(properties), Subject("etl")
    with pytest.raises(AccessDeniedError):
        access.require_key(asker, "other", "other", KeyOperation.READ)
    assert asker.rule == rule


@pytest.mark.parametrize(
    ("properties", "rule"),
    [
        ({"default.key.acl.READ": "alice,etl"}, "kms-acls.xml:default.key.acl.READ"),
        ({"whitelist.key.acl.READ": " staff", "key.acl.other.READ": "x"}, "kms-acls.xml:whitelist.key.acl.READ"),
        ({"key.acl.other.ALL": "etl", "key.acl.other.READ": "x"}, "kms-acls.xml:key.acl.other.ALL"),
    ],
)
def test_leave_names_the_line_that_gives_it_also_when_it_is_remembered(properties: dict[str, str], rule: str) -> None:
    access, asker, again = rules(properties), Subject("etl"), Subject("etl")
    access.require_key(asker, "other", "other", KeyOperation.READ)
    access.remember(asker, Operation.GENERATE_EEK, "other")
    assert access.is_known(again, Operation.GENERATE_EEK, "other")
    assert asker.rule == again.rule == rule


def test_an_operation_is_refused_by_its_acl_or_its_blacklist_and_allowed_by_default() -> None:
    access, asker = rules({"hadoop.kms.acl.GET": " ", "hadoop.kms.blacklist.CREATE": "etl"}), Subject("etl")
    for operation, rule in ((Operation.GET, "hadoop.kms.acl.GET"), (Operation.CREATE, "hadoop.kms.blacklist.CREATE")):
        with pytest.raises(AccessDeniedError):
            access.require_operation(asker, "X", None, operation)
        assert asker.rule == f"kms-acls.xml:{rule}"
    access.require_operation(asker, "X", None, Operation.GET, Operation.DELETE)
    assert asker.rule == "kms-acls.xml:default:hadoop.kms.acl.DELETE"


def test_what_is_remembered_for_a_user_is_not_for_somebody_who_acts_for_the_user() -> None:
    access = rules({"default.key.acl.READ": "etl,~oozie"})
    access.remember(Subject("etl", rule="r"), Operation.DECRYPT_EEK, "zone")
    assert not access.is_known(Subject("etl", "oozie"), Operation.DECRYPT_EEK, "zone")
    access.require_key(Subject("bob", "oozie"), "other", "other", KeyOperation.READ)
    with pytest.raises(AccessDeniedError):
        access.require_key(Subject("bob", "hive"), "other", "other", KeyOperation.READ)


def test_a_decision_is_forgotten_with_every_change() -> None:
    access = rules(OPEN)
    changes = (
        access.forget,
        lambda: access.use_acls(read_acls(HadoopConf({}))),
        lambda: access.use_published(published()),
    )
    for change in changes:
        access.remember(Subject("etl", rule="policy:1"), Operation.DECRYPT_EEK, "zone")
        assert access.is_known(Subject("etl"), Operation.DECRYPT_EEK, "zone")
        assert not access.is_known(Subject("etl"), Operation.GENERATE_EEK, "zone")
        change()
        assert not access.is_known(Subject("etl"), Operation.DECRYPT_EEK, "zone")
