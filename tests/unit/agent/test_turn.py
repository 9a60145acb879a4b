"""Whose turn it is: leases as the KMS gives them, and what is done when it gives none."""

from __future__ import annotations

import threading

import pytest

from ringfence_agent import turn as turn_module
from ringfence_agent.turn import LEASE_NAME, Turn, TurnState
from ringfence_zones import leases as leases_module
from ringfence_zones.errors import (
    AccessDeniedError,
    AuthenticationError,
    ConfigError,
    KmsRemoteError,
    KmsUnavailableError,
    LeaseHeldError,
    RingfenceError,
)
from ringfence_zones.leases import AGENT_TTL_S, Lease


class _Kms:
    """The leases of one KMS, with a clock that tests set."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.held: tuple[str, float] | None = None
        self.fail: RingfenceError | None = None
        self.released: list[str] = []

    def take_lease(self, name: str, holder: str, ttl_s: float) -> Lease:
        assert name == LEASE_NAME
        if self.fail is not None:
            raise self.fail
        if self.held is not None and self.held[0] != holder and self.held[1] > self.now_s:
            raise LeaseHeldError(name, self.held[0], self.held[1] - self.now_s)
        self.held = (holder, self.now_s + ttl_s)
        return Lease(name, holder, 1, ttl_s, self.now_s + ttl_s)

    def release_lease(self, name: str, holder: str) -> None:
        self.released.append(holder)
        self.held = None


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> _Kms:
    made = _Kms()
    monkeypatch.setattr(leases_module, "clock_s", lambda: made.now_s)
    return made


def _turn(kms: _Kms, name: str = "one", without: str = "act") -> Turn:
    return Turn(lambda: kms, without_lease=without, holder=name)  # type: ignore[arg-type]


def test_nobody_acts_before_the_kms_said_so(kms: _Kms) -> None:
    assert not _turn(kms).is_mine()


def test_of_two_one_acts_and_the_other_knows_who(kms: _Kms) -> None:
    one, two = _turn(kms, "one"), _turn(kms, "two")
    assert one.take() == AGENT_TTL_S / 3
    assert 0 < two.take() <= AGENT_TTL_S / 3
    assert (one.is_mine(), two.is_mine()) == (True, False)
    assert two.view().holder == "one"
    assert two.view().state is TurnState.OTHER


def test_the_other_takes_over_when_the_lease_runs_out(kms: _Kms) -> None:
    one, two = _turn(kms, "one"), _turn(kms, "two")
    one.take()
    waited_s = 0.0
    while not two.is_mine():
        pause_s = two.take()
        if not two.is_mine():
            kms.now_s += pause_s
            waited_s += pause_s
    assert waited_s <= AGENT_TTL_S + 0.2
    assert not one.is_mine()


def test_a_holder_that_cannot_renew_stops_before_another_can_begin(kms: _Kms) -> None:
    one, two = _turn(kms, "one"), _turn(kms, "two")
    one.take()
    kms.fail = KmsUnavailableError("away")
    kms.now_s += AGENT_TTL_S - 2
    one.take()
    assert one.is_mine()
    assert one.view().problem == "away"
    kms.now_s += 1.5
    assert not one.is_mine()
    assert one.view().state is TurnState.UNKNOWN
    kms.fail = None
    two.take()
    assert not two.is_mine()


@pytest.mark.parametrize(
    "error",
    [
        KmsRemoteError("there is nothing at this path", status=404, java_class=None),
        KmsRemoteError("this key store keeps no leases", status=501, java_class=None),
        ConfigError("no way to the admin endpoint"),
        AccessDeniedError("not an administrator"),
    ],
)
@pytest.mark.parametrize(("without", "acts"), [("act", True), ("watch", False)])
def test_where_there_are_no_leases_the_configuration_says_who_acts(
    kms: _Kms, error: RingfenceError, without: str, acts: bool
) -> None:
    kms.fail = error
    turn = _turn(kms, without=without)
    turn.take()
    assert turn.is_mine() is acts
    assert turn.view().state is TurnState.NO_LEASES


@pytest.mark.parametrize(
    "error", [AccessDeniedError("not an administrator"), KmsRemoteError("nothing here", status=404, java_class=None)]
)
def test_a_kms_that_gave_a_lease_once_is_never_one_without(kms: _Kms, error: RingfenceError) -> None:
    turn = _turn(kms)
    turn.take()
    kms.fail = error
    kms.now_s += AGENT_TTL_S
    turn.take()
    assert not turn.is_mine()
    assert turn.view().state is TurnState.UNKNOWN


@pytest.mark.parametrize(
    "error", [KmsRemoteError("internal error", status=500, java_class=None), AuthenticationError("no ticket")]
)
def test_a_kms_that_fails_is_not_one_without_leases(kms: _Kms, error: RingfenceError) -> None:
    kms.fail = error
    turn = _turn(kms)
    turn.take()
    assert turn.view().state is TurnState.UNKNOWN
    assert not turn.is_mine()


def test_who_ends_gives_back(kms: _Kms, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: list[bool] = []
    turn = Turn(lambda: kms, without_lease="act", holder="one", on_change=lambda: changes.append(True))
    stop = threading.Event()
    monkeypatch.setattr(turn_module, "_RENEW_S", 0.01)
    thread = threading.Thread(target=turn.run, args=(stop,))
    thread.start()
    while not turn.is_mine():
        stop.wait(0.01)
    stop.set()
    thread.join(10)
    assert kms.released == ["one"]
    assert changes == [True]
    assert not turn.is_mine()
