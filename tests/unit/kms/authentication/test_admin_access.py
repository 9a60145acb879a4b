from __future__ import annotations

import os
from pathlib import Path

import pytest

from ringfence_agent.http.request import Peer, Request, TlsPeer
from ringfence_agent.kms.authentication.admin_access import AdminAccess, read_token
from ringfence_agent.kms.authentication.caller import Caller, Identity
from ringfence_agent.kms.authorization.published import NOTHING_PUBLISHED, PublishedPolicy
from ringfence_zones.access_list import AccessList
from ringfence_zones.errors import ConfigError
from ringfence_zones.secret import Secret

TOKEN = b"0123456789abcdef0123456789abcdef"
LOCAL = Peer("127.0.0.1")


def request(peer: Peer, authorization: bytes | None = None) -> Request:
    headers = {b"authorization": authorization} if authorization is not None else {}
    return Request(b"GET", b"/ringfence/v1/policy", b"user.name=root", headers, b"", peer, keep_alive=True)


def test_the_unix_socket_admits_root_and_the_services_user() -> None:
    admins = AdminAccess(None)
    for uid in (0, os.geteuid()):
        assert admins.find_admin(request(Peer(None, uid=uid, gid=1, pid=1))) == f"uid {uid}"
    assert admins.find_admin(request(Peer(None, uid=12345, gid=0, pid=1))) is None
    assert admins.find_admin(request(Peer(None, uid=None, gid=0, pid=1))) is None


def test_a_user_name_admits_nobody() -> None:
    assert AdminAccess(None).find_admin(request(LOCAL)) is None
    assert AdminAccess(Secret(TOKEN)).find_admin(request(LOCAL)) is None


def test_the_token_admits_from_this_machine_only() -> None:
    admins = AdminAccess(Secret(TOKEN))
    assert admins.find_admin(request(LOCAL, b"Bearer " + TOKEN)) == "bearer token"
    assert admins.find_admin(request(Peer("::1"), b"bearer " + TOKEN)) == "bearer token"
    assert admins.find_admin(request(Peer(None, uid=12345), b"Bearer " + TOKEN)) == "bearer token"
    assert admins.find_admin(request(Peer("10.0.0.1"), b"Bearer " + TOKEN)) is None


@pytest.mark.parametrize("header", [b"", b"Bearer", b"Bearer ", b"Bearer " + TOKEN[:-1], b"Basic " + TOKEN, TOKEN])
def test_anything_but_the_token_is_nobody(header: bytes) -> None:
    assert AdminAccess(Secret(TOKEN)).find_admin(request(LOCAL, header)) is None


def test_a_token_comes_from_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(TOKEN + b"\n")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="can be read by others"):
        read_token(path)
    path.chmod(0o600)
    assert read_token(path).reveal() == TOKEN


@pytest.mark.parametrize("content", [b"", b"short", b"two words of some length", b"x" * 5000, b"\xff" * 32])
def test_an_unusable_token_is_refused_without_being_repeated(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        read_token(path)
    assert not content or content.decode("latin-1") not in caught.value.message


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no-such-token"):
        read_token(tmp_path / "no-such-token")


def test_the_token_crosses_the_network_over_tls_alone() -> None:
    admins = AdminAccess(Secret(TOKEN))
    assert admins.find_admin(request(Peer("10.0.0.1", tls=TlsPeer("TLSv1.3")), b"Bearer " + TOKEN)) == "bearer token"
    assert admins.find_admin(request(Peer("10.0.0.1", tls=TlsPeer("TLSv1.3")), b"Bearer x")) is None


def test_a_client_certificate_proves_its_common_name() -> None:
    def caller_with(name: str | None) -> Caller | None:
        tls = TlsPeer("TLSv1.3", client_subject="CN=x", client_name=name)
        return AdminAccess(None).find_caller(request(Peer("10.0.0.1", tls=tls)))

    assert caller_with("nn1") == Caller("nn1", Identity.CERTIFICATE, principal="CN=x")
    assert caller_with(None) is None
    assert caller_with("a;b") is None


POLICY = PublishedPolicy(3, admins=AccessList(frozenset({"hdfs"}), frozenset({"keyadmins"})))


@pytest.mark.parametrize(
    ("caller", "published", "allowed"),
    [
        (Caller("uid 0", Identity.ADMIN), POLICY, True),
        (Caller("hdfs", Identity.KERBEROS), POLICY, True),
        (Caller("hdfs", Identity.CERTIFICATE), POLICY, True),
        (Caller("kim", Identity.KERBEROS), POLICY, True),
        (Caller("etl", Identity.KERBEROS), POLICY, False),
        (Caller("hdfs", Identity.CLAIMED), POLICY, False),
        (Caller("hdfs", Identity.TOKEN, is_token=True), POLICY, False),
        (Caller("hdfs", Identity.NONE), POLICY, False),
        (Caller("hdfs", Identity.KERBEROS, real_user="hive"), POLICY, False),
        (Caller("first", Identity.KERBEROS), POLICY, False),
        (Caller("first", Identity.KERBEROS), NOTHING_PUBLISHED, True),
        (Caller("first", Identity.CLAIMED), NOTHING_PUBLISHED, False),
        (Caller("hdfs", Identity.KERBEROS), NOTHING_PUBLISHED, False),
    ],
)
def test_who_may_administer_must_be_proven_and_named(caller: Caller, published: PublishedPolicy, allowed: bool) -> None:
    admins = AdminAccess(
        None,
        AccessList(frozenset({"first"})),
        lambda user: frozenset({"keyadmins"}) if user == "kim" else frozenset(),
    )
    assert admins.may_administer(caller, published) is allowed


def test_everybody_among_the_policys_administrators_is_nobody_here() -> None:
    published = PublishedPolicy(1, admins=AccessList())
    assert not AdminAccess(None).may_administer(Caller("any", Identity.KERBEROS), published)
