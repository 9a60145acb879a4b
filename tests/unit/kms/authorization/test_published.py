from __future__ import annotations

import hashlib

import pytest
from memory_keystore import MemoryKeyStore

from ringfence_agent.keystore.interface import PolicyRevision
from ringfence_agent.kms.authorization.acls import KeyOperation
from ringfence_agent.kms.authorization.published import NOTHING_PUBLISHED, read_if_newer, read_published
from ringfence_zones.access_list import EVERYBODY, AccessList
from ringfence_zones.errors import StoreTamperedError
from ringfence_zones.policy import canonical_json, parse_policy

POLICY = """
version: 1
cluster: c
zones:
  - {path: /a, key: ka, owner: etl, readers: ["@pii", bob], writers: [loader]}
  - {path: /b, key: kb, readers: ["*"], writers: [etl]}
kms: {namenode_users: [hdfs], admins: ["@keyadmins"]}
"""


def revision(document: bytes) -> PolicyRevision:
    return PolicyRevision(4, document, hashlib.sha256(document).hexdigest(), "uid 0", 1)


def test_each_key_gets_the_grants_of_its_zone() -> None:
    document = canonical_json(parse_policy(POLICY, "p"))
    published = read_published(revision(document))
    assert (published.revision, published.document) == (4, document)
    assert set(published.grants) == {"ka", "kb"}
    grants = published.grants["ka"]
    assert grants[KeyOperation.DECRYPT_EEK] == AccessList(frozenset({"etl", "bob", "loader"}), frozenset({"pii"}))
    assert grants[KeyOperation.GENERATE_EEK] == AccessList(frozenset({"hdfs"}))
    assert grants[KeyOperation.MANAGEMENT] == AccessList(groups=frozenset({"keyadmins"}))
    assert grants[KeyOperation.READ] == AccessList(frozenset({"hdfs"}), frozenset({"keyadmins"}))
    assert KeyOperation.ALL not in grants
    assert published.admins == AccessList(groups=frozenset({"keyadmins"}))
    everybody = published.grants["kb"][KeyOperation.DECRYPT_EEK]
    assert everybody.everybody is EVERYBODY.everybody is True


def test_no_revision_grants_nothing_and_names_no_key() -> None:
    assert read_published(None) is NOTHING_PUBLISHED
    assert NOTHING_PUBLISHED.revision == 0
    assert not NOTHING_PUBLISHED.grants


@pytest.mark.parametrize("document", [b"", b"{", b"[]", b'{"version": 2}', b"\xff"])
def test_a_stored_document_that_is_no_policy_is_never_read_as_an_empty_one(document: bytes) -> None:
    with pytest.raises(StoreTamperedError, match="revision 4"):
        read_published(revision(document))


def test_a_key_stays_named_when_a_later_revision_leaves_its_zone_out() -> None:
    store = MemoryKeyStore()
    zones = POLICY.splitlines(keepends=True)
    for count, text in enumerate((POLICY, POLICY, "".join(line for line in zones if "/a" not in line))):
        store.publish_policy(count, canonical_json(parse_policy(text, "p")), "uid 0")
    at_once = read_if_newer(NOTHING_PUBLISHED, store)
    assert at_once is not None
    assert set(at_once.grants) == {"kb"}
    assert at_once.named == {"ka": 2, "kb": 3}
    assert at_once.rule == "policy:3"
    assert read_if_newer(at_once, store) is None


def test_names_are_gathered_one_revision_after_the_other() -> None:
    store = MemoryKeyStore()
    published = NOTHING_PUBLISHED
    for number in range(3):
        text = POLICY.replace("ka", f"k{number}")
        store.publish_policy(number, canonical_json(parse_policy(text, "p")), "uid 0")
        newer = read_if_newer(published, store)
        assert newer is not None
        published = newer
    assert published.named == {"k0": 1, "k1": 2, "k2": 3, "kb": 3}


def test_an_earlier_revision_that_cannot_be_read_is_not_taken_for_one_that_names_nothing() -> None:
    store = MemoryKeyStore()
    store.publish_policy(0, b'{"zones": 1}', "uid 0")
    store.publish_policy(1, canonical_json(parse_policy(POLICY, "p")), "uid 0")
    with pytest.raises(StoreTamperedError, match="revision 1"):
        read_if_newer(NOTHING_PUBLISHED, store)


def test_a_policy_does_not_go_back_to_an_earlier_revision() -> None:
    store = MemoryKeyStore()
    for number in range(2):
        store.publish_policy(number, canonical_json(parse_policy(POLICY.replace("ka", f"k{number}"), "p")), "uid 0")
    published = read_if_newer(NOTHING_PUBLISHED, store)
    assert published is not None
    earlier, empty = MemoryKeyStore(), MemoryKeyStore()
    earlier.publish_policy(0, canonical_json(parse_policy(POLICY, "p")), "uid 0")
    for each in (earlier, empty):
        with pytest.raises(StoreTamperedError, match="revision 2 is gone"):
            read_if_newer(published, each)
