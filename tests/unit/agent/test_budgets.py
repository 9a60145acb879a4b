"""What the agent may cost, with usage and clock that tests set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from ringfence_agent import budgets as budgets_module
from ringfence_agent.budgets import Bucket, Budgets, Process, Usage, measure_processes

MIB = 1024**2


@dataclass
class _Child:
    pid: int | None
    calls_made: int = 0
    closed: int = 0

    def close(self) -> None:
        self.closed += 1


class _World:
    def __init__(self, children: Sequence[_Child] = ()) -> None:
        self.now_s = 0.0
        self.usage = Usage(0, 0.0, 200 * MIB, 100 * MIB)
        self.budgets = Budgets(
            children,
            hdfs_calls_per_minute=600,
            cpu_percent=25,
            memory_bytes=1024 * MIB,
            measure=self._measure,
            clock=lambda: self.now_s,
        )

    def _measure(self, _children: Sequence[Process]) -> Usage:
        return self.usage

    def use(self, seconds: float, **more: float) -> bool:
        self.now_s += seconds
        for name, amount in more.items():
            self.usage = replace(
                self.usage, **{name: type(getattr(self.usage, name))(getattr(self.usage, name) + amount)}
            )
        return self.budgets.measure()


def test_a_bucket_may_be_overdrawn_and_says_for_how_long() -> None:
    now_s = [0.0]
    bucket = Bucket(10.0, 100.0, lambda: now_s[0])
    bucket.spend(100)
    assert bucket.delay_s() == 0.0
    bucket.spend(50)
    assert bucket.delay_s() == 5.0
    now_s[0] = 5.0
    assert bucket.delay_s() == 0.0
    now_s[0] = 1000.0
    assert bucket.share_left() == 1.0


def test_a_bucket_is_overdrawn_by_no_more_than_it_holds() -> None:
    bucket = Bucket(10.0, 100.0, lambda: 0.0)
    bucket.spend(100_000)
    assert bucket.delay_s() == 10.0


def test_within_its_budget_it_never_rests() -> None:
    world = _World()
    for _ in range(100):
        assert world.use(5, calls=40, cpu_s=1.0)
        assert world.budgets.pause_s() == 0.0
    assert world.budgets.view.exceeded is None
    assert world.budgets.view.to_json()["cpu_percent"] == {"used": 20.0, "limit": 25}
    assert world.budgets.view.to_json()["hdfs_calls_per_minute"] == {"used": 480, "limit": 600}


@pytest.mark.parametrize("more", [{"calls": 100.0}, {"cpu_s": 4.0}])
def test_beyond_it_it_rests_until_it_is_within(more: dict[str, float]) -> None:
    world = _World()
    world.use(0)
    for _ in range(60):
        world.use(5 + world.budgets.pause_s(), **more)
    began_s, before = world.now_s, world.usage
    for _ in range(60):
        world.use(5 + world.budgets.pause_s(), **more)
    span_s = world.now_s - began_s
    assert world.budgets.view.exceeded is not None
    assert (world.usage.calls - before.calls) / span_s <= 10.0 * 1.1
    assert (world.usage.cpu_s - before.cpu_s) / span_s <= 0.25 * 1.1


def test_a_half_empty_bucket_leaves_samples_out() -> None:
    world = _World()
    world.use(0)
    assert world.budgets.has_room()
    world.use(0.1, calls=400)
    assert not world.budgets.has_room()
    assert world.budgets.pause_s() == 0.0


def test_starting_java_is_within_the_budget() -> None:
    world = _World()
    world.use(0)
    world.use(10, cpu_s=20.0)
    assert world.budgets.pause_s() == 0.0


def test_java_that_grows_is_started_anew_the_larger_first_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    children = [_Child(11), _Child(12), _Child(None)]
    monkeypatch.setattr(budgets_module, "_memory_bytes", {11: 300 * MIB, 12: 800 * MIB}.__getitem__)
    world = _World(children)
    assert world.use(1, memory_bytes=1000 * MIB)
    assert world.use(1)
    assert [child.closed for child in children] == [0, 1, 0]
    assert world.budgets.view.exceeded == "the agent and its Java use 1200 MiB of memory, and may use 1024"
    world.use(61)
    assert [child.closed for child in children] == [0, 2, 0]


def test_an_agent_that_grows_itself_must_not_go_on() -> None:
    world = _World()
    assert not world.use(1, own_memory_bytes=1000 * MIB, memory_bytes=1000 * MIB)


def test_real_processes_are_measured() -> None:
    sum(number * number for number in range(2_000_000))
    usage = measure_processes([_Child(os.getppid(), calls_made=3), _Child(None, calls_made=4), _Child(2**22 + 1)])
    assert usage.calls == 7
    assert usage.cpu_s > 0.0
    assert usage.memory_bytes > usage.own_memory_bytes > MIB
