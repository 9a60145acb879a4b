"""The way to the admin endpoint: what proves the caller, and what never travels."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_http import Answer, Seen, scripted_server

from ringfence_zones.client_config import ClientConfig, read_client_config
from ringfence_zones.errors import (
    AccessDeniedError,
    ConfigError,
    KmsRemoteError,
    KmsUnavailableError,
    RevisionConflictError,
)
from ringfence_zones.kms_admin import Publication, open_admin_client
from ringfence_zones.kms_uri import parse_kms_uri

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
