from __future__ import annotations

import time

import pytest

from ringfence_zones.errors import PolicyError
from ringfence_zones.findings import Rule
from ringfence_zones.hadoop_xml import read_properties, set_properties
from ringfence_zones.policy import Policy, parse_policy
from ringfence_zones.stock_acls import stock_acls

ZONES = """
version: 1
cluster: c
zones:
  - {path: /data/pii, key: pii, owner: etl, group: pii, mode: "0750", readers: [analyst, "@staff"]}
  - {path: /open, key: open, readers: ["*"]}
"""
POLICY = ZONES + "kms: {namenode_users: [hdfs], admins: ['@keyadmins']}\n"
EMPTY = b"<configuration/>"


def policy(text: str = POLICY) -> Policy:
    return parse_policy(text, "zones.yaml")


def existing(**properties: str) -> bytes:
    return set_properties(EMPTY, {name.replace("__", "."): value for name, value in properties.items()})


def findings(document: bytes | None, text: str = POLICY) -> list[tuple[Rule, str]]:
    with pytest.raises(PolicyError) as refused:
        stock_acls(policy(text), document, "kms-acls.xml")
    return [(finding.rule, finding.message) for finding in refused.value.findings]


def test_each_key_gets_four_lines_and_nobody_gets_material() -> None:
    made = stock_acls(policy(), None, "")
    assert made.properties == {
        "hadoop.kms.acl.GET": " ",
        "key.acl.pii.MANAGEMENT": " keyadmins",
        "key.acl.pii.GENERATE_EEK": "hdfs",
        "key.acl.pii.DECRYPT_EEK": "analyst,etl pii,staff",
        "key.acl.pii.READ": "hdfs keyadmins",
        "key.acl.open.MANAGEMENT": " keyadmins",
        "key.acl.open.GENERATE_EEK": "hdfs",
        "key.acl.open.DECRYPT_EEK": "*",
        "key.acl.open.READ": "hdfs keyadmins",
    }
    assert {name: found.value for name, found in read_properties(made.document).items()} == made.properties


def test_merging_leaves_the_rest_as_it_was() -> None:
    document = (
        b"<configuration>\n<!-- ours -->\n<property><name>hadoop.kms.acl.GET</name><value>*</value></property>\n"
        b"<property><name>key.acl.pii.READ</name><value>mallory</value></property>\n"
        b"<property><name>default.key.acl.READ</name><value>*</value></property>\n</configuration>\n"
    )
    made = stock_acls(policy(), document, "kms-acls.xml").document
    found = {name: each.value for name, each in read_properties(made).items()}
    assert found["default.key.acl.READ"] == "*"
    assert (found["hadoop.kms.acl.GET"], found["key.acl.pii.READ"]) == (" ", "hdfs keyadmins")
    assert b"<!-- ours -->" in made
    assert stock_acls(policy(), made, "kms-acls.xml").document == made


@pytest.mark.parametrize(
    ("document", "word"),
    [
        (existing(hadoop__kms__acl__GET="backup"), "backup"),
        (existing(key__acl__pii__ALL="etl"), "key.acl.pii.ALL"),
        (existing(whitelist__key__acl__DECRYPT_EEK="etl,root"), "root"),
        (existing(whitelist__key__acl__MANAGEMENT="*"), "everybody"),
    ],
)
def test_lines_that_would_give_more_than_the_policy_are_refused(document: bytes, word: str) -> None:
    found = findings(document)
    assert {rule for rule, _ in found} == {Rule.NEEDS_RINGFENCE_KMS}
    assert word in found[0][1]


def test_a_whitelist_that_gives_no_more_than_the_policy_is_fine() -> None:
    document = existing(whitelist__key__acl__MANAGEMENT=" keyadmins", whitelist__key__acl__READ=" ")
    assert stock_acls(policy(), document, "kms-acls.xml").document.startswith(document[:15])


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (ZONES, Rule.MISSING_KMS),
        (POLICY + "flows: []\n", Rule.NEEDS_RINGFENCE_KMS),
        (POLICY.replace("key: open,", "key: open, custody: transit,"), Rule.NEEDS_RINGFENCE_KMS),
        (POLICY.replace("analyst", "'${user.name}'"), Rule.BAD_VALUE),
    ],
)
def test_what_a_stock_kms_cannot_express_is_refused(text: str, rule: Rule) -> None:
    assert {found for found, _ in findings(None, text)} == {rule}


def test_a_thousand_zones_are_merged_twice_in_seconds() -> None:
    many = "".join(f"  - {{path: /z/{number}, key: z-{number}, readers: [a]}}\n" for number in range(1000))
    large = policy(f"version: 1\ncluster: c\nzones:\n{many}kms: {{namenode_users: [hdfs], admins: [hdfs]}}\n")
    began = time.monotonic()
    made = stock_acls(large, EMPTY, "kms-acls.xml").document
    assert stock_acls(large, made, "kms-acls.xml").document == made
    assert time.monotonic() - began < 30
