from __future__ import annotations

import os
from pathlib import Path

import pytest

from ringfence_agent.http.request import Peer, Request
from ringfence_agent.kms.admin_access import AdminAccess, read_token
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
