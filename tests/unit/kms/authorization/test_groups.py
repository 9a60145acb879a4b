from __future__ import annotations

import asyncio
import os
import pwd
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest

from ringfence_agent.kms.authorization.groups import Groups
from ringfence_agent.kms.authorization.groups_config import GroupSettings
from ringfence_agent.kms.unready import Unready
from ringfence_zones.errors import StoreUnavailableError

SETTINGS = GroupSettings(keep_s=30.0, keep_unknown_s=10.0)


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


async def load(groups: Groups, user: str) -> frozenset[str]:
    try:
        return groups.of(user)
    except Unready as missing:
        await missing.load()
    return groups.of(user)


def answering(*answers: set[str]) -> Callable[[str], frozenset[str]]:
    remaining = iter(answers)
    return lambda _: frozenset(next(remaining))


def never(user: str) -> frozenset[str]:
    raise AssertionError(f"{user} was looked up")


def test_static_mapping_answers_without_a_look_up(executor: Executor) -> None:
    settings = GroupSettings(30.0, 10.0, {"etl": frozenset({"pii"})})
    assert Groups(settings, executor, lambda: 0.0, look_up=never).of("etl") == {"pii"}


def test_a_look_up_is_believed_for_its_time_and_no_longer(executor: Executor) -> None:
    async def scenario() -> None:
        now = [0.0]
        groups = Groups(SETTINGS, executor, lambda: now[0], look_up=answering({"old"}, {"new"}))
        assert await load(groups, "alice") == {"old"}
        now[0] = 14.9
        assert groups.of("alice") == {"old"}
        now[0] = 30.0
        with pytest.raises(Unready):
            groups.of("alice")
        assert await load(groups, "alice") == {"new"}

    asyncio.run(scenario())


def test_a_user_in_use_is_looked_up_again_before_the_time_is_over_and_waits_for_nobody(executor: Executor) -> None:
    async def scenario() -> None:
        now = [0.0]
        groups = Groups(SETTINGS, executor, lambda: now[0], look_up=answering({"old"}, {"new"}))
        await load(groups, "alice")
        now[0] = 15.0
        assert groups.of("alice") == {"old"}
        for _ in range(1000):
            if groups.of("alice") == {"new"}:
                break
            await asyncio.sleep(0.001)
        now[0] = 44.0
        assert groups.of("alice") == {"new"}

    asyncio.run(scenario())


def test_a_user_in_no_group_is_remembered_for_the_shorter_time(executor: Executor) -> None:
    async def scenario() -> None:
        now = [0.0]
        groups = Groups(SETTINGS, executor, lambda: now[0], look_up=answering(set(), {"new"}))
        assert await load(groups, "alice") == frozenset()
        now[0] = 10.0
        assert await load(groups, "alice") == {"new"}

    asyncio.run(scenario())


def test_many_who_wait_for_one_user_share_one_look_up(executor: Executor) -> None:
    async def scenario() -> None:
        groups = Groups(SETTINGS, executor, lambda: 0.0, look_up=answering({"once"}))
        found = await asyncio.gather(*(load(groups, "alice") for _ in range(50)))
        assert found == [{"once"}] * 50

    asyncio.run(scenario())


def test_a_directory_that_hangs_refuses_its_user_and_holds_up_nobody_else(executor: Executor) -> None:
    answer = threading.Event()

    def look_up(user: str) -> frozenset[str]:
        if user == "slow":
            assert answer.wait(20)
        return frozenset({user})

    async def scenario() -> None:
        groups = Groups(SETTINGS, executor, lambda: 0.0, look_up=look_up, patience_s=0.02)
        with pytest.raises(StoreUnavailableError, match="the groups of slow"):
            await load(groups, "slow")
        assert await load(groups, "quick") == {"quick"}
        answer.set()
        # What comes late is taken all the same.
        patient = Groups(SETTINGS, executor, lambda: 0.0, look_up=look_up)
        assert await load(patient, "slow") == {"slow"}

    try:
        asyncio.run(scenario())
    finally:
        answer.set()


def test_an_answer_that_took_longer_than_one_is_believed_serves_who_waited_and_nobody_after(executor: Executor) -> None:
    now = [0.0]

    def look_up(_user: str) -> frozenset[str]:
        now[0] = 40.0
        return frozenset({"late"})

    async def scenario() -> None:
        groups = Groups(SETTINGS, executor, lambda: now[0], look_up=look_up)
        assert await load(groups, "alice") == {"late"}
        now[0] = 41.0
        with pytest.raises(Unready):
            groups.of("alice")

    asyncio.run(scenario())


def test_without_a_source_nobody_but_the_static_users_has_groups(executor: Executor) -> None:
    settings = GroupSettings(30.0, 10.0, {"etl": frozenset({"pii"})}, asks_system=False)

    async def scenario() -> None:
        groups = Groups(settings, executor, lambda: 0.0)
        assert await load(groups, pwd.getpwuid(os.geteuid()).pw_name) == frozenset()

    asyncio.run(scenario())


def test_a_look_up_that_failed_is_no_answer_and_not_remembered(executor: ThreadPoolExecutor) -> None:
    answers: list[Exception | frozenset[str]] = [StoreUnavailableError("down"), frozenset({"pii"})]

    def look_up(_user: str) -> frozenset[str]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def scenario() -> None:
        groups = Groups(GroupSettings(30.0, 10.0), executor, lambda: 0.0, look_up=look_up)
        with pytest.raises(StoreUnavailableError):
            await load(groups, "alice")
        assert await load(groups, "alice") == {"pii"}

    asyncio.run(scenario())
