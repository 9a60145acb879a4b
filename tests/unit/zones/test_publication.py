"""What a published policy grants on each key."""

from __future__ import annotations

from ringfence_zones.policy import Policy, policy_from_json
from ringfence_zones.publication import NOBODY, Grant, KeyOp, key_grants


def _policy(**top: object) -> Policy:
    zones = [
        {
            "path": "/pii",
            "owner": "etl",
            "group": "pii",
            "mode": "0750",
            "readers": ["analyst", "@auditors"],
            "writers": ["loader"],
        },
        {"path": "/open", "readers": ["*"], "writers": ["loader"]},
        {"path": "/closed", "group": "pii", "mode": "0710"},
    ]
    kms = {"namenode_users": ["hdfs", "@namenodes"], "admins": ["keyadmin"]}
    return policy_from_json({"version": 1, "cluster": "c", "zones": zones, "kms": kms, **top})


def test_readers_writers_owner_and_reading_group_decrypt() -> None:
    grant = key_grants(_policy())["c-pii"][KeyOp.DECRYPT_EEK]
    assert grant == Grant(frozenset({"etl", "analyst", "loader"}), frozenset({"auditors", "pii"}))
    assert grant.allows("analyst", [])
    assert grant.allows("somebody", ["x", "auditors"])
    assert not grant.allows("auditors", ["analyst"])


def test_a_group_that_the_mode_keeps_from_reading_does_not_decrypt() -> None:
    assert key_grants(_policy())["c-closed"][KeyOp.DECRYPT_EEK] == NOBODY


def test_a_star_among_the_readers_lets_everybody_decrypt_and_nothing_else() -> None:
    grants = key_grants(_policy())["c-open"]
    assert grants[KeyOp.DECRYPT_EEK].allows("anybody", [])
    assert not any(grants[op].allows("anybody", []) for op in grants if op is not KeyOp.DECRYPT_EEK)


def test_namenode_users_generate_and_admins_manage_and_both_read_metadata() -> None:
    grants = key_grants(_policy())["c-pii"]
    assert grants[KeyOp.GENERATE_EEK] == Grant(frozenset({"hdfs"}), frozenset({"namenodes"}))
    assert grants[KeyOp.MANAGEMENT] == Grant(frozenset({"keyadmin"}))
    assert grants[KeyOp.READ] == Grant(frozenset({"hdfs", "keyadmin"}), frozenset({"namenodes"}))


def test_the_namenode_and_the_admins_do_not_decrypt() -> None:
    grant = key_grants(_policy())["c-pii"][KeyOp.DECRYPT_EEK]
    assert not grant.allows("hdfs", ["namenodes"])
    assert not grant.allows("keyadmin", [])


def test_all_is_never_granted_and_only_named_keys_are_decided() -> None:
    grants = key_grants(_policy())
    assert set(grants) == {"c-pii", "c-open", "c-closed"}
    assert all(KeyOp.ALL not in each for each in grants.values())
