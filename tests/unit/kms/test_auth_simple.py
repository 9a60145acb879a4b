from __future__ import annotations

import pytest

from ringfence_agent.kms.auth_simple import SimpleAuthenticator
from ringfence_agent.kms.cookie import CookieSigner, RollingSecrets
from ringfence_zones.errors import AuthenticationError
from ringfence_zones.secret import Secret

VALIDITY_S = 1000


class Clock:
    now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authenticator(clock: Clock) -> SimpleAuthenticator:
    signer = CookieSigner(RollingSecrets(Secret(b"r" * 32), VALIDITY_S), "simple-dt", VALIDITY_S, clock)
    return SimpleAuthenticator(signer, clock)


def cookie_of(authenticator: SimpleAuthenticator, user: str) -> bytes:
    header = authenticator.authenticate(None, user).set_cookie
    assert header is not None
    return header.removesuffix("; HttpOnly").encode()


def test_a_user_name_starts_a_session_and_its_cookie_carries_it_on(authenticator: SimpleAuthenticator) -> None:
    header = cookie_of(authenticator, "alice")
    for _ in range(2):  # verified, then remembered
        caller = authenticator.authenticate(header, None)
        assert (caller.user, caller.set_cookie) == ("alice", None)


def test_a_valid_cookie_wins_over_user_name(authenticator: SimpleAuthenticator) -> None:
    assert authenticator.authenticate(cookie_of(authenticator, "alice"), "bob").user == "alice"


@pytest.mark.parametrize("bad", [b"hadoop.auth=junk", b'hadoop.auth="u=a&p=a&t=simple-dt&e=9&s=x"', b"x=1"])
def test_a_bad_cookie_is_ignored_when_user_name_is_there(authenticator: SimpleAuthenticator, bad: bytes) -> None:
    caller = authenticator.authenticate(bad, "bob")
    assert caller.user == "bob"
    assert caller.set_cookie is not None


@pytest.mark.parametrize(
    ("header", "user", "reason"),
    [
        (None, None, "Authentication required"),
        (None, "", "Authentication required"),
        (b"other=1", None, "Authentication required"),
        (b"hadoop.auth=", None, "Authentication required"),
        (None, "a&b", "Authentication required"),
        (
            b"hadoop.auth=junk",
            None,
            "org.apache.hadoop.security.authentication.util.SignerException: Invalid signature",
        ),
    ],
)
def test_without_a_usable_credential_the_reason_is_hadoops(
    authenticator: SimpleAuthenticator, header: bytes | None, user: str | None, reason: str
) -> None:
    with pytest.raises(AuthenticationError) as caught:
        authenticator.authenticate(header, user)
    assert caught.value.message == reason


def test_a_remembered_cookie_still_expires(authenticator: SimpleAuthenticator, clock: Clock) -> None:
    header = cookie_of(authenticator, "alice")
    authenticator.authenticate(header, None)
    clock.now_ms += VALIDITY_S * 1000 + 1
    with pytest.raises(AuthenticationError):
        authenticator.authenticate(header, None)


def test_the_cookie_given_for_a_user_name_is_renewed_long_before_it_expires(
    authenticator: SimpleAuthenticator, clock: Clock
) -> None:
    first = cookie_of(authenticator, "alice")
    assert cookie_of(authenticator, "alice") == first
    clock.now_ms += 61_000
    assert cookie_of(authenticator, "alice") != first


def test_memories_are_bounded(authenticator: SimpleAuthenticator) -> None:
    for number in range(5000):
        authenticator.authenticate(None, f"user{number}")
    assert len(authenticator._by_user) <= 4096


def test_only_a_short_cookie_header_stays_in_memory(authenticator: SimpleAuthenticator) -> None:
    header = cookie_of(authenticator, "alice")
    assert authenticator.authenticate(header, None) is authenticator.authenticate(header, None)
    padded = header + b"; other=" + b"x" * 100_000
    assert authenticator.authenticate(padded, None).user == "alice"
    assert authenticator.authenticate(padded, None) is not authenticator.authenticate(padded, None)


def test_after_the_clock_was_set_back_a_new_session_can_be_used(
    authenticator: SimpleAuthenticator, clock: Clock
) -> None:
    cookie_of(authenticator, "alice")
    clock.now_ms -= 2 * VALIDITY_S * 1000
    assert authenticator.authenticate(cookie_of(authenticator, "alice"), None).user == "alice"
