"""The audit log of the real server: nothing answered that is not on record, whoever dies; rotation; reading it back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kms_serving import DEADLINE_S, KmsPlace, RunningKms, call, json_of, remote_exception_of

GENERATE = {"eek_op": "generate", "num_keys": "2"}


@pytest.fixture
def place(tmp_path: Path) -> KmsPlace:
    return KmsPlace.make(tmp_path)


def create(kms: RunningKms, name: str = "k") -> None:
    assert call(kms.one_worker(), "POST", "/kms/v1/keys", {"name": name, "length": 256}).status == 201


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Load:
    """Clients that generate EDEKs, each as a user of its own, and count the answers they had."""

    def __init__(self, kms: RunningKms, clients: int) -> None:
        self.answered: Counter[str] = Counter()
        self.stop = threading.Event()
        self._kms = kms
        self._threads = [threading.Thread(target=self._run, args=(f"client-{n}",)) for n in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def _run(self, user: str) -> None:
        while not self.stop.is_set():
            with suppress(OSError, ValueError, AssertionError), self._kms.connect() as client:
                while not self.stop.is_set():
                    answer = call(client, "GET", "/kms/v1/key/k/_eek", user=user, query=GENERATE)
                    if answer.status == 200 and json_of(answer):
                        self.answered[user] += 1

    def total(self) -> int:
        return sum(self.answered.values())


def recorded(place: KmsPlace) -> Counter[str]:
    return Counter(
        line["user"] for line in place.audit_lines() if line["op"] == "GENERATE_EEK" and line["outcome"] == "ok"
    )


def test_a_worker_killed_under_load_loses_no_record_of_an_answer(place: KmsPlace) -> None:
    with place.serving(2) as kms:
        create(kms)
        with kms.connect_admin() as admin:
            pids = json_of(call(admin, "GET", "/ringfence/v1/status", user=None))["server"]["workers"]
        with Load(kms, 6) as load:
            for number, worker in enumerate(pids):
                reached = load.total()
                until(lambda before=reached: load.total() > before + 200, "the load to go on")  # type: ignore[misc]
                os.kill(worker["pid"], signal.SIGKILL)
                until(lambda before=number: crashes(kms) > before, "the supervisor to notice")  # type: ignore[misc]
        answered, lines = load.answered, recorded(place)
    assert min(answered.values()) > 0
    # A client cut off in the middle had no answer to the request under way: one for each death at most.
    for user, count in answered.items():
        assert count <= lines[user] <= count + len(pids) + 1
    check_sequences(place)


def crashes(kms: RunningKms) -> int:
    with suppress(OSError, ValueError), kms.connect_admin() as client:
        return int(json_of(call(client, "GET", "/ringfence/v1/status", user=None))["server"]["worker_crashes"])
    return 0


def check_sequences(place: KmsPlace) -> None:
    """Each worker's files number their records without a gap."""
    for number in range(4):
        paths = sorted(place.audit_directory.glob(f"worker-{number}.*jsonl"), key=lambda path: path.stat().st_mtime)
        numbers = [json.loads(line)["sequence"] for path in paths for line in path.read_text().splitlines()]
        assert numbers == list(range(1, len(numbers) + 1))


def test_a_signal_rotates_every_workers_file_under_load_and_no_record_is_lost(place: KmsPlace) -> None:
    with place.serving(2) as kms:
        create(kms)
        with Load(kms, 4) as load:
            for round_number in range(3):
                before = load.total()
                until(lambda before=before: load.total() > before + 100, "the load to go on")  # type: ignore[misc]
                os.kill(kms.process.pid, signal.SIGUSR1)
                wanted = round_number + 1
                until(
                    lambda wanted=wanted: len(list(place.audit_directory.glob("worker-0.2*.jsonl"))) >= wanted,  # type: ignore[misc]
                    "the file to be put aside",
                )
        answered, lines = load.answered, recorded(place)
    assert answered == lines
    check_sequences(place)
    assert not list(place.audit_directory.glob("worker-2*"))


def test_a_change_is_on_record_before_it_is_made_and_again_when_it_is(place: KmsPlace) -> None:
    with place.serving(1) as kms:
        create(kms)
        client = kms.one_worker()
        call(client, "POST", "/kms/v1/key/k", {})
        call(client, "DELETE", "/kms/v1/key/k")
        found = [(line["op"], line["outcome"], line["version"]) for line in place.all_audit_lines() if line["key"]]
    assert found == [
        ("CREATE_KEY", "begun", None),
        ("CREATE_KEY", "ok", 0),
        ("ROLL_NEW_VERSION", "begun", None),
        ("ROLL_NEW_VERSION", "ok", 1),
        ("DELETE_KEY", "begun", None),
        ("DELETE_KEY", "ok", None),
    ]


@pytest.mark.parametrize("required", [True, False])
def test_a_full_disk_refuses_every_decision_unless_records_are_not_required(tmp_path: Path, required: bool) -> None:
    place = KmsPlace.make(tmp_path)
    with place.serving(1) as kms:
        create(kms)
        kms.every_worker()
    (place.audit_directory / "worker-0.jsonl").write_bytes(b"{}\n" * 1_000_000)
    settings = tmp_path / "kms.yaml"
    settings.write_text(
        f"keystore: sqlite:///{place.store}\nhadoop_conf: {place.conf}\nlisten: localhost:0\n"
        f"audit: {{required: {str(required).lower()}}}\n"
    )
    serve = [place.command()[0], "kms", "serve", "--config", str(settings), "--workers", "1"]
    # A limit on the file size is inherited by the server: the log is longer than that already, the store is not.
    process = subprocess.Popen(
        ["bash", "-c", 'ulimit -f 2000; exec "$0" "$@"', *serve], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    kms = RunningKms(place, process, 1)
    try:
        kms.wait_until_ready()
        with kms.connect() as client:
            answer = call(client, "GET", "/kms/v1/key/k/_eek", query=GENERATE)
            rolled = call(client, "POST", "/kms/v1/key/k", {})
            ready = call(client, "GET", "/health/ready", user=None)
            live = call(client, "GET", "/health/live", user=None)
        assert live.status == 200
        if required:
            for refused in (answer, rolled):
                assert remote_exception_of(refused) == (
                    503,
                    "org.apache.hadoop.ipc.RetriableException",
                    "the audit log cannot be written: File too large",
                )
            assert b"encryptedKeyVersion" not in answer.body
            assert ready.status == 503
        else:
            assert (answer.status, rolled.status, ready.status) == (200, 200, 200)
    finally:
        process.terminate()
        _, log = process.communicate(timeout=DEADLINE_S)
    assert log.decode().count("cannot be written: File too large") == 1
    with place.serving(1) as again:
        versions = json_of(call(again.one_worker(), "GET", "/kms/v1/key/k/_metadata"))["versions"]
    assert versions == (1 if required else 2)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [KmsPlace(Path()).command()[0], "audit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_tail_and_search_read_all_workers_without_the_server(place: KmsPlace) -> None:
    with place.serving(4) as kms:
        create(kms)
        for number, client in enumerate(kms.every_worker() * 3):
            call(client, "GET", "/kms/v1/key/k/_eek", user=f"user-{number}", query=GENERATE)
        call(kms.one_worker(), "GET", "/kms/v1/keys/names", user=None)
    where = ("--hadoop-conf", str(place.conf), "--keystore", f"sqlite:///{place.store}")
    tail = run("tail", "-n", "5", "--json", *where)
    newest = [json.loads(line) for line in tail.stdout.splitlines()]
    assert [record["outcome"] for record in newest] == ["ok"] * 4 + ["unauthenticated"]
    assert [record["user"] for record in newest[:4]] == [f"user-{number}" for number in (8, 9, 10, 11)]
    assert len({record["slot"] for record in newest[:4]}) == 4

    def search(*options: str) -> list[dict[str, Any]]:
        done = run("search", "--json", *options, "--dir", str(place.audit_directory))
        assert (done.returncode, done.stderr) == (0, "")
        return [json.loads(line) for line in done.stdout.splitlines()]

    assert [record["user"] for record in search("--op", "generate_eek")] == [f"user-{n}" for n in range(12)]
    assert len(search("--user", "user-3", "--key", "k", "--address", "127.0.0.1", "--since", "1h")) == 1
    assert search("--user", "user-3", "--key", "other") == []
    assert search("--since", "2090-01-01") == []
    (refused,) = search("--outcome", "unauthenticated")
    assert search("--until", refused["time"], "--outcome", "unauthenticated") == []
    text = run("search", "--user", "user-3", "--dir", str(place.audit_directory)).stdout
    assert "GENERATE_EEK  k@0  user-3/claimed  127.0.0.1" in text


def test_tail_follows_what_is_written(place: KmsPlace) -> None:
    with place.serving(1) as kms:
        create(kms)
        command = [place.command()[0], "audit", "tail", "-f", "-n", "0", "--json", "--dir", str(place.audit_directory)]
        follower = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert follower.stdout is not None
            stop = threading.Event()

            def ask() -> None:
                with kms.connect() as client:
                    while not stop.wait(0.05):
                        call(client, "GET", "/kms/v1/keys/names", user="followed")

            asking = threading.Thread(target=ask)
            asking.start()
            try:
                seen = [json.loads(follower.stdout.readline()) for _ in range(3)]
            finally:
                stop.set()
                asking.join()
        finally:
            follower.kill()
            follower.communicate()
    assert {record["user"] for record in seen} == {"followed"}
    assert [record["sequence"] for record in seen] == list(range(seen[0]["sequence"], seen[0]["sequence"] + len(seen)))


def test_a_time_that_is_none_and_a_directory_that_is_not_there_are_told(place: KmsPlace) -> None:
    wrong = run("search", "--since", "yesterday", "--dir", str(place.directory))
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "--since 'yesterday' is no time" in wrong.stderr
    missing = run("tail", "--dir", str(place.directory / "none"))
    assert missing.returncode == 2
    assert "cannot list the audit files" in missing.stderr


def test_hadoops_format_has_hadoops_lines(tmp_path: Path) -> None:
    place = KmsPlace.make(tmp_path)
    settings = tmp_path / "kms.yaml"
    settings.write_text(
        f"keystore: sqlite:///{place.store}\nhadoop_conf: {place.conf}\nlisten: localhost:0\naudit: {{format: both}}\n"
    )
    command = [place.command()[0], "kms", "serve", "--config", str(settings), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    kms = RunningKms(place, process, 1)
    try:
        kms.wait_until_ready()
        with kms.connect() as client:
            call(client, "POST", "/kms/v1/keys", {"name": "k1", "description": "d"}, user="alice")
            call(client, "GET", "/kms/v1/key/k1/_eek", query=GENERATE)
            call(client, "GET", "/kms/v1/keys/names", user=None)
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)
    lines = (place.audit_directory / "worker-0.kms-audit.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "OK[op=CREATE_KEY, key=k1, user=alice] UserProvidedMaterial:false Description:d",
        "OK[op=GENERATE_EEK, key=k1, user=hdfs, accessCount=1, interval=0ms] ",
        "UNAUTHENTICATED RemoteHost:127.0.0.1 Method:GET URL:/kms/v1/keys/names ErrorMsg:'Authentication required'",
    ]
