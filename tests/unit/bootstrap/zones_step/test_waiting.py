"""The bounded wait: what it says, when it gives up, and as which error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ringfence_bootstrap.zones_step.waiting import Clock, Sight, wait_for_hdfs
from ringfence_zones.errors import HdfsPermissionError, NameNodeUnavailableError, RefusedError
from ringfence_zones.findings import Rule

OURS = "kms://http@localhost:9600/kms"
READY = Sight(None, OURS)
DOWN = Sight("the NameNode does not answer", None)
OTHER = Sight("the NameNode's key provider is kms://http@old:9600/kms", "kms://http@old:9600/kms", is_refusal=True)


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def clock(self) -> Clock:
        return Clock(lambda: self.now_s, self.sleep)

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now_s += max(seconds, 0.001)


def look_at(*sights: Sight) -> Iterator[Sight]:
    yield from sights
    while True:
        yield sights[-1]


def wait(limit_s: float, *sights: Sight) -> tuple[Sight, list[str], float]:
    seen, told, time = look_at(*sights), list[str](), Time()
    return wait_for_hdfs(lambda: next(seen), limit_s, told.append, time.clock()), told, time.now_s


def test_what_is_there_is_not_waited_for() -> None:
    assert wait(0, READY) == (READY, [], 0.0)


def test_each_new_reason_is_told_once() -> None:
    sight, told, now_s = wait(60, DOWN, DOWN, OTHER, OTHER, READY)
    assert sight is READY
    assert told == [DOWN.missing, OTHER.missing]
    assert now_s == pytest.approx(12)


def test_another_key_provider_at_the_end_is_a_refusal_that_names_it() -> None:
    with pytest.raises(RefusedError, match=r"kms://http@old:9600/kms; no key and no zone was made") as caught:
        wait(10, DOWN, OTHER)
    assert caught.value.rule is Rule.NODE_PROVIDER
    assert "for ever" in (caught.value.hint or "")


def test_a_namenode_that_never_comes_is_a_failure_and_no_refusal() -> None:
    with pytest.raises(NameNodeUnavailableError, match="waited 10 s: the NameNode does not answer"):
        wait(10, OTHER, DOWN)


def test_the_wait_ends_at_its_limit() -> None:
    seen, time = look_at(DOWN), Time()
    with pytest.raises(NameNodeUnavailableError):
        wait_for_hdfs(lambda: next(seen), 10, lambda _text: None, time.clock())
    assert time.now_s == pytest.approx(10, abs=0.1)


def test_what_waiting_does_not_mend_ends_it_at_once() -> None:
    def look() -> Sight:
        raise HdfsPermissionError("root is nobody here")

    time = Time()
    with pytest.raises(HdfsPermissionError):
        wait_for_hdfs(look, 60, lambda _text: None, time.clock())
    assert time.now_s == 0
