"""The check, against clusters made of plain values."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence_zones.check import find_violations
from ringfence_zones.findings import Finding, Severity
from ringfence_zones.keys import KeyMetadata
from ringfence_zones.model import ClusterState, DirectoryState, EncryptionZone, KmsState
from ringfence_zones.policy import policy_digest, policy_from_json

POLICY = policy_from_json(
    {
        "version": 1,
        "cluster": "c",
        "kms": {"namenode_users": ["hdfs"], "admins": ["hdfs"]},
        "zones": [{"path": "/a", "owner": "etl", "mode": "0750"}],
    }
)


def _key(name: str, bits: int = 256) -> KeyMetadata:
    return KeyMetadata(name, "AES/CTR/NoPadding", bits, 0, 1)


def _directory(path: str, **fields: Any) -> DirectoryState:
    values: dict[str, Any] = {
        "is_directory": True,
        "is_empty": False,
        "owner": "etl",
        "group": "supergroup",
        "mode": 0o750,
        "group_bits": 5,
        "trash_mode": 0o1777,
    }
    return DirectoryState(path=path, **{**values, **fields})


def _kms(**fields: Any) -> KmsState:
    values: dict[str, Any] = {
        "uri": "kms://https@kms:9600/kms",
        "plain_http": False,
        "is_ringfence": True,
        "revision": 1,
        "revision_digest": policy_digest(POLICY),
        "keys": {"c-a": _key("c-a")},
        "custodies": ("envelope",),
    }
    return KmsState(**{**values, **fields})


def _state(**fields: Any) -> ClusterState:
    """A cluster on which nothing is found."""
    values: dict[str, Any] = {
        "hadoop_version": (3, 4, 2),
        "zones": (EncryptionZone("/a", "c-a"),),
        "directories": {"/a": _directory("/a")},
        "protected_directories": ("/a",),
        "kms": _kms(),
    }
    return ClusterState(**{**values, **fields})


def _rules(findings: list[Finding]) -> list[str]:
    return [f"{each.rule.value} {each.path}" for each in findings]


def test_a_cluster_as_policy_and_good_practice_want_it_has_no_findings() -> None:
    assert find_violations(POLICY, _state()) == []
    assert find_violations(None, _state()) == []


def test_a_stock_cluster_shows_what_is_wrong_without_any_policy() -> None:
    state = _state(
        zones=(EncryptionZone("/a", "k"), EncryptionZone("/b", "k")),
        protected_directories=("/a/",),
        directories={"/a": _directory("/a"), "/b": _directory("/b", trash_mode=None)},
        kms=_kms(
            plain_http=True,
            is_ringfence=False,
            revision=None,
            revision_digest=None,
            keys={"k": _key("k", 128), "l": _key("l")},
            get_open={"k": True, "l": False},
        ),
    )
    found = find_violations(None, state)
    assert _rules(found) == ["kms_get_open /", "kms_plain_http /", "shared_key /a", "root_not_pinned /b"]
    shared = found[2]
    assert shared.key == "k"
    assert "/a, /b" in shared.message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"zones": ()}, "zone_missing /a"),
        ({"zones": (EncryptionZone("/a", "c-a"), EncryptionZone("/b", "k"))}, "zone_outside_policy /b"),
        ({"zones": (EncryptionZone("/a", "k"),)}, "zone_key_mismatch /a"),
        ({"kms": _kms(keys={})}, "key_missing /a"),
        ({"kms": _kms(keys={"c-a": _key("c-a", 128)})}, "key_length_mismatch /a"),
        ({"directories": {"/a": _directory("/a", owner="mallory")}}, "directory_rights /a"),
        ({"directories": {"/a": _directory("/a", trash_mode=None)}}, "trash_missing /a"),
        ({"directories": {"/a": _directory("/a", trash_mode=0o777)}}, "trash_rights /a"),
        ({"directories": {"/a": _directory("/a", is_empty=True)}}, "root_empty /a"),
        ({"protected_directories": ()}, "root_not_pinned /a"),
        ({"protected_directories": ("/", "/aa", "/a/b")}, "root_not_pinned /a"),
        ({"protected_directories": None}, "root_not_pinned /"),
        ({"hadoop_version": (3, 3, 0)}, "pin_unsupported /"),
        ({"kms": _kms(revision_digest="other")}, "revision_stale /"),
        ({"kms": _kms(revision=0, revision_digest=None)}, "revision_stale /"),
        ({"kms": _kms(plain_http=True)}, "kms_plain_http /"),
        ({"kms": _kms(get_open={"c-a": True})}, "kms_get_open /"),
        ({"kms": None, "kms_error": "connection refused"}, "kms_unreachable /"),
    ],
)
def test_each_kind_of_drift_is_found(change: dict[str, Any], expected: str) -> None:
    # A second zone brings findings of its own: only those of the kind in question are looked at.
    rules = _rules(find_violations(POLICY, _state(**change)))
    assert expected in rules
    if "zones" not in change:
        assert rules == [expected]


def test_a_stock_kms_has_no_revision_to_be_stale() -> None:
    state = _state(kms=_kms(is_ringfence=False, revision=None, revision_digest=None))
    assert find_violations(POLICY, state) == []


def test_the_most_severe_come_first() -> None:
    state = _state(directories={"/a": _directory("/a", trash_mode=None)}, protected_directories=())
    severities = [each.severity for each in find_violations(POLICY, state)]
    assert severities == [Severity.ERROR, Severity.WARN]


def test_plain_http_weighs_less_where_no_network_is_crossed() -> None:
    addresses = ["kms://http@localhost:9600/kms", "kms://http@127.0.0.1:9600/kms", "kms://http@localhost;kms2:9600/kms"]
    states = [_state(kms=_kms(plain_http=True, uri=uri)) for uri in addresses]
    severities = [find_violations(None, state)[0].severity for state in states]
    assert severities == [Severity.WARN, Severity.WARN, Severity.ERROR]


def test_a_zone_at_the_root_needs_no_pin() -> None:
    state = _state(zones=(EncryptionZone("/", "c-a"),), protected_directories=(), directories={})
    assert find_violations(None, state) == []


def test_a_kms_that_answers_with_a_refusal_is_not_said_to_be_silent() -> None:
    refused = "the KMS at kms://http@kms:9600/kms refused: User:hdfs not allowed to do 'GET_KEYS_METADATA'"
    (found,) = find_violations(POLICY, _state(kms=None, kms_error=refused))
    assert found.message == refused
