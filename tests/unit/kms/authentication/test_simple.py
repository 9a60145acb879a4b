from __future__ import annotations

import pytest
from kms_authenticators import call_with, simple_authenticator

from ringfence_agent.kms.authentication.authenticator import CallAuthenticator
from ringfence_agent.kms.authentication.caller import Caller, Identity
from ringfence_agent.kms.authentication.simple import UserNameMechanism
from ringfence_agent.kms.routes import Query, TokenOperation
from ringfence_zones.errors import AuthenticationError, InvalidTokenError

VALIDITY_S = 1000


class Clock:
    now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authenticator(clock: Clock) -> CallAuthenticator:
    return simple_authenticator(clock, VALIDITY_S)


def authenticate(authenticator: CallAuthenticator, header: bytes | None, user: str | None) -> Caller:
    headers = {} if header is None else {"cookie": header}
    caller = authenticator.authenticate(call_with(Query(user_name=user), **headers))
    assert caller.identity is Identity.CLAIMED
    assert caller.principal is None
    return caller


def cookie_of(authenticator: CallAuthenticator, user: str) -> bytes:
    ((name, value),) = authenticate(authenticator, None, user).headers
    assert name == "Set-Cookie"
    return value.removesuffix("; HttpOnly").encode()


def test_a_user_name_starts_a_session_and_its_cookie_carries_it_on(authenticator: CallAuthenticator) -> None:
    header = cookie_of(authenticator, "alice")
    for _ in range(2):  # verified, then remembered
        caller = authenticate(authenticator, header, None)
        assert (caller.user, caller.headers) == ("alice", ())


def test_a_valid_cookie_wins_over_user_name(authenticator: CallAuthenticator) -> None:
    assert authenticate(authenticator, cookie_of(authenticator, "alice"), "bob").user == "alice"


@pytest.mark.parametrize("bad", [b"hadoop.auth=junk", b'hadoop.auth="u=a&p=a&t=simple-dt&e=9&s=x"', b"x=1"])
def test_a_bad_cookie_is_ignored_when_user_name_is_there(authenticator: CallAuthenticator, bad: bytes) -> None:
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
    authenticator: CallAuthenticator, header: bytes | None, user: str | None, reason: str
) -> None:
    with pytest.raises(AuthenticationError) as caught:
        authenticate(authenticator, header, user)
    assert caught.value.message == reason


def test_a_remembered_cookie_still_expires(authenticator: CallAuthenticator, clock: Clock) -> None:
    header = cookie_of(authenticator, "alice")
    authenticate(authenticator, header, None)
    clock.now_ms += VALIDITY_S * 1000 + 1
    with pytest.raises(AuthenticationError):
        authenticate(authenticator, header, None)


def test_a_cookie_is_not_remembered_into_a_time_that_its_secret_is_not_of(
    authenticator: CallAuthenticator, clock: Clock
) -> None:
    """The clock ran a day ahead, and was set right: what was signed then is no session for a day and more."""
    clock.now_ms += 86_400_000
    header = cookie_of(authenticator, "alice")
    assert authenticate(authenticator, header, None).user == "alice"
    clock.now_ms -= 86_400_000
    with pytest.raises(AuthenticationError):
        authenticate(authenticator, header, None)


def test_a_clock_set_back_by_less_than_a_session_ends_none(authenticator: CallAuthenticator, clock: Clock) -> None:
    header = cookie_of(authenticator, "alice")
    for step_s in (0, -VALIDITY_S // 2, VALIDITY_S // 2):
        clock.now_ms += step_s * 1000
        assert authenticate(authenticator, header, None).user == "alice"


def test_the_cookie_given_for_a_user_name_is_renewed_long_before_it_expires(
    authenticator: CallAuthenticator, clock: Clock
) -> None:
    first = cookie_of(authenticator, "alice")
    assert cookie_of(authenticator, "alice") == first
    clock.now_ms += 61_000
    assert cookie_of(authenticator, "alice") != first


def test_memories_are_bounded(authenticator: CallAuthenticator) -> None:
    for number in range(5000):
        authenticate(authenticator, cookie_of(authenticator, f"user{number}"), None)
    mechanism, sessions = authenticator._mechanism, authenticator._sessions
    assert isinstance(mechanism, UserNameMechanism)
    assert len(mechanism._by_user) <= 4096
    assert len(sessions._known) <= 4096


def test_a_delegation_token_decides_alone(authenticator: CallAuthenticator) -> None:
    with pytest.raises(InvalidTokenError):
        authenticator.authenticate(call_with(Query(user_name="alice"), x_hadoop_delegation_token=b"junk"))
    cookie = cookie_of(authenticator, "alice")
    caller = authenticator.authenticate(call_with(x_hadoop_delegation_token=b"junk", cookie=cookie))
    assert caller.user == "alice"


def test_a_token_in_the_query_is_not_looked_at(authenticator: CallAuthenticator) -> None:
    query = Query(user_name="alice", delegation="junk")
    assert authenticator.authenticate(call_with(query)).user == "alice"


def test_only_a_short_cookie_header_stays_in_memory(authenticator: CallAuthenticator) -> None:
    header = cookie_of(authenticator, "alice")
    assert authenticate(authenticator, header, None) is authenticate(authenticator, header, None)
    padded = header + b"; other=" + b"x" * 100_000
    assert authenticate(authenticator, padded, None).user == "alice"
    assert authenticate(authenticator, padded, None) is not authenticate(authenticator, padded, None)


def test_after_the_clock_was_set_back_a_new_session_can_be_used(authenticator: CallAuthenticator, clock: Clock) -> None:
    cookie_of(authenticator, "alice")
    clock.now_ms -= 2 * VALIDITY_S * 1000
    assert authenticate(authenticator, cookie_of(authenticator, "alice"), None).user == "alice"


def test_a_401_carries_its_challenge_and_no_body(authenticator: CallAuthenticator) -> None:
    call = call_with()
    with pytest.raises(AuthenticationError) as caught:
        authenticator.authenticate(call)
    response = authenticator.refuse(call, caught.value)
    assert response.head.rendered == (
        b"HTTP/1.1 401 Authentication required\r\n"
        b"WWW-Authenticate: PseudoAuth\r\nSet-Cookie: hadoop.auth=; HttpOnly\r\n"
    )
    assert response.body == b""


@pytest.mark.parametrize(("operation", "status"), [(TokenOperation.GET, 403), (TokenOperation.RENEW, 403), (None, 401)])
def test_token_operations_without_credentials_are_a_bare_403(
    authenticator: CallAuthenticator, operation: TokenOperation | None, status: int
) -> None:
    call = call_with(Query(token_operation=operation))
    with pytest.raises(AuthenticationError) as caught:
        authenticator.authenticate(call)
    response = authenticator.refuse(call, caught.value)
    assert response.head.status == status
    assert dict(response.head.headers)["WWW-Authenticate"] == "PseudoAuth"


def test_a_token_cannot_get_or_renew_a_token(authenticator: CallAuthenticator) -> None:
    for operation in (TokenOperation.GET, TokenOperation.RENEW):
        with pytest.raises(AuthenticationError, match="Authentication required"):
            authenticator.authenticate(call_with(Query(token_operation=operation), x_hadoop_delegation_token=b"any"))


def test_whoever_has_a_token_may_cancel_it(authenticator: CallAuthenticator) -> None:
    caller = authenticator.authenticate(call_with(Query(token_operation=TokenOperation.CANCEL), b"PUT"))
    assert (caller.user, caller.identity) == ("", Identity.NONE)
