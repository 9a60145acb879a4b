from __future__ import annotations

import pytest

from ringfence_agent.http.request import Peer, Request
from ringfence_agent.kms.auth_simple import SimpleAuthenticator
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.caller import Caller, Identity
from ringfence_agent.kms.cookie import CookieSigner, RollingSecrets
from ringfence_agent.kms.routes import Query
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


def authenticate(authenticator: SimpleAuthenticator, header: bytes | None, user: str | None) -> Caller:
    headers = {} if header is None else {b"cookie": header}
    request = Request(b"GET", b"/kms/v1/", b"", headers, b"", Peer("127.0.0.1"), keep_alive=True)
    caller = authenticator.authenticate(Call(request, Query(user_name=user)))
    assert caller.identity is Identity.CLAIMED
    return caller


def cookie_of(authenticator: SimpleAuthenticator, user: str) -> bytes:
    ((name, value),) = authenticate(authenticator, None, user).headers
    assert name == "Set-Cookie"
    return value.removesuffix("; HttpOnly").encode()


def test_a_user_name_starts_a_session_and_its_cookie_carries_it_on(authenticator: SimpleAuthenticator) -> None:
    header = cookie_of(authenticator, "alice")
    for _ in range(2):  # verified, then remembered
        caller = authenticate(authenticator, header, None)
        assert (caller.user, caller.headers) == ("alice", ())


def test_a_valid_cookie_wins_over_user_name(authenticator: SimpleAuthenticator) -> None:
    assert authenticate(authenticator, cookie_of(authenticator, "alice"), "bob").user == "alice"


@pytest.mark.parametrize("bad", [b"hadoop.auth=junk", b'hadoop.auth="u=a&p=a&t=simple-dt&e=9&s=x"', b"x=1"])
def test_a_bad_cookie_is_ignored_when_user_name_is_there(authenticator: SimpleAuthenticator, bad: bytes) -> None:
    caller = authenticate(authenticator, bad, "bob")
    assert caller.user == "bob"
    assert caller.headers


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
        authenticate(authenticator, header, user)
    assert caught.value.message == reason


def test_a_remembered_cookie_still_expires(authenticator: SimpleAuthenticator, clock: Clock) -> None:
    header = cookie_of(authenticator, "alice")
    authenticate(authenticator, header, None)
    clock.now_ms += VALIDITY_S * 1000 + 1
    with pytest.raises(AuthenticationError):
        authenticate(authenticator, header, None)


def test_the_cookie_given_for_a_user_name_is_renewed_long_before_it_expires(
    authenticator: SimpleAuthenticator, clock: Clock
) -> None:
    first = cookie_of(authenticator, "alice")
    assert cookie_of(authenticator, "alice") == first
    clock.now_ms += 61_000
    assert cookie_of(authenticator, "alice") != first


def test_memories_are_bounded(authenticator: SimpleAuthenticator) -> None:
    for number in range(5000):
        authenticate(authenticator, None, f"user{number}")
    assert len(authenticator._by_user) <= 4096


def test_only_a_short_cookie_header_stays_in_memory(authenticator: SimpleAuthenticator) -> None:
    header = cookie_of(authenticator, "alice")
    assert authenticate(authenticator, header, None) is authenticate(authenticator, header, None)
    padded = header + b"; other=" + b"x" * 100_000
    assert authenticate(authenticator, padded, None).user == "alice"
    assert authenticate(authenticator, padded, None) is not authenticate(authenticator, padded, None)


def test_after_the_clock_was_set_back_a_new_session_can_be_used(
    authenticator: SimpleAuthenticator, clock: Clock
) -> None:
    cookie_of(authenticator, "alice")
    clock.now_ms -= 2 * VALIDITY_S * 1000
    assert authenticate(authenticator, cookie_of(authenticator, "alice"), None).user == "alice"
