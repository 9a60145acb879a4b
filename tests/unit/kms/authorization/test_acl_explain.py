from __future__ import annotations

from pathlib import Path

import pytest
from acl_files import SOUND, write_acls

from ringfence_agent.kms.authorization.access import Subject
from ringfence_agent.kms.authorization.acl_document import read_acl_document
from ringfence_agent.kms.authorization.acl_explain import ASKED, Explainer, PolicyInForce
from ringfence_zones.errors import InputError
from ringfence_zones.policy import parse_policy

POLICY = """
version: 1
cluster: c
zones:
  - {path: /data/pii, key: pii, owner: etl, readers: ["@staff"]}
kms: {namenode_users: [hdfs], admins: [keyadmin]}
"""


@pytest.fixture
def plain(tmp_path: Path) -> Explainer:
    return Explainer(read_acl_document(write_acls(tmp_path, SOUND)), None)


@pytest.fixture
def published(tmp_path: Path) -> Explainer:
    policy = PolicyInForce(parse_policy(POLICY, "p"), 7, "policy revision 7")
    return Explainer(read_acl_document(write_acls(tmp_path, SOUND)), policy)


def test_the_line_that_allows_is_named_with_its_value(plain: Explainer, tmp_path: Path) -> None:
    found = plain.explain(Subject("etl"), "DECRYPT_EEK", "pii")
    assert found.allowed
    assert found.groups == {"pii", "staff"}
    path = tmp_path / "kms-acls.xml"
    assert [(step.check, step.source, step.value) for step in found.steps] == [
        ("operation", f"{path}:10", "*"),
        ("key", f"{path}:15", "etl pii"),
    ]
    assert [step.rule for step in found.steps] == [
        "kms-acls.xml:hadoop.kms.acl.DECRYPT_EEK",
        "kms-acls.xml:key.acl.pii.ALL",
    ]


def test_a_blacklist_refuses_although_the_key_would_not(plain: Explainer) -> None:
    found = plain.explain(Subject("hdfs"), "DECRYPT_EEK", "other")
    assert not found.allowed
    assert found.steps[0].rule == "kms-acls.xml:hadoop.kms.blacklist.DECRYPT_EEK"


def test_a_key_whose_lines_say_nothing_of_the_operation_is_refused_by_those_lines(tmp_path: Path) -> None:
    path = write_acls(tmp_path, {"key.acl.k.READ": "etl", "default.key.acl.DECRYPT_EEK": "*"})
    found = Explainer(read_acl_document(path), None).explain(Subject("etl"), "DECRYPT_EEK", "k")
    assert not found.allowed
    assert (found.steps[1].rule, found.steps[1].source) == ("kms-acls.xml:key.acl.k", f"{path}:2")


def test_a_published_key_is_explained_by_its_zone(published: Explainer) -> None:
    found = published.explain(Subject("alice"), "DECRYPT_EEK", "pii")
    assert found.allowed
    assert found.to_json()["steps"][1] == {
        "check": "key",
        "allowed": True,
        "rule": "policy:7",
        "source": "policy revision 7: /data/pii",
        "value": "etl, @staff",
    }


def test_nobody_is_explained_to_get_the_material_of_a_published_key(published: Explainer) -> None:
    found = published.explain(Subject("keyadmin"), "GET", "pii")
    assert [step.allowed for step in found.steps] == [False, True]
    assert found.steps[0].rule == "policy:7"


def test_the_keys_own_acl_name_is_followed(plain: Explainer) -> None:
    assert plain.explain(Subject("etl"), "ROLLOVER", "another", acl_name="pii").steps[1].allowed


def test_who_acts_for_a_user_counts(tmp_path: Path) -> None:
    path = write_acls(tmp_path, {"default.key.acl.READ": "~hive"})
    explainer = Explainer(read_acl_document(path), None)
    assert explainer.explain(Subject("alice", "hive"), "READ", "k").allowed
    assert not explainer.explain(Subject("alice"), "READ", "k").allowed


def test_either_of_two_operations_is_enough_to_invalidate(tmp_path: Path) -> None:
    path = write_acls(tmp_path, {**SOUND, "hadoop.kms.acl.DELETE": "nobody", "hadoop.kms.acl.ROLLOVER": "keyadmin"})
    found = Explainer(read_acl_document(path), None).explain(Subject("keyadmin"), "INVALIDATE_CACHE", "k")
    assert found.allowed
    assert found.steps[0].rule == "kms-acls.xml:hadoop.kms.acl.ROLLOVER"


def test_every_operation_of_hadoop_can_be_asked_about(plain: Explainer) -> None:
    for operation in ASKED:
        assert plain.explain(Subject("etl"), operation, "pii").steps
    with pytest.raises(InputError, match="no operation WRITE"):
        plain.explain(Subject("etl"), "WRITE", "pii")
