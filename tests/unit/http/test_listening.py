"""Listening sockets: shared ports, taken ports, and who may own the way to a Unix socket."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_serving import RawClient, serving

from ringfence_agent.http import listening
from ringfence_agent.http.listening import listen_tcp, listen_unix, turn_away
from ringfence_agent.http.request import Request
from ringfence_agent.http.response import Response, ResponseHead
from ringfence_zones.errors import ConfigError


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    tmp_path.chmod(0o750)
    return_to = Path.cwd()
    yield tmp_path
    os.chdir(return_to)


def test_port_zero_picks_one_port_for_all_slots_and_addresses() -> None:
    listener = listen_tcp("localhost", 0, slots=3)
    try:
        ports = {one.getsockname()[1] for slot in range(3) for one in listener.sockets_for(slot)}
        assert ports == {listener.port}
        assert len({one.fileno() for slot in range(3) for one in listener.sockets_for(slot)}) >= 3
    finally:
        listener.close()


def test_connections_reach_every_slot() -> None:
    listener = listen_tcp("127.0.0.1", 0, slots=2)
    clients = []
    try:
        accepted = [0, 0]
        for _ in range(64):
            clients.append(socket.create_connection(("127.0.0.1", listener.port), timeout=5))
            for slot in range(2):
                try:
                    clients.append(listener.sockets_for(slot)[0].accept()[0])
                    accepted[slot] += 1
                except BlockingIOError:
                    continue
        assert min(accepted) > 0
    finally:
        listener.close()
        for client in clients:
            client.close()


@pytest.mark.parametrize("slots", [1, 2])
def test_second_server_on_the_port_is_refused_with_the_fix(slots: int) -> None:
    """Even though both ask for SO_REUSEPORT as the same user, which the kernel would allow."""
    listener = listen_tcp("127.0.0.1", 0, slots=slots)
    try:
        with pytest.raises(ConfigError, match=f"port {listener.port} on 127.0.0.1 is taken") as caught:
            listen_tcp("127.0.0.1", listener.port, slots=slots)
        assert "port 0 picks a free one" in (caught.value.hint or "")
    finally:
        listener.close()
    listen_tcp("127.0.0.1", listener.port, slots=slots).close()


def test_port_can_be_taken_again_right_after_connections_were_closed() -> None:
    listener = listen_tcp("127.0.0.1", 0, slots=1)
    with socket.create_connection(("127.0.0.1", listener.port), timeout=5):
        accepted, _ = listener.sockets_for(0)[0].accept()
        accepted.close()  # the server closes first: its side stays in TIME_WAIT
    listener.close()
    listen_tcp("127.0.0.1", listener.port, slots=1).close()


@pytest.mark.parametrize(
    ("host", "says"), [("no-such-host.invalid", "has no address"), ("192.0.2.1", "not an address of this machine")]
)
def test_unusable_host_is_a_clear_error(host: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        listen_tcp(host, 0, slots=1)


def test_keep_only_closes_the_sockets_of_other_slots() -> None:
    listener = listen_tcp("127.0.0.1", 0, slots=2)
    try:
        listener.keep_only(1)
        assert listener.sockets_for(0)[0].fileno() == -1
        assert listener.sockets_for(1)[0].fileno() >= 0
    finally:
        listener.close()


def test_unix_socket_tells_who_connects(directory: Path) -> None:
    def who(request: Request) -> Response:
        peer = request.peer
        return Response(
            ResponseHead(200), json.dumps([peer.is_unix, peer.address, peer.uid, peer.gid, peer.pid]).encode()
        )

    with serving(who, listener=listen_unix(directory / "s")), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(directory / "s"))
        connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        seen = json.loads(RawClient(connection).read_answer().body)
    assert seen == [True, None, os.getuid(), os.getgid(), os.getpid()]


def test_unix_socket_has_its_mode_whatever_the_umask_and_is_removed_on_close(directory: Path) -> None:
    previous = os.umask(0)
    try:
        listener = listen_unix(directory / "s", mode=0o660)
        assert os.umask(0) == 0
    finally:
        os.umask(previous)
    assert (directory / "s").stat().st_mode & 0o777 == 0o660
    listener.close()
    listener.close()
    assert not (directory / "s").exists()


def test_close_leaves_a_successors_socket_alone(directory: Path) -> None:
    listener = listen_unix(directory / "s")
    (directory / "s").unlink()
    successor = listen_unix(directory / "s")
    listener.close()
    assert (directory / "s").is_socket()
    successor.close()


def test_dead_predecessors_socket_is_replaced(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / "s"))
    listen_unix(directory / "s").close()


def test_live_predecessors_socket_is_not_taken(directory: Path) -> None:
    listener = listen_unix(directory / "s")
    with pytest.raises(ConfigError, match="another process is listening"):
        listen_unix(directory / "s")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(directory / "s"))
    listener.close()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_anything_but_a_socket_is_left_alone(directory: Path, kind: str) -> None:
    path = directory / "s"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        (directory / "target").write_text("precious")
        path.symlink_to(directory / "target")
    with pytest.raises(ConfigError, match="is not a socket"):
        listen_unix(path)
    assert path.exists()


def test_socket_of_another_user_is_left_alone(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(directory / "s"))
    # Only root can give a file away, so the test pretends to be somebody else instead.
    monkeypatch.setattr(listening, "_check_directory", lambda _path: None)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigError, match=f"belongs to another user .uid {os.getuid()}"):
        listen_unix(directory / "s")
    assert (directory / "s").exists()


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757])
def test_directory_open_to_others_is_refused(directory: Path, mode: int) -> None:
    directory.chmod(mode)
    with pytest.raises(ConfigError, match="can be changed by other users") as caught:
        listen_unix(directory / "s")
    assert caught.value.command == f"chmod go-w {directory}"


def test_ancestor_open_to_others_is_refused(directory: Path) -> None:
    (directory / "inner").mkdir(mode=0o700)
    directory.chmod(0o777)
    with pytest.raises(ConfigError, match="can be changed by everybody"):
        listen_unix(directory / "inner" / "s")


def test_missing_directory_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        listen_unix(tmp_path / "absent" / "s")
    assert caught.value.command == f"install -d -m 0750 {tmp_path / 'absent'}"


def test_path_too_long_for_the_kernel_is_refused_with_its_length(directory: Path) -> None:
    room = 107 - len(os.fsencode(directory)) - 1
    listen_unix(directory / ("a" * room)).close()
    with pytest.raises(ConfigError, match="has 108 bytes; the system allows 107"):
        listen_unix(directory / ("a" * (room + 1)))


def test_who_waits_for_a_slot_that_nobody_serves_is_told_at_once() -> None:
    listener = listen_tcp("127.0.0.1", 0, slots=1)
    with (
        socket.create_connection((listener.host, listener.port), timeout=10) as one,
        socket.create_connection((listener.host, listener.port), timeout=10) as other,
    ):
        turn_away(listener.sockets_for(0))
        assert (one.recv(1), other.recv(1)) == (b"", b"")
    listener.close()
