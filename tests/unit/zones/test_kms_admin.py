"""The way to the admin endpoint: what proves the caller, and what never travels."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from scripted_http import Answer, Seen, scripted_server

from ringfence_zones.client_config import ClientConfig, read_client_config
from ringfence_zones.errors import (
    AccessDeniedError,
    ConfigError,
    GrantNotFoundError,
    InputError,
    KmsError,
    KmsRemoteError,
    KmsUnavailableError,
    LeaseHeldError,
    RevisionConflictError,
)
from ringfence_zones.grants import GrantRequest
from ringfence_zones.kms_admin import Publication, open_admin_client
from ringfence_zones.kms_uri import KmsUri, parse_kms_uri
from ringfence_zones.leases import Lease, clock_s

URI = parse_kms_uri("kms://http@localhost:9600/kms")
PUBLISHED = (200, b'{"revision": 4, "digest": "ab"}')


@pytest.fixture
def socket_path() -> Iterator[Path]:
    # pytest's own directories are too long for a Unix socket's address.
    with tempfile.TemporaryDirectory(prefix="rf-") as directory:
        yield Path(directory) / "admin.sock"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    path.chmod(0o600)
    return path


def test_a_policy_is_published_over_the_socket_without_any_claim_of_a_name(socket_path: Path) -> None:
    with scripted_server(lambda _: PUBLISHED, socket_path) as server:
        admin = open_admin_client(ClientConfig(kms_admin_socket=socket_path), URI)
        assert admin.publish(3, b'{"version":1}') == Publication(4, "ab")
    (seen,) = server.seen
    assert (seen.method, seen.target) == ("PUT", "/ringfence/v1/policy")
    assert json.loads(seen.body) == {"expected_revision": 3, "policy": {"version": 1}}
    assert "authorization" not in seen.headers


def test_a_token_proves_the_caller_over_loopback(token_file: Path) -> None:
    with scripted_server(lambda _: PUBLISHED) as server:
        uri = parse_kms_uri(f"kms://http@127.0.0.1:{server.port}/kms")
        assert open_admin_client(ClientConfig(kms_token_file=token_file), uri).get_publication().revision == 4
    assert server.seen[0].headers["authorization"] == "Bearer s3cret"


def test_a_token_never_crosses_a_network_in_clear(token_file: Path) -> None:
    with pytest.raises(ConfigError, match="in clear"):
        open_admin_client(ClientConfig(kms_token_file=token_file), parse_kms_uri("kms://http@kms.example.com:9600/kms"))


def test_a_token_file_open_to_others_is_refused(token_file: Path) -> None:
    token_file.chmod(0o640)
    with pytest.raises(ConfigError, match="open to others") as caught:
        open_admin_client(ClientConfig(kms_token_file=token_file), URI)
    assert caught.value.command == f"chmod 600 {token_file}"
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "a\nb\n", "x" * 5000])
def test_a_token_file_without_exactly_one_token_is_refused_and_not_quoted(token_file: Path, content: str) -> None:
    token_file.write_text(content)
    with pytest.raises(ConfigError, match="one token") as caught:
        open_admin_client(ClientConfig(kms_token_file=token_file), URI)
    assert len(str(caught.value)) < 500


def test_without_any_way_the_message_names_both() -> None:
    with pytest.raises(ConfigError) as caught:
        open_admin_client(ClientConfig(), URI)
    assert "RINGFENCE_KMS_ADMIN_SOCKET" in (caught.value.hint or "")
    assert "RINGFENCE_KMS_TOKEN_FILE" in (caught.value.hint or "")


def test_losing_the_compare_and_set_tells_which_revision_won(socket_path: Path) -> None:
    def script(seen: Seen) -> Answer:
        return PUBLISHED if seen.method == "GET" else (409, b"{}")

    with scripted_server(script, socket_path), pytest.raises(RevisionConflictError) as caught:
        open_admin_client(ClientConfig(kms_admin_socket=socket_path), URI).publish(3, b"{}")
    assert (caught.value.expected, caught.value.actual) == (3, 4)


def test_a_refused_caller_and_a_refused_policy_are_different_errors(socket_path: Path) -> None:
    refusal = b'{"RemoteException": {"message": "who are you", "exception": "A", "javaClassName": "x.A"}}'
    admin = open_admin_client(ClientConfig(kms_admin_socket=socket_path), URI)
    with scripted_server(lambda _: (403, refusal), socket_path), pytest.raises(AccessDeniedError, match="who are you"):
        admin.get_publication()
    socket_path.unlink()
    with scripted_server(lambda _: (400, refusal), socket_path), pytest.raises(KmsRemoteError, match="who are you"):
        admin.get_publication()


def test_a_socket_nobody_listens_on_is_unavailable(socket_path: Path) -> None:
    with pytest.raises(KmsUnavailableError, match="no such file"):
        open_admin_client(ClientConfig(kms_admin_socket=socket_path), URI).get_publication()


def test_the_file_beside_hadoops_configuration_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / "ringfence-client.yaml").write_text("kms_admin_socket: /run/ringfence/kms.sock\n")
    assert read_client_config(tmp_path, {}).kms_admin_socket == Path("/run/ringfence/kms.sock")
    token_only = read_client_config(tmp_path, {"RINGFENCE_KMS_TOKEN_FILE": "/etc/token"})
    assert token_only == ClientConfig(kms_token_file=Path("/etc/token"))


def test_an_unknown_setting_stops_the_command(tmp_path: Path) -> None:
    (tmp_path / "ringfence-client.yaml").write_text("kms_admin_soket: /x\n")
    with pytest.raises(ConfigError, match="did you mean 'kms_admin_socket'"):
        read_client_config(tmp_path, {})


def lease_answer(**changes: object) -> bytes:
    lease = {"name": "agent", "holder": "one", "epoch": 7, "ttl_s": 15, "left_s": 16, **changes}
    return json.dumps(lease).encode()


def test_a_lease_ends_for_its_holder_as_counted_from_before_it_asked(socket_path: Path) -> None:
    asked: list[float] = []

    def script(_seen: Seen) -> Answer:
        asked.append(clock_s())
        return 200, lease_answer()

    with scripted_server(script, socket_path) as server:
        lease = open_admin_client(ClientConfig(kms_admin_socket=socket_path), URI).take_lease("agent", "one", 15)
    assert (lease.name, lease.holder, lease.epoch, lease.ttl_s) == ("agent", "one", 7, 15)
    assert asked[0] - 10 < lease.ends_s - 15 <= asked[0]
    assert 0 < lease.left_s() <= 15
    assert Lease("agent", "one", 7, 15, clock_s() - 1).left_s() == 0
    (seen,) = server.seen
    assert (seen.method, seen.target) == ("PUT", "/ringfence/v1/leases/agent")
    assert json.loads(seen.body) == {"holder": "one", "ttl_s": 15}


def test_a_lease_that_is_held_says_by_whom(socket_path: Path) -> None:
    body = b'{"RemoteException": {}, "lease": {"name": "agent", "holder": "two", "left_s": 3.5}}'
    admin = open_admin_client(ClientConfig(kms_admin_socket=socket_path), URI)
    with scripted_server(lambda _: (409, body), socket_path):
        for ask in (lambda: admin.take_lease("agent", "one", 15), lambda: admin.release_lease("agent", "one")):
            with pytest.raises(LeaseHeldError) as caught:
                ask()
            assert (caught.value.lease_name, caught.value.holder, caught.value.left_s) == ("agent", "two", 3.5)


@pytest.mark.parametrize("body", [b"[]", b'{"lease": 1}', b"no JSON", b'{"lease": {"name": "a", "holder": "b"}}'])
def test_a_conflict_that_says_nothing_is_an_error_of_the_kms(socket_path: Path, body: bytes) -> None:
    admin = open_admin_client(ClientConfig(kms_admin_socket=socket_path), URI)
    with scripted_server(lambda _: (409, body), socket_path), pytest.raises(KmsError, match="without saying who"):
        admin.take_lease("agent", "one", 15)


@pytest.mark.parametrize("ttl_s", [0.0, 0.99, 301.0, float("nan"), float("inf"), -1.0])
def test_no_lease_is_asked_for_that_lasts_too_long_or_too_short(socket_path: Path, ttl_s: float) -> None:
    admin = open_admin_client(ClientConfig(kms_admin_socket=socket_path), URI)
    with (
        scripted_server(lambda _: (200, lease_answer()), socket_path) as server,
        pytest.raises(InputError, match="1 to 300 seconds"),
    ):
        admin.take_lease("agent", "one", ttl_s)
    assert server.seen == []


def test_odd_characters_stay_inside_the_name(socket_path: Path) -> None:
    with scripted_server(lambda _: (200, lease_answer()), socket_path) as server:
        admin = open_admin_client(ClientConfig(kms_admin_socket=socket_path), URI)
        admin.get_lease("../policy?x#")
        admin.release_lease("a", "o&e=1")
    assert [seen.target for seen in server.seen] == [
        "/ringfence/v1/leases/..%2Fpolicy%3Fx%23",
        "/ringfence/v1/leases/a?holder=o%26e%3D1",
    ]


def test_an_instance_that_is_away_or_cannot_now_is_passed_over_for_leases(token_file: Path) -> None:
    refusal = b'{"RemoteException": {"message": "not now", "exception": "A", "javaClassName": "x.A"}}'
    config = ClientConfig(kms_token_file=token_file)

    def uri(port: int) -> KmsUri:
        # Two names of one machine; the other one's port is the same.
        return parse_kms_uri(f"kms://http@127.0.0.9;127.0.0.1:{port}/kms")

    with scripted_server(lambda _: (200, lease_answer())) as server:
        assert open_admin_client(config, uri(server.port)).take_lease("agent", "one", 15).epoch == 7
        with pytest.raises(KmsUnavailableError, match="no connection"):
            open_admin_client(config, uri(server.port)).publish(3, b"{}")
    assert len(server.seen) == 1
    with scripted_server(lambda _: (503, refusal)) as server, pytest.raises(KmsUnavailableError, match="not now"):
        open_admin_client(config, uri(server.port)).take_lease("agent", "one", 15)


GRANT = {
    "id": "g-1",
    "user": "alice",
    "from": "/data/pii",
    "to": "/data/masked",
    "token": None,
    "address": "10.0.0.7",
    "real_user": None,
    "purpose": "transfer t-1",
    "approver": "carol",
    "granted_by": "uid 0",
    "created": 1_795_000_000_000,
    "not_after": 1_795_000_600_000,
    "ended": None,
    "ended_by": None,
}


def test_a_grant_is_asked_for_by_its_id_listed_and_ended(socket_path: Path) -> None:
    def script(seen: Seen) -> Answer:
        answer: object = {"grants": [GRANT]} if seen.method == "GET" else GRANT
        return 200, json.dumps(answer).encode()

    request = GrantRequest("alice", "/data/pii", "/data/masked", 600, "transfer t-1", "carol", address="10.0.0.7")
    with scripted_server(script, socket_path) as server:
        admin = open_admin_client(ClientConfig(kms_admin_socket=socket_path), URI)
        made = admin.create_grant(replace(request, id="g-1"))
        assert (made.id, made.source, made.target, made.not_after_ms) == (
            "g-1",
            "/data/pii",
            "/data/masked",
            1_795_000_600_000,
        )
        assert [made] == list(admin.list_grants())
        assert admin.end_grant("a/../b") == made
    assert [(seen.method, seen.target) for seen in server.seen] == [
        ("PUT", "/ringfence/v1/grants/g-1"),
        ("GET", "/ringfence/v1/grants"),
        ("DELETE", "/ringfence/v1/grants/a%2F..%2Fb"),
    ]
    assert json.loads(server.seen[0].body) == {
        "user": "alice", "from": "/data/pii", "to": "/data/masked", "lifetime_s": 600, "purpose": "transfer t-1",
        "approver": "carol", "token": None, "address": "10.0.0.7", "real_user": None,
    }  # fmt: skip
    assert request.id != GrantRequest("alice", "/a", "/b", 600, "p", "a", token=1).id


def test_a_grant_that_is_not_there_and_an_answer_that_is_none(socket_path: Path) -> None:
    admin = open_admin_client(ClientConfig(kms_admin_socket=socket_path), URI)
    with scripted_server(lambda _: (404, b"{}"), socket_path), pytest.raises(GrantNotFoundError) as caught:
        admin.end_grant("g-1")
    assert caught.value.grant_id == "g-1"
    for body in (b"[]", b'{"grants": [1]}', b'{"grants": [{"id": "g"}]}'):
        socket_path.unlink()
        with scripted_server(lambda _, body=body: (200, body), socket_path), pytest.raises(KmsError, match="sent no"):  # type: ignore[misc]
            admin.list_grants()
