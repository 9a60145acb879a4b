"""Rights of a zone root: policy to HDFS entries, and what counts as a difference."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ringfence_zones.model import DirectoryState
from ringfence_zones.policy import ZonePolicy, policy_from_json
from ringfence_zones.rights import find_differences, zone_rights


def _zone(**fields: Any) -> ZonePolicy:
    return policy_from_json({"version": 1, "cluster": "c", "zones": [{"path": "/z", **fields}]}).zones[0]


PII = {
    "owner": "etl",
    "group": "pii",
    "mode": "0750",
    "readers": ["analyst", "@auditors", "both"],
    "writers": ["loader", "both"],
}


def _as_set(zone: ZonePolicy) -> DirectoryState:
    """The directory as HDFS shows it after `setfacl --set` of the wanted rights: the group digit is the mask."""
    rights = zone_rights(zone)
    named = [entry for entry in rights.acl if not entry.startswith("default:")]
    mask = 0o7 if any(entry.endswith("rwx") for entry in named) else 0o5 if named else rights.group_bits
    return DirectoryState(
        path="/z",
        is_directory=True,
        is_empty=True,
        owner=rights.owner or "hdfs",
        group=rights.group or "supergroup",
        mode=rights.mode & 0o1707 | (mask | rights.group_bits) << 3,
        group_bits=rights.group_bits,
        acl=rights.acl,
    )


def test_readers_read_writers_write_and_both_is_writing() -> None:
    assert zone_rights(_zone(**PII)).acl == (
        "default:group::r-x",
        "default:group:auditors:r-x",
        "default:mask::rwx",
        "default:other::---",
        "default:user::rwx",
        "default:user:analyst:r-x",
        "default:user:both:rwx",
        "default:user:etl:rwx",
        "default:user:loader:rwx",
        "group:auditors:r-x",
        "user:analyst:r-x",
        "user:both:rwx",
        "user:etl:rwx",
        "user:loader:rwx",
    )


def test_a_star_lets_others_read_now_and_below() -> None:
    rights = zone_rights(_zone(readers=["*"], mode="0700"))
    assert rights.mode == 0o705
    # No named entry, so HDFS keeps no mask.
    assert rights.acl == ("default:group::---", "default:other::r-x", "default:user::rwx")


def test_a_zone_that_names_nobody_gets_no_acl() -> None:
    rights = zone_rights(_zone(owner="etl", mode="0750"))
    assert (rights.owner, rights.group, rights.mode, rights.acl) == ("etl", None, 0o750, ())


def test_the_mask_of_readers_alone_does_not_reach_writing() -> None:
    assert "default:mask::r-x" in zone_rights(_zone(readers=["analyst"], mode="0700")).acl


@pytest.mark.parametrize("fields", [PII, {"readers": ["*"]}, {"readers": ["a"]}, {"mode": "1770"}, {}])
def test_what_was_set_as_wanted_does_not_differ(fields: dict[str, Any]) -> None:
    zone = _zone(**fields)
    assert find_differences(zone_rights(zone), _as_set(zone)) == ()


def test_an_owner_and_group_left_open_are_not_compared() -> None:
    zone = _zone(mode="0700")
    assert find_differences(zone_rights(zone), dataclasses.replace(_as_set(zone), owner="x", group="y")) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"owner": "hdfs"}, "the owner is hdfs, not etl"),
        ({"group": "staff"}, "the group is staff, not pii"),
        ({"mode": 0o777}, "the entries of owner and others are 0707, not 0700"),
        ({"mode": 0o1770}, "the entries of owner and others are 1700, not 0700"),
        ({"group_bits": 0o7}, "the owning group has rwx, not r-x"),
        # `chmod g-w` on a directory with an ACL changes the mask: writers lose what their entry says.
        ({"mode": 0o750}, "the ACL's mask is r-x, not rwx"),
        ({"acl": ()}, "the ACL lacks default:group::r-x"),
    ],
)
def test_each_difference_is_named(change: dict[str, Any], said: str) -> None:
    zone = _zone(**PII)
    differences = find_differences(zone_rights(zone), dataclasses.replace(_as_set(zone), **change))
    assert len(differences) == 1
    assert differences[0].startswith(said)


def test_an_entry_that_nobody_asked_for_is_a_difference() -> None:
    zone = _zone(**PII)
    found = dataclasses.replace(_as_set(zone), acl=(*zone_rights(zone).acl, "user:mallory:rwx"))
    assert find_differences(zone_rights(zone), found) == ("the ACL also has user:mallory:rwx",)
