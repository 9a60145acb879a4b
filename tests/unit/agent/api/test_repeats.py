"""A change that is asked for twice is made once."""

from __future__ import annotations

import pytest
from agent_api import Clock

from ringfence_agent.api import repeats
from ringfence_agent.api.repeats import KEPT_S, Answer, Conflict, Repeats, parse_key
from ringfence_zones.errors import InputError

NAME = ("peercred:etl:1000", "POST", "/v1/grants", "k")
DONE = Answer(202, (), b"{}")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(clock: Clock) -> Repeats:
    return Repeats(clock)


def test_the_same_request_gets_the_same_answer(kept: Repeats) -> None:
    assert kept.begin(NAME, b"x") is None
    kept.end(NAME, DONE)
    assert kept.begin(NAME, b"x") == DONE


def test_a_key_is_one_callers_own_and_one_paths(kept: Repeats) -> None:
    kept.begin(NAME, b"x")
    kept.end(NAME, DONE)
    for place, other in enumerate(("peercred:eve:1001", "DELETE", "/v1/tokens", "j")):
        name = list(NAME)
        name[place] = other
        assert kept.begin((name[0], name[1], name[2], name[3]), b"x") is None


def test_another_body_under_the_same_key_is_refused(kept: Repeats) -> None:
    kept.begin(NAME, b"x")
    assert kept.begin(NAME, b"y") is Conflict.REUSED
    kept.end(NAME, DONE)
    assert kept.begin(NAME, b"y") is Conflict.REUSED


def test_while_the_first_is_under_way_the_second_waits(kept: Repeats) -> None:
    kept.begin(NAME, b"x")
    assert kept.begin(NAME, b"x") is Conflict.IN_USE


@pytest.mark.parametrize("answer", [None, *(Answer(status, (), b"") for status in (401, 403, 408, 409, 429, 500, 503))])
def test_what_failed_for_the_moment_may_be_tried_again(kept: Repeats, answer: Answer | None) -> None:
    kept.begin(NAME, b"x")
    kept.end(NAME, answer)
    assert kept.begin(NAME, b"x") is None


@pytest.mark.parametrize("status", [200, 202, 400, 404, 422])
def test_what_would_come_again_is_kept(kept: Repeats, status: int) -> None:
    kept.begin(NAME, b"x")
    kept.end(NAME, Answer(status, (), b""))
    assert kept.begin(NAME, b"x") == Answer(status, (), b"")


def test_it_is_forgotten_after_a_day(kept: Repeats, clock: Clock) -> None:
    kept.begin(NAME, b"x")
    kept.end(NAME, DONE)
    clock.now += KEPT_S
    assert kept.begin(NAME, b"x") == DONE
    clock.now += 1
    assert kept.begin(NAME, b"x") is None


@pytest.mark.parametrize(("bound", "value"), [("MAX_KEPT", 2), ("MAX_BYTES", 25)])
def test_memory_is_bounded_oldest_first(kept: Repeats, monkeypatch: pytest.MonkeyPatch, bound: str, value: int) -> None:
    monkeypatch.setattr(repeats, bound, value)
    names = [(*NAME[:3], str(number)) for number in range(4)]
    for name in names:
        kept.begin(name, b"x")
        kept.end(name, Answer(200, (), b"0123456789"))
    assert kept.begin(names[3], b"x") is not None
    assert kept.begin(names[0], b"x") is None


@pytest.mark.parametrize("header", [b"a", b'"a-b"', b"A.b_c-1", b"x" * 128])
def test_keys(header: bytes) -> None:
    assert parse_key(header) == header.strip(b'"').decode()


@pytest.mark.parametrize("header", [b"", b"a b", b"x" * 129, b'"', b'""', b"a, b", b"\xff", b"a/b", b"a\n"])
def test_what_is_no_key(header: bytes) -> None:
    with pytest.raises(InputError):
        parse_key(header)
