from __future__ import annotations

import pytest

from ringfence_agent.kms.access import AccessRules
from ringfence_agent.kms.acls import AccessList, KeyOperation, Operation, read_acls
from ringfence_agent.kms.published import PublishedPolicy
from ringfence_zones.errors import AccessDeniedError
from ringfence_zones.hadoop_conf import HadoopConf

OPEN = {f"default.key.acl.{operation}": "*" for operation in ("MANAGEMENT", "READ", "GENERATE_EEK", "DECRYPT_EEK")}


def rules(properties: dict[str, str], *, key_authorization: bool = True) -> AccessRules:
    return AccessRules(
        read_acls(HadoopConf(properties)), lambda _: frozenset({"staff"}), key_authorization=key_authorization
    )


def published(**grants: AccessList) -> PublishedPolicy:
    by_operation = {KeyOperation[name]: who for name, who in grants.items()}
    return PublishedPolicy(1, "d", b"{}", {"zone": by_operation})


def test_a_published_key_takes_nothing_from_the_acl_file() -> None:
    access = rules({**OPEN, "whitelist.key.acl.DECRYPT_EEK": "*", "key.acl.zone.ALL": "*"})
    access.use_published(published(DECRYPT_EEK=AccessList(frozenset({"etl"}))))
    access.require_key("etl", "zone", "zone", KeyOperation.DECRYPT_EEK)
    for operation in KeyOperation:
        with pytest.raises(AccessDeniedError):
            access.require_key("hdfs", "zone", "zone", operation)
    access.require_key("hdfs", "other", "other", KeyOperation.DECRYPT_EEK)


def test_a_published_key_is_enforced_when_key_authorization_is_off() -> None:
    access = rules({}, key_authorization=False)
    access.use_published(published(READ=AccessList(groups=frozenset({"staff"}))))
    access.require_key("anyone", "zone", "zone", KeyOperation.READ)
    access.require_key("anyone", "other", "other", KeyOperation.MANAGEMENT)
    with pytest.raises(AccessDeniedError):
        access.require_key("anyone", "zone", "zone", KeyOperation.MANAGEMENT)
    with pytest.raises(AccessDeniedError):
        access.require_creation("anyone", "zone", "elsewhere")


def test_nobody_sees_the_material_of_a_published_key() -> None:
    access = rules(OPEN)
    assert access.may_see_material("hdfs", "zone")
    access.use_published(published())
    assert not access.may_see_material("hdfs", "zone")
    assert access.may_see_material("hdfs", "other")


def test_a_decision_is_forgotten_with_every_change() -> None:
    access = rules(OPEN)
    changes = (
        access.forget,
        lambda: access.use_acls(read_acls(HadoopConf({}))),
        lambda: access.use_published(published()),
    )
    for change in changes:
        access.remember("etl", Operation.DECRYPT_EEK, "zone")
        assert access.is_known("etl", Operation.DECRYPT_EEK, "zone")
        assert not access.is_known("etl", Operation.GENERATE_EEK, "zone")
        change()
        assert not access.is_known("etl", Operation.DECRYPT_EEK, "zone")
