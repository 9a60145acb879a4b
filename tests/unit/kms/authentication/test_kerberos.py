"""Kerberos authentication without a KDC: what is looked at, what is not, and that there is no other way in."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kms_authenticators import authenticator_of, call_with, sessions_at

from ringfence_agent.kms.authentication.authenticator import CallAuthenticator
from ringfence_agent.kms.authentication.caller import Caller, Identity
from ringfence_agent.kms.authentication.kerberos import TOKEN_TYPE, NegotiateMechanism
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.routes import Query, TokenOperation
from ringfence_agent.kms.unready import Unready
from ringfence_agent.spnego.auth_to_local import AuthToLocal
from ringfence_agent.spnego.negotiate import find_token
from ringfence_zones.errors import AuthenticationError
from ringfence_zones.gssapi import Accepted

REALM = "TEST.LOCAL"


class Acceptor:
    """Takes tokens of the form `for PRINCIPAL`, once each."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def accept(self, token: bytes, binding: bytes | None = None) -> Accepted:
        if token in self.seen or not token.startswith(b"for "):
            raise AuthenticationError("secret detail")
        self.seen.append(token)
        return Accepted(token[4:].decode(), f"HTTP/localhost@{REALM}", b"answer", False)


@pytest.fixture
def authenticator() -> Iterator[CallAuthenticator]:
    sessions = sessions_at(lambda: 1_700_000_000_000, token_type=TOKEN_TYPE, identity=Identity.KERBEROS)
    with ThreadPoolExecutor(1) as executor:
        names = AuthToLocal("DEFAULT", REALM)
        yield authenticator_of(sessions, NegotiateMechanism(sessions, Acceptor(), names, executor))


def negotiate(token: bytes) -> bytes:
    return b"Negotiate " + base64.b64encode(token)


def prove(authenticator: CallAuthenticator, call: Call) -> Caller:
    """As the application does: load once, and take what the load found."""
    with pytest.raises(Unready) as missing:
        authenticator.authenticate(call)
    asyncio.run(_run(missing.value))
    assert call.session is not None
    return call.session


async def _run(missing: Unready) -> None:
    await missing.load()


def test_a_token_becomes_a_session_of_its_own(authenticator: CallAuthenticator) -> None:
    caller = prove(authenticator, call_with(authorization=negotiate(b"for alice@TEST.LOCAL")))
    assert (caller.user, caller.identity, caller.principal) == ("alice", Identity.KERBEROS, "alice@TEST.LOCAL")
    assert caller.headers[0] == ("WWW-Authenticate", "Negotiate YW5zd2Vy")
    name, cookie = caller.headers[1]
    assert (name, cookie[:58]) == ("Set-Cookie", 'hadoop.auth="u=alice&p=alice@TEST.LOCAL&t=kerberos-dt&e=17')
    again = authenticator.authenticate(call_with(cookie=cookie.partition(";")[0].encode()))
    assert (again.user, again.identity, again.principal) == ("alice", Identity.KERBEROS, "alice@TEST.LOCAL")
    assert again.headers == ()
    assert "kerberos-dt" not in repr(caller)


@pytest.mark.parametrize("token", [b"junk", b"for x@OTHER", b"for a/b/c@TEST.LOCAL", b"for a&b@TEST.LOCAL"])
def test_a_failure_is_a_bare_401_whose_cause_is_for_the_audit_log(
    authenticator: CallAuthenticator, token: bytes
) -> None:
    call = call_with(authorization=negotiate(token))
    with pytest.raises(Unready) as missing:
        authenticator.authenticate(call)
    with pytest.raises(AuthenticationError) as caught:
        asyncio.run(_run(missing.value))
    assert caught.value.message == "Authentication required"
    response = authenticator.refuse(call, caught.value)
    assert response.head.headers == (("WWW-Authenticate", "Negotiate"), ("Set-Cookie", "hadoop.auth=; HttpOnly"))
    assert response.body == b""
    assert call.detail is not None and call.detail["proof"]


def test_there_is_no_way_around_kerberos(authenticator: CallAuthenticator) -> None:
    simple = sessions_at(lambda: 1_700_000_000_000).begin("alice", None).headers[0][1].partition(";")[0].encode()
    for call in (
        call_with(),
        call_with(Query(user_name="alice")),
        call_with(cookie=simple),
        call_with(Query(user_name="alice"), cookie=simple),
        call_with(authorization=b"PseudoAuth alice"),
        call_with(authorization=b"Basic YWxpY2U6eA=="),
        call_with(authorization=b"Negotiate"),
        call_with(authorization=b"Negotiate not/base64!"),
        call_with(authorization=negotiate(b"for alice@TEST.LOCAL") + b", " + negotiate(b"for bob@TEST.LOCAL")),
        call_with(Query(token_operation=TokenOperation.GET, user_name="alice")),
        call_with(Query(user_name="alice"), b"OPTIONS"),
    ):
        with pytest.raises(AuthenticationError) as caught:
            authenticator.authenticate(call)
        response = authenticator.refuse(call, caught.value)
        assert response.head.status == 401
        assert dict(response.head.headers)["WWW-Authenticate"] == "Negotiate"


def test_a_scheme_in_another_case_is_the_same_scheme(authenticator: CallAuthenticator) -> None:
    header = negotiate(b"for alice@TEST.LOCAL").replace(b"Negotiate", b"nEGOTIATE")
    assert prove(authenticator, call_with(authorization=header)).user == "alice"


@given(st.binary(max_size=200))
def test_no_header_raises(header: bytes) -> None:
    token = find_token(header)
    assert token is None or header.lower().startswith(b"negotiate ")


def test_an_over_long_header_is_no_token() -> None:
    assert find_token(b"Negotiate " + b"A" * 88_000) is None
