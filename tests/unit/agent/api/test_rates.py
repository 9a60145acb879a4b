"""How often one caller may ask."""

from __future__ import annotations

from agent_api import Clock

from ringfence_agent.api import rates
from ringfence_agent.api.rates import RateLimit


def test_a_burst_then_one_at_a_time() -> None:
    clock = Clock()
    limit = RateLimit(10.0, 3.0, clock)
    assert [limit.take("a") for _ in range(3)] == [0.0] * 3
    assert 0.09 < limit.take("a") <= 0.1
    clock.now += 0.1
    assert limit.take("a") == 0.0
    assert limit.take("a") > 0.0


def test_a_refused_request_takes_nothing() -> None:
    clock = Clock()
    limit = RateLimit(1.0, 1.0, clock)
    limit.take("a")
    for _ in range(50):
        limit.take("a")
    clock.now += 1.0
    assert limit.take("a") == 0.0


def test_each_caller_has_its_own() -> None:
    limit = RateLimit(1.0, 1.0, Clock())
    assert limit.take("a") == 0.0
    assert limit.take("a") > 0.0
    assert limit.take("b") == 0.0


def test_a_full_bucket_holds_no_more_than_the_burst() -> None:
    clock = Clock()
    limit = RateLimit(10.0, 2.0, clock)
    limit.take("a")
    clock.now += 3600
    assert [limit.take("a") == 0.0 for _ in range(3)] == [True, True, False]


def test_looking_takes_nothing() -> None:
    limit = RateLimit(1.0, 1.0, Clock())
    for _ in range(3):
        assert limit.wait_s("a") == 0.0
    limit.take("a")
    assert limit.wait_s("a") == limit.wait_s("a") > 0.0


def test_only_so_many_are_remembered() -> None:
    limit = RateLimit(1.0, 1.0, Clock())
    for number in range(rates.MAX_KNOWN + 1):
        limit.take(number)
    assert len(limit._buckets) == rates.MAX_KNOWN
    assert limit.take(0) == 0.0  # forgotten
    assert limit.take(rates.MAX_KNOWN) > 0.0
