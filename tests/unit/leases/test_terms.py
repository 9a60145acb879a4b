"""What becomes of a lease that somebody asks for, at any time by any clock."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ringfence_agent.leases.terms import MARGIN_MS, Instant, Terms, give_back, take

START = Instant(b"boot-1", 1_000_000)
HELD = Terms("one", 7, 15_000, START)


def later(ms: int, clock: bytes = START.clock) -> Instant:
    return Instant(clock, START.ms + ms)


def test_a_lease_that_nobody_had_is_taken_with_the_first_epoch() -> None:
    outcome = take(None, "one", 15_000, START, first_epoch=1_795_000_000)
    assert (outcome.is_taken, outcome.terms) == (True, Terms("one", 1_795_000_000, 15_000, START))


def test_its_holder_renews_it_in_time_and_keeps_the_epoch() -> None:
    outcome = take(HELD, "one", 20_000, later(14_999), first_epoch=1)
    assert (outcome.is_taken, outcome.terms) == (True, Terms("one", 7, 20_000, later(14_999)))


def test_its_holder_that_comes_late_begins_another_epoch() -> None:
    outcome = take(HELD, "one", 15_000, later(15_000), first_epoch=1)
    assert (outcome.is_taken, outcome.terms.epoch) == (True, 8)


def test_somebody_else_gets_it_when_it_is_over_and_not_before() -> None:
    early = take(HELD, "two", 15_000, later(15_000 + MARGIN_MS - 1), first_epoch=1)
    assert (early.is_taken, early.terms) == (False, HELD)
    late = take(HELD, "two", 5_000, later(15_000 + MARGIN_MS), first_epoch=1)
    assert (late.is_taken, late.terms) == (True, Terms("two", 8, 5_000, later(15_000 + MARGIN_MS)))


def test_one_that_was_given_back_is_free_at_once_and_the_epoch_goes_on() -> None:
    outcome = take(give_back(HELD), "two", 15_000, later(1), first_epoch=1)
    assert (outcome.is_taken, outcome.terms.epoch) == (True, 8)


def test_under_another_clock_the_holder_gets_its_whole_time_again() -> None:
    now = Instant(b"boot-2", 5)
    outcome = take(HELD, "two", 15_000, now, first_epoch=1)
    assert (outcome.is_taken, outcome.terms) == (False, replace(HELD, renewed=now))
    assert outcome.terms.left_ms(now) == 15_000 + MARGIN_MS
    assert take(outcome.terms, "two", 15_000, Instant(b"boot-2", 5 + 15_000 + MARGIN_MS), 1).is_taken


def test_a_clock_that_went_back_is_no_reason_to_wait_for_ever() -> None:
    now = later(-3_600_000)
    outcome = take(HELD, "two", 15_000, now, first_epoch=1)
    assert (outcome.is_taken, outcome.terms.renewed) == (False, now)


def test_its_own_holder_gets_it_under_another_clock_with_another_epoch() -> None:
    outcome = take(HELD, "one", 15_000, Instant(b"boot-2", 5), first_epoch=1)
    assert (outcome.is_taken, outcome.terms.epoch) == (True, 8)


@given(
    st.lists(
        st.tuples(st.sampled_from(["one", "two", "three"]), st.integers(1, 30_000), st.integers(0, 40_000)), max_size=30
    )
)
def test_no_two_hold_it_at_once_and_epochs_only_grow(asks: list[tuple[str, int, int]]) -> None:
    found: Terms | None = None
    now_ms = START.ms
    ends: dict[str, int] = {}
    for holder, ttl_ms, wait_ms in asks:
        now_ms += wait_ms
        outcome = take(found, holder, ttl_ms, Instant(START.clock, now_ms), first_epoch=1)
        assert found is None or outcome.terms.epoch >= found.epoch
        if outcome.is_taken:
            assert all(end_ms <= now_ms for other, end_ms in ends.items() if other != holder)
            if found is not None and found.holder != holder:
                assert outcome.terms.epoch > found.epoch
            ends[holder] = now_ms + ttl_ms
        found = outcome.terms
