from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_agent.kms.authentication import cookie
from ringfence_agent.kms.authentication.cookie import CookieAttributes, CookieSigner, RollingSecrets
from ringfence_zones.secret import Secret

VALIDITY_S = 100
START_MS = 1_700_000_000_000 - 1_700_000_000_000 % (VALIDITY_S * 1000)


class Clock:
    def __init__(self, now_ms: int = START_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def signer_at(
    clock: Clock, root: bytes = b"r" * 32, token_type: str = "simple-dt", max_inactive_s: int | None = None
) -> CookieSigner:
    return CookieSigner(RollingSecrets(Secret(root), VALIDITY_S), token_type, VALIDITY_S, clock, max_inactive_s)


def test_the_signature_is_hadoops_vector() -> None:
    raw = "u=alice&p=alice@EXAMPLE.COM&t=kerberos-dt&e=1700000000000"
    secret = b"0123456789abcdef0123456789abcdef"
    assert cookie.signature(secret, raw) == "ILE/pilFsZPOYxejS4i/OECv7lFL1WZrryA36kmBnt4="


def test_a_fixed_secret_signs_as_hadoops_secret_file() -> None:
    clock = Clock(1_700_000_000_000 - VALIDITY_S * 1000)
    secrets = RollingSecrets(Secret(b"0123456789abcdef0123456789abcdef"), VALIDITY_S, fixed=True)
    value, session = CookieSigner(secrets, "kerberos-dt", VALIDITY_S, clock).sign("alice", "alice@EXAMPLE.COM")
    assert session.expires_ms == 1_700_000_000_000
    assert value.endswith("&s=ILE/pilFsZPOYxejS4i/OECv7lFL1WZrryA36kmBnt4=")


def test_another_worker_with_the_same_root_accepts_the_cookie() -> None:
    clock = Clock()
    value, session = signer_at(clock).sign("alice", "alice")
    assert signer_at(clock).find_session(value) == session
    assert session == cookie.Session("alice", "alice", START_MS + VALIDITY_S * 1000)


@pytest.mark.parametrize(("age_s", "accepted"), [(0, True), (VALIDITY_S, True), (VALIDITY_S + 0.001, False)])
def test_a_cookie_lives_for_its_validity_across_a_roll_of_secrets(age_s: float, accepted: bool) -> None:
    clock = Clock(START_MS + 50_000)
    value, _ = signer_at(clock).sign("alice", "alice")
    clock.now_ms += int(age_s * 1000)
    assert (signer_at(clock).find_session(value) is not None) is accepted


def test_a_secret_from_two_periods_ago_verifies_nothing() -> None:
    clock = Clock()
    old = RollingSecrets(Secret(b"r" * 32), VALIDITY_S).current(clock.now_ms)
    raw = f"u=alice&p=alice&t=simple-dt&e={START_MS * 2}"
    value = f"{raw}&s={cookie.signature(old, raw)}"
    assert signer_at(clock).find_session(value) is not None
    clock.now_ms += 2 * VALIDITY_S * 1000
    assert signer_at(clock).find_session(value) is None


@pytest.mark.parametrize(
    "forge",
    [
        lambda value: value.replace("u=alice", "u=mallory"),
        lambda value: value[:-2] + ("A=" if value[-2:] != "A=" else "B="),
        lambda value: value.rpartition("&s=")[0],
        lambda value: value.rpartition("&s=")[0] + "&s=",
        lambda _: "junk",
        lambda _: "",
        lambda value: value + "\udcff",
    ],
)
def test_a_forged_cookie_is_no_session(forge: object) -> None:
    clock = Clock()
    value, _ = signer_at(clock).sign("alice", "alice")
    assert callable(forge)
    assert signer_at(clock).find_session(forge(value)) is None


def test_a_cookie_of_another_type_or_another_root_is_no_session() -> None:
    clock = Clock()
    value, _ = signer_at(clock, token_type="kerberos-dt").sign("alice", "alice")
    assert signer_at(clock).find_session(value) is None
    value, _ = signer_at(clock, root=b"x" * 32).sign("alice", "alice")
    assert signer_at(clock).find_session(value) is None


def test_an_idle_limit_in_the_cookie_is_kept() -> None:
    clock = Clock()
    secret = RollingSecrets(Secret(b"r" * 32), VALIDITY_S).current(clock.now_ms)
    raw = f"u=alice&p=alice&t=simple-dt&i={START_MS - 1}&e={START_MS + 5}"
    assert signer_at(clock).find_session(f"{raw}&s={cookie.signature(secret, raw)}") is None


def test_an_idle_session_ends_and_a_used_one_goes_on_to_its_expiry() -> None:
    clock = Clock()
    signer = signer_at(clock, max_inactive_s=10)
    value, session = signer.sign("alice", "alice")
    assert f"&i={START_MS + 10_000}&e=" in value
    clock.now_ms += 9_000
    assert signer.find_session(value) == session
    renewed, later = signer.sign("alice", "alice", session.expires_ms)
    assert (later.expires_ms, later.until_ms) == (session.expires_ms, START_MS + 19_000)
    clock.now_ms += 2_000
    assert signer.find_session(value) is None
    assert signer.find_session(renewed) == later


def test_an_instance_whose_clock_runs_ahead_into_the_next_period_is_understood() -> None:
    ahead, here = Clock(START_MS + VALIDITY_S * 1000 + 5), Clock(START_MS + VALIDITY_S * 1000 - 5)
    value, _ = signer_at(ahead).sign("alice", "alice")
    assert signer_at(here).find_session(value) is not None


@given(st.text(max_size=200))
def test_no_cookie_text_raises(text: str) -> None:
    assert signer_at(Clock()).find_session(text) is None


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (b'hadoop.auth="u=a&e=1&s=x+/="', "u=a&e=1&s=x+/="),
        (b"hadoop.auth=u=a&e=1&s=x=", "u=a&e=1&s=x="),
        (b'other=1; hadoop.auth="u=a"; more=2', "u=a"),
        (b"hadoop.auth=", ""),
        (b"xhadoop.auth=1", None),
        (b"", None),
        (b"hadoop.auth", None),
        (b'hadoop.auth="u=a"; hadoop.auth=u=a', "u=a"),
        (b"hadoop.auth=u=a; hadoop.auth=u=b", ""),
    ],
)
def test_the_value_is_found_in_the_header(header: bytes, value: str | None) -> None:
    assert cookie.find_cookie_value(header) == value


def test_set_cookie_is_quoted_and_http_only() -> None:
    assert CookieAttributes().set_cookie("v=1", 5) == 'hadoop.auth="v=1"; HttpOnly'
    assert CookieAttributes().cleared == "hadoop.auth=; HttpOnly"
    everything = CookieAttributes(path="/", domain="x.org", secure=True, persistent=True)
    assert (
        everything.set_cookie("v", 1_700_000_000_123)
        == 'hadoop.auth="v"; Path=/; Domain=x.org; Expires=Tue, 14-Nov-2023 22:13:20 GMT; Secure; HttpOnly'
    )
    assert everything.cleared.startswith("hadoop.auth=; Path=/; Domain=x.org; Expires=Thu, 01-Jan-1970 00:00:00 GMT;")


@pytest.mark.parametrize("user", ["", "a&b", 'a"b', "a;b", "a\r\nb", "a\x7f", "x" * 257, "a\u2028b", "jörg"])
def test_user_names_that_break_a_cookie_are_not_safe(user: str) -> None:
    assert not cookie.is_cookie_safe(user)


@pytest.mark.parametrize("user", ["alice", "a.b-c_d", "hdfs/host@REALM"])
def test_ordinary_user_names_are_safe(user: str) -> None:
    assert cookie.is_cookie_safe(user)
