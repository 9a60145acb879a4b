from __future__ import annotations

import os
from pathlib import Path

import pytest

from ringfence_agent.keystore.open import is_shared, local_path, open_keystore
from ringfence_agent.keystore.sql.server_address import parse_server_uri, read_password
from ringfence_zones.errors import ConfigError, InputError


def test_a_uri_names_user_host_port_and_database() -> None:
    address = parse_server_uri("postgresql://ring%40fence@db.example.com:6543/keys")
    assert (address.user, address.host, address.port) == ("ring@fence", "db.example.com", 6543)
    assert (address.database, address.socket) == ("keys", None)
    assert parse_server_uri("postgresql://u@h/d").port == 5432
    assert parse_server_uri("mysql://u@h/d").port == 3306


@pytest.mark.parametrize(
    ("uri", "verified"),
    [
        ("postgresql://u@db.example.com/d", True),
        ("postgresql://u@10.0.0.7/d", True),
        ("postgresql://u@localhost.example.com/d", True),
        ("postgresql://u@db.example.com/d?tls=off", False),
        ("postgresql://u@localhost/d", False),
        ("mysql://u@127.0.0.1/d", False),
        ("mysql://u@[::1]/d", False),
        ("mysql://u@127.0.0.1/d?tls=verify", True),
        ("mysql://u@127.0.0.1/d?tls_ca=/etc/ca.pem", True),
        ("mysql://u@/d?socket=/run/mysqld/mysqld.sock", False),
    ],
)
def test_only_loopback_a_socket_or_leave_written_out_does_without_verified_tls(uri: str, verified: bool) -> None:
    assert parse_server_uri(uri).verify_tls == verified


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
@pytest.mark.parametrize("password", ["secret", "", "s%40cret"])
def test_a_password_in_the_uri_is_refused_and_not_repeated(scheme: str, password: str) -> None:
    for opened in (lambda uri: open_keystore(uri, None, init=True), local_path):
        with pytest.raises(InputError, match="holds a password") as caught:
            opened(f"{scheme}://user:{password}@h/d")
        assert "keystore_password_file" in str(caught.value.hint)
        assert "cret" not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("postgresql://h/d", "names a user, a host and one database"),
        ("postgresql://u@h", "names a user, a host and one database"),
        ("postgresql://u@h/", "names a user, a host and one database"),
        ("postgresql://u@h/a/b", "names a user, a host and one database"),
        ("postgresql://u@h/d#f", "names a user, a host and one database"),
        ("postgresql://u@/d", "either a host or a socket"),
        ("postgresql://u@h/d?socket=/run", "either a host or a socket"),
        ("postgresql://u@/d?socket=run", "an absolute path"),
        ("postgresql://u@h/d?sslmode=disable", "options socket, tls, tls_ca"),
        ("postgresql://u@h/d?tls=off&tls=verify", "each once"),
        ("postgresql://u@h/d?tls=maybe", "'verify' or 'off'"),
        ("postgresql://u@h/d?tls=off&tls_ca=/ca.pem", "no use for tls_ca"),
        ("postgresql://u@h:port/d", "malformed"),
        ("mysql://u@[::1/d", "malformed"),
    ],
)
def test_a_uri_that_names_no_store_is_refused_with_the_reason(uri: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_server_uri(uri)


@pytest.mark.parametrize("uri", ["postgresql+psycopg://u@h/d", "postgres://u@h/d", "mariadb://u@h/d"])
def test_other_spellings_are_told_the_right_one(uri: str) -> None:
    assert not is_shared(uri)
    with pytest.raises(InputError) as caught:
        open_keystore(uri, None, init=True)
    assert "://USER@HOST:" in str(caught.value.hint)


def test_a_label_names_the_place_and_nothing_else() -> None:
    assert parse_server_uri("mysql://u@[::1]:7/d?tls_ca=/ca").label == "mysql://u@[::1]:7/d"
    assert parse_server_uri("postgresql://u@/d?socket=/run/pg").label == "postgresql://u@/run/pg/d"


def test_a_shared_store_needs_its_root_key_named() -> None:
    with pytest.raises(ConfigError, match="no root key file is named") as caught:
        open_keystore("postgresql://u@localhost/d", None, init=True)
    assert "--root-key" in str(caught.value.hint)


def private(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_password_is_the_one_line_of_a_private_file(tmp_path: Path) -> None:
    assert read_password(private(tmp_path / "a", b"pass word\n")).reveal() == b"pass word"
    assert read_password(private(tmp_path / "b", "pä".encode())).reveal() == "pä".encode()


@pytest.mark.parametrize("content", [b"", b"\n", b"secret\nsecond\n", b"secret\0", b"s" * 1025])
def test_a_file_that_holds_no_one_password_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigError, match="does not hold one line") as caught:
        read_password(private(tmp_path / "a", content))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_password_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="mode 0600"):
        read_password(private(tmp_path / "a", b"secret", mode))


def test_a_password_file_is_no_link_no_directory_and_there(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(private(tmp_path / "a", b"secret"))
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name in ("link", "none", "fifo", "."):
        with pytest.raises(ConfigError, match="password file"):
            read_password(tmp_path / name)
