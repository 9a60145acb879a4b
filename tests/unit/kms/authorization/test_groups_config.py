from __future__ import annotations

import pytest

from ringfence_agent.kms.authorization.groups_config import (
    GroupsBlock,
    GroupSettings,
    group_settings,
    parse_static_mapping,
)
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import HadoopConf

DR_WHO = {"dr.who": frozenset[str]()}


def settings(properties: dict[str, str], block: GroupsBlock | None = None) -> GroupSettings:
    return group_settings(block or GroupsBlock(), HadoopConf(properties), 15.0)


@pytest.mark.parametrize(
    "mapping",
    [
        "org.apache.hadoop.security.ShellBasedUnixGroupsMapping",
        "org.apache.hadoop.security.JniBasedUnixGroupsMapping",
        "org.apache.hadoop.security.JniBasedUnixGroupsMappingWithFallback",
    ],
)
def test_hadoops_mappings_to_the_system_are_served_by_the_system(mapping: str) -> None:
    assert settings({"hadoop.security.group.mapping": mapping}) == settings({})
    assert settings({}).asks_system


def test_hadoops_mapping_to_nothing_is_served_by_nothing() -> None:
    assert not settings({"hadoop.security.group.mapping": "org.apache.hadoop.security.NullGroupsMapping"}).asks_system


@pytest.mark.parametrize(
    "mapping",
    [
        "org.apache.hadoop.security.LdapGroupsMapping",
        "org.apache.hadoop.security.CompositeGroupsMapping",
        "org.apache.hadoop.security.ShellBasedUnixGroupsNetgroupMapping",
        "com.example.Groups",
    ],
)
def test_a_mapping_that_cannot_be_served_is_refused_with_the_way_out(mapping: str) -> None:
    with pytest.raises(ConfigError, match=r"hadoop\.security\.group\.mapping is") as refused:
        settings({"hadoop.security.group.mapping": mapping})
    assert "SSSD" in (refused.value.hint or "")


def test_look_ups_are_believed_as_long_as_hadoop_says_but_never_beyond_the_bound() -> None:
    assert settings({}) == GroupSettings(15.0, 15.0, DR_WHO)
    shorter = settings({"hadoop.security.groups.cache.secs": "5", "hadoop.security.groups.negative-cache.secs": "2"})
    assert shorter == GroupSettings(5.0, 2.0, DR_WHO)


def test_the_block_of_kms_yaml_goes_before_hadoops_properties() -> None:
    block = GroupsBlock.model_validate(
        {"source": "none", "static": {"etl": ["pii"]}, "cache": "3s", "negative_cache": "1s"}
    )
    found = settings({"hadoop.security.group.mapping": "com.example.Groups"}, block)
    assert found == GroupSettings(3.0, 1.0, {"etl": frozenset({"pii"})}, asks_system=False)


def test_static_mapping_reads_as_hadoops() -> None:
    assert parse_static_mapping("a=g1,g2; b=;c = g3 ;d") == {
        "a": frozenset({"g1", "g2"}),
        " b": frozenset(),
        "c ": frozenset({" g3 "}),
        "d": frozenset(),
    }


@pytest.mark.parametrize("text", ["a=b=c", "a=b;=", "c=d=;e=f=g"])
def test_a_malformed_static_mapping_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"hadoop\.user\.group\.static\.mapping\.overrides"):
        parse_static_mapping(text)
