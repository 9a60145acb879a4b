"""The supervision of the child: deadlines, deaths, restarts. The calls themselves are tested on a real cluster.

The child here is a small program that speaks the same lines and misbehaves on request.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ringfence_zones.errors import InputError, KmsRemoteError, NameNodeUnavailableError, RingfenceError
from ringfence_zones.hdfs_child import HdfsChild
from ringfence_zones.hdfs_child_wire import decode_arguments, decode_error, decode_result, encode_error
from ringfence_zones.hdfs_interface import Entry, EventKind, EventPage, NamespaceEvent
from ringfence_zones.model import EncryptionZone
from ringfence_zones.namenodes import NameNodeAddress

PROGRAM = """
import json, os, sys, time
def send(**message):
    sys.stdout.write(json.dumps(message) + "\\n"); sys.stdout.flush()
if os.path.exists(sys.argv[1] + "/refuse"):
    send(id=0, error={"type": "InputError", "message": "no", "hint": None, "command": None, "facts": {}})
    sys.exit(1)
send(id=0, result={"user": "hdfs"})
held = []
for line in sys.stdin:
    request = json.loads(line)
    path = request["arguments"][0] if request["arguments"] else None
    if path == "/hang":
        continue
    if path == "/die":
        os._exit(9)
    if path == "/hold":
        held.append(request); continue
    if path == "/release":
        for other in reversed(held):
            send(id=other["id"], result={"path": "/held", "key_name": str(other["id"])})
    if request["method"] == "read_events":
        after, within, outside = request["arguments"]
        event = {"txid": after + 1, "kind": "rename", "path": within[0], "target": outside[0], "time_ms": 7}
        page = {"events": [event], "first_txid": after + 1, "last_txid": after + 1, "synced_txid": after + 1}
        send(id=request["id"], result=page); continue
    if path == "/denied":
        send(id=request["id"], error={"type": "KmsRemoteError", "message": "m", "hint": "h", "command": "c",
             "facts": {"status": 403, "java_class": "x.Y"}})
        continue
    send(id=request["id"], result={"path": path, "key_name": "k"})
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "core-site.xml").write_text(
        "<configuration><property><name>fs.defaultFS</name><value>hdfs://nn:8020</value></property></configuration>"
    )
    return tmp_path


@pytest.fixture
def child(conf: Path) -> Iterator[HdfsChild]:
    made = HdfsChild(conf, deadline_s=1.0, command=(sys.executable, "-c", PROGRAM))
    yield made
    made.close()


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


def test_nothing_starts_before_the_first_call(child: HdfsChild) -> None:
    assert child.pid is None
    assert child.namenodes == (NameNodeAddress("nn:8020", "http://nn:9870"),)
    assert child.user == "hdfs"
    assert child.pid is not None


def test_answers_come_back_as_values(child: HdfsChild) -> None:
    assert child.find_zone_of("/data/é x") == EncryptionZone("/data/é x", "k")


def test_an_error_comes_back_as_the_same_error_with_its_facts(child: HdfsChild) -> None:
    with pytest.raises(KmsRemoteError) as caught:
        child.find_zone_of("/denied")
    error = caught.value
    assert (error.message, error.hint, error.command) == ("m", "h", "c")
    assert (error.status, error.java_class) == (403, "x.Y")


def test_calls_of_several_threads_are_under_way_together_and_each_gets_its_own_answer(child: HdfsChild) -> None:
    child.find_zone_of("/warm")
    with ThreadPoolExecutor(4) as pool:
        held = [pool.submit(child.find_zone_of, "/hold") for _ in range(3)]
        while len([future for future in held if future.running()]) < 3:
            time.sleep(0.01)
        deadline = time.monotonic() + 10
        while not all(future.done() for future in held):
            assert time.monotonic() < deadline
            child.find_zone_of("/release")
        keys = {zone.key_name for future in held if (zone := future.result())}
    assert len(keys) == 3


def test_a_call_that_hangs_fails_at_its_deadline_and_the_next_one_works(child: HdfsChild) -> None:
    child.find_zone_of("/a")
    first = child.pid
    assert first is not None
    started = time.monotonic()
    with pytest.raises(NameNodeUnavailableError, match="within 1 s"):
        child.find_zone_of("/hang")
    assert time.monotonic() - started < 5
    wait_until_gone(first)
    assert child.find_zone_of("/b") == EncryptionZone("/b", "k")
    assert child.pid != first


def test_a_child_that_dies_fails_the_call_under_way_and_is_replaced(child: HdfsChild) -> None:
    with pytest.raises(NameNodeUnavailableError, match="stopped"):
        child.find_zone_of("/die")
    assert child.find_zone_of("/b") == EncryptionZone("/b", "k")


def test_a_stopped_child_is_killed_at_the_deadline(child: HdfsChild) -> None:
    child.find_zone_of("/a")
    pid = child.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(NameNodeUnavailableError):
        child.find_zone_of("/b")
    wait_until_gone(pid)


def test_closing_leaves_no_process(child: HdfsChild) -> None:
    child.find_zone_of("/a")
    pid = child.pid
    assert pid is not None
    child.close()
    wait_until_gone(pid)
    assert child.pid is None


def test_a_file_in_the_directory_that_its_program_was_started_in_is_not_run(
    conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    (tmp_path / "json.py").write_text(f"open({str(seen)!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    made = HdfsChild(conf, deadline_s=5.0, environ={"PATH": "/bin"})
    with pytest.raises(RingfenceError):
        made.list_zones()
    made.close()
    assert not seen.exists()


def test_why_a_child_cannot_start_is_told_each_time(child: HdfsChild, conf: Path) -> None:
    (conf / "refuse").touch()
    for _ in range(2):
        with pytest.raises(InputError, match="no"):
            child.list_zones()


def every_error() -> list[RingfenceError]:
    return [
        InputError("m", hint="h", command="c"),
        NameNodeUnavailableError("m"),
        KmsRemoteError("m", status=403, java_class=None, hint="h"),
    ]


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_errors_survive_the_trip(error: RingfenceError) -> None:
    again = decode_error(encode_error(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert (again.hint, again.command) == (error.hint, error.command)


def test_a_request_that_is_no_call_of_the_interface_is_refused() -> None:
    with pytest.raises(KeyError):
        decode_arguments("__class__", [])
    with pytest.raises(ValueError, match="takes 1"):
        decode_arguments("find_zone_of", [])
    with pytest.raises(ValueError, match="string"):
        decode_arguments("find_zone_of", [7])


def test_events_cross_as_values_and_calls_are_counted(child: HdfsChild) -> None:
    event = NamespaceEvent(8, EventKind.RENAME, "/a", "/b", time_ms=7)
    assert child.calls_made == 0
    assert child.read_events(7, ("/a",), ["/b"]) == EventPage((event,), 8, 8, 8)
    with pytest.raises(KmsRemoteError):
        child.find_zone_of("/denied")
    assert child.calls_made == 2


def test_every_call_of_the_interface_is_known_to_the_wire() -> None:
    assert decode_arguments("read_events", [5, ["/a"], []]) == [5, ["/a"], []]
    assert decode_arguments("rename_inode", [5, "/a"]) == [5, "/a"]
    entry = {"path": "/a", "inode": 3, "is_directory": True, "is_encrypted": False}
    assert decode_result("find_entry", entry) == Entry("/a", 3, is_directory=True, is_encrypted=False)
    assert decode_result("list_entries", {"entries": [entry], "has_more": True}).has_more
    assert decode_result("find_key_version", None) is None
