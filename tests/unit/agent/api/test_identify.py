"""Who sent a request: what proves somebody, what is never looked at, and that nothing stands in for what failed."""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path

import pytest
from agent_api import Accounts

from ringfence_agent.api.access import AccessRules, Members
from ringfence_agent.api.caller import Proof, Role, Verb
from ringfence_agent.api.identify import Identified, Identifier
from ringfence_agent.api.tokens import TokenBook, TokenWish
from ringfence_agent.http.request import Peer, TlsPeer
from ringfence_zones.errors import AccessDeniedError, AuthenticationError, RingfenceError
from ringfence_zones.paths import HdfsPath

UNIX = Peer(None, uid=os.geteuid(), gid=0, pid=1)
TLS = Peer("10.0.0.7", tls=TlsPeer("TLSv1.3", b"binding"))
CERTIFIED = Peer("10.0.0.7", tls=TlsPeer("TLSv1.3", b"binding", "CN=masker,O=Test", "masker"))
SCOPE = [HdfsPath.parse("/data/pii")]


class _Negotiator:
    seen: tuple[bytes, bytes | None] | None = None

    async def prove(self, header: bytes, binding: bytes | None) -> tuple[str, str, str]:
        self.seen = (header, binding)
        if header != b"Negotiate good":
            raise AuthenticationError("Request is a replay")
        return "masker", "masker@REALM", "Negotiate answer"


class _World:
    """Rules for `masker` (a viewer) and `hadoop` (an operator), two tokens, and a KDC that believes one header."""

    def __init__(self, directory: Path) -> None:
        self.accounts = Accounts()
        self.tokens = TokenBook(directory / "tokens.json")
        self.negotiator = _Negotiator()
        rules = AccessRules(
            viewers=Members.of(["masker"]),
            operators=Members.of(["hadoop"]),
            delegate_users=["hadoop"],
            trusted_uids=[],
            accounts=self.accounts,
        )
        self.identifier = Identifier(rules, self.accounts, tokens=self.tokens, negotiator=self.negotiator)
        self.bare = Identifier(rules, self.accounts)

    def token(self, user: str = "etl", role: Role = Role.OPERATOR, scope: list[HdfsPath] | None = None) -> bytes:
        return self.tokens.issue(TokenWish(user=user, role=role, life_s=600, paths=scope), "test")[1].reveal()

    def identify(self, peer: Peer, method: str = "GET", authorization: bytes | None = None) -> Identified:
        headers = {} if authorization is None else {b"authorization": authorization}
        return asyncio.run(self.identifier.identify(peer, method, headers))


@pytest.fixture
def world(tmp_path: Path) -> _World:
    return _World(tmp_path)


def _basic(token: bytes, user: bytes = b"") -> bytes:
    return b"Basic " + base64.b64encode(user + b":" + token)


def test_over_the_unix_socket_the_kernel_decides(world: _World) -> None:
    caller = world.identify(UNIX).caller
    assert (caller.user, caller.proof, caller.uid) == ("masker", Proof.PEER, os.geteuid())
    world.accounts.name = "mallory"
    for header in (None, b"Bearer " + world.token("mallory", Role.ADMIN), b"Negotiate good"):
        with pytest.raises(AccessDeniedError):
            world.identify(UNIX, authorization=header)
    assert world.negotiator.seen is None


def test_a_second_factor_adds_the_rights_of_a_token_of_the_same_user(world: _World) -> None:
    world.accounts.name = "hadoop"
    alone = world.identify(UNIX).caller
    assert Verb.ADMINISTER not in alone.verbs
    assert alone.may_delegate
    both = world.identify(UNIX, authorization=b"Bearer " + world.token("hadoop", Role.ADMIN, SCOPE)).caller
    assert Verb.ADMINISTER in both.verbs
    assert (both.proof, both.paths, both.may_delegate) == (Proof.PEER, tuple(SCOPE), False)
    assert both.token_id is not None
    assert both.token_id in both.label
    for wrong in (world.token("etl", Role.ADMIN), b"", b"rfa-000000000000-" + b"A" * 43):
        with pytest.raises(AuthenticationError):
            world.identify(UNIX, authorization=b"Bearer " + wrong)


def test_over_tls_a_token_is_its_user(world: _World) -> None:
    token = world.token(scope=SCOPE)
    for peer in (TLS, CERTIFIED):
        for header in (b"Bearer " + token, b"bearer  " + token, _basic(token), _basic(token, b"whoever")):
            caller = world.identify(peer, authorization=header).caller
            assert (caller.user, caller.proof, caller.paths) == ("etl", Proof.TOKEN, tuple(SCOPE))
            assert (caller.uid, caller.may_delegate) == (None, False)


def test_what_a_browser_sends_by_itself_changes_nothing(world: _World) -> None:
    header = _basic(world.token())
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        with pytest.raises(AuthenticationError):
            world.identify(TLS, method, header)
    assert world.identify(TLS, "HEAD", header).caller.user == "etl"


def test_a_ticket_proves_its_short_name_on_this_very_connection(world: _World) -> None:
    found = world.identify(TLS, authorization=b"Negotiate good")
    assert (found.caller.user, found.caller.proof) == ("masker", Proof.KERBEROS)
    assert found.caller.principal == "masker@REALM"
    assert list(found.headers) == [("WWW-Authenticate", "Negotiate answer")]
    assert world.negotiator.seen == (b"Negotiate good", b"binding")


def test_a_certificate_proves_its_common_name(world: _World) -> None:
    caller = world.identify(CERTIFIED).caller
    assert (caller.user, caller.proof, caller.principal) == ("masker", Proof.CERTIFICATE, "CN=masker,O=Test")
    for name in ("root", "mallory", "Masker"):
        with pytest.raises(AccessDeniedError):
            world.identify(Peer("10.0.0.7", tls=TlsPeer("TLSv1.3", None, f"CN={name}", name)))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Bearer",
        b"Bearer x",
        b"Bearer x, Bearer y",
        b"Negotiate bad",
        b"Negotiate",
        b"Basic",
        b"Basic !!!",
        b"Basic " + base64.b64encode(b"no colon"),
        b"Basic " + b"A" * 4096,
        b"Digest x",
        b"PseudoAuth masker",
        b"Token x",
    ],
)
def test_what_failed_is_not_made_up_for_by_a_certificate(world: _World, header: bytes) -> None:
    for peer in (TLS, CERTIFIED):
        with pytest.raises(AuthenticationError):
            world.identify(peer, authorization=header)


def test_without_proof_there_is_nobody(world: _World) -> None:
    token = b"Bearer " + world.token()
    for peer, header in (
        (TLS, None),
        (Peer("127.0.0.1"), None),
        (Peer("127.0.0.1"), token),
        (Peer("127.0.0.1", uid=0, gid=0, pid=1), None),
        (Peer(None), None),
    ):
        with pytest.raises(AuthenticationError):
            world.identify(peer, authorization=header)


def test_what_is_not_switched_on_is_not_taken(world: _World) -> None:
    for header in (b"Bearer " + world.token(), _basic(world.token()), b"Negotiate good"):
        with pytest.raises(RingfenceError):
            asyncio.run(world.bare.identify(TLS, "GET", {b"authorization": header}))
    assert [value for _, value in world.bare.challenges(TLS)] == ["Certificate"]


def test_a_refusal_names_what_can_be_sent(world: _World) -> None:
    offered = [value.partition(" ")[0] for _, value in world.identifier.challenges(TLS)]
    assert offered == ["Negotiate", "Bearer", "Basic"]
    assert [value for _, value in world.identifier.challenges(UNIX)] == ["PeerCredentials"]
