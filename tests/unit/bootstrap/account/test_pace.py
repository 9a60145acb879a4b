"""Requests are spread over time as AWS gives them back."""

from __future__ import annotations

from ringfence_bootstrap.account.pace import EMR_RATES, Pace, Rate


class Time:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def paced(time: Time, **rates: Rate) -> Pace:
    return Pace(rates, clock=lambda: time.now, sleep=time.sleep)


def test_a_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    time = Time()
    pace = paced(time, ask=Rate(3, 0.5))
    for _ in range(6):
        pace.wait("ask")
    assert time.slept == [2.0, 2.0, 2.0]


def test_what_was_left_unused_comes_back_up_to_the_burst() -> None:
    time = Time()
    pace = paced(time, ask=Rate(2, 0.5))
    for _ in range(2):
        pace.wait("ask")
    time.now += 1000
    for _ in range(3):
        pace.wait("ask")
    assert time.slept == [2.0]


def test_each_operation_has_a_rate_of_its_own_and_others_have_none() -> None:
    time = Time()
    pace = paced(time, one=Rate(1, 1.0), other=Rate(1, 1.0))
    for operation in ("one", "other", "free", "free"):
        pace.wait(operation)
    assert time.slept == []


def test_emr_is_asked_less_than_it_gives() -> None:
    assert all(rate.burst < 10 and rate.per_s <= 1 for rate in EMR_RATES.values())
