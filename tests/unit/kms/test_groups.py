from __future__ import annotations

import asyncio
import grp
import os
import pwd
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest

from ringfence_agent.kms.groups import Groups, look_up_system_groups, parse_static_mapping
from ringfence_agent.kms.unready import Unready
from ringfence_zones.errors import ConfigError


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def load(groups: Groups, user: str) -> frozenset[str]:
    try:
        return groups.of(user)
    except Unready as missing:
        load_groups = missing.load

        async def fetch() -> None:
            await load_groups()

        asyncio.run(fetch())
    return groups.of(user)


def test_static_mapping_answers_without_a_look_up(executor: Executor) -> None:
    groups = Groups({"etl": frozenset({"pii"})}, executor, lambda: 0.0, 30.0, look_up=_never)
    assert groups.of("etl") == {"pii"}


def _never(user: str) -> frozenset[str]:
    raise AssertionError(f"{user} was looked up")


def test_a_look_up_is_believed_for_its_time_and_no_longer(executor: Executor) -> None:
    now = [0.0]
    answers = iter([frozenset({"old"}), frozenset({"new"})])
    groups = Groups({}, executor, lambda: now[0], 30.0, look_up=lambda _: next(answers))
    assert load(groups, "alice") == {"old"}
    now[0] = 29.9
    assert groups.of("alice") == {"old"}
    now[0] = 30.0
    with pytest.raises(Unready):
        groups.of("alice")
    assert load(groups, "alice") == {"new"}


def test_the_systems_groups_of_this_user() -> None:
    me = pwd.getpwuid(os.geteuid())
    assert grp.getgrgid(me.pw_gid).gr_name in look_up_system_groups(me.pw_name)


@pytest.mark.parametrize("user", ["no-such-user-here", "", "a\0b"])
def test_an_unknown_user_has_no_groups(user: str) -> None:
    assert look_up_system_groups(user) == frozenset()


def test_static_mapping_reads_as_hadoops() -> None:
    assert parse_static_mapping("a=g1,g2; b=;c = g3 ;") == {
        "a": frozenset({"g1", "g2"}),
        "b": frozenset(),
        "c": frozenset({"g3"}),
    }


@pytest.mark.parametrize("text", ["a", "=g", "a=b=c"])
def test_a_malformed_static_mapping_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"hadoop\.user\.group\.static\.mapping\.overrides"):
        parse_static_mapping(text)
