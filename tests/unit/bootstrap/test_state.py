"""What a sandbox remembers, and which directories it refuses to use."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ringfence_bootstrap.sandbox.processes import Process
from ringfence_bootstrap.sandbox.state import (
    Layout,
    Ports,
    State,
    check_directory,
    choose_ports,
    default_directory,
    find_state,
    locked,
    port_is_free,
    save_state,
)
from ringfence_zones.errors import SandboxError

STATE = State(
    hadoop_version="3.4.2",
    kms="stock",
    ports=Ports(1, 2, 3, 4, 5, 6),
    java_home="/jvm",
    agent=True,
    processes={"kms": Process(12, 34, "boot")},
)


def test_what_is_saved_is_found_again(tmp_path: Path) -> None:
    save_state(Layout(tmp_path), STATE)
    assert find_state(Layout(tmp_path)) == STATE
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_no_sandbox_is_found_in_an_empty_directory(tmp_path: Path) -> None:
    assert find_state(Layout(tmp_path)) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "cannot be read"),
        ("[]", "was written by another version"),
        (json.dumps({**STATE.to_json(), "schema": 99}), "was written by another version"),
        (json.dumps({"schema": 1}), "is damaged"),
        (json.dumps({**STATE.to_json(), "processes": {"kms": {"pid": 1}}}), "is damaged"),
        (json.dumps({**STATE.to_json(), "ports": None}), "is damaged"),
    ],
)
def test_a_stale_state_says_so_and_names_the_file(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(SandboxError, match=why) as caught:
        find_state(Layout(tmp_path))
    assert str(tmp_path / "state.json") in caught.value.message
    assert caught.value.hint
    assert caught.value.command


def test_a_sandbox_of_the_first_schema_has_one_namenode_and_no_yarn(tmp_path: Path) -> None:
    content = STATE.to_json()
    first = {name: content[name] for name in ("hadoop_version", "kms", "java_home", "agent", "processes")}
    ports = {name: content["ports"][name] for name in ("kms", "namenode", "namenode_http", "datanode")}
    ports |= {"datanode_http": 5, "datanode_ipc": 6}
    (tmp_path / "state.json").write_text(json.dumps({"schema": 1, **first, "ports": ports}))
    assert find_state(Layout(tmp_path)) == STATE
    assert [each.daemon for each in STATE.namenodes] == ["namenode"]
    assert STATE.filesystem == "hdfs://localhost:2"


def test_a_pair_is_known_by_its_nameservice(tmp_path: Path) -> None:
    pair = replace(STATE, ha=True, active="nn2", ports=replace(STATE.ports, namenode2=12, namenode2_http=13))
    save_state(Layout(tmp_path), pair)
    assert find_state(Layout(tmp_path)) == pair
    assert pair.filesystem == "hdfs://ringfence"
    assert [(each.name, each.daemon, each.port, each.http_port) for each in pair.namenodes] == [
        ("nn1", "namenode-nn1", 2, 3),
        ("nn2", "namenode-nn2", 12, 13),
    ]


@pytest.mark.parametrize("name", ["a b", "a,b", "a%20b", "a:b", "$HOME", "x" * 100])
def test_a_directory_that_hadoop_or_a_socket_cannot_take_is_refused(name: str) -> None:
    with pytest.raises(SandboxError) as caught:
        check_directory(Path("/nowhere") / name)
    assert "--dir" in (caught.value.hint or "")


def test_a_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    directory = Path("/proc/self")
    with pytest.raises(SandboxError, match="holds files but no sandbox"):
        check_directory(directory)


def test_a_file_is_not_a_directory() -> None:
    with pytest.raises(SandboxError, match="is not a directory"):
        check_directory(Path("/proc/self/status"))


def test_a_new_directory_may_hold_the_lock_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with locked(Layout(Path("fresh"))):
        check_directory(Path("fresh"))
    assert Path("fresh").stat().st_mode & 0o777 == 0o700


def test_the_default_directory_follows_xdg_and_ignores_a_relative_one() -> None:
    assert default_directory({"XDG_STATE_HOME": "/state"}) == Path("/state/ringfence/sandbox")
    assert default_directory({"XDG_STATE_HOME": "state"}) == Path.home() / ".local/state/ringfence/sandbox"
    assert default_directory({}) == Path.home() / ".local/state/ringfence/sandbox"


def test_chosen_ports_differ_and_are_free() -> None:
    ports = choose_ports()
    numbers = [getattr(ports, name) for name in Ports.__dataclass_fields__]
    assert len(set(numbers)) == len(numbers)
    assert all(port_is_free(port) for port in numbers)


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not port_is_free(listener.getsockname()[1])


def test_a_second_command_waits_for_the_first(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with locked(Layout(tmp_path)):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(Layout(tmp_path)):
        thread.start()
        thread.join(timeout=0.3)
        assert thread.is_alive()
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]
