"""`ringfence kms serve` as a process: starting, stopping, reloading, dying; and what its audit log shows."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from kms_serving import DEADLINE_S, OPEN_ACLS, KmsPlace, RunningKms, call, json_of, remote_exception_of, write_xml

from ringfence_agent.kms.audit.reader import find_files


@pytest.fixture
def place(tmp_path: Path) -> KmsPlace:
    return KmsPlace.make(tmp_path)


def run_to_the_end(place: KmsPlace, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(place.command(*options), capture_output=True, text=True, timeout=60, check=False)


def test_it_prints_one_line_when_every_worker_answers_and_ends_cleanly(place: KmsPlace, workers: int) -> None:
    with place.serving(workers) as kms:
        assert kms.ready_line == f"ready kms://http@localhost:{kms.port}/kms\n"
        assert len(kms.every_worker()) == workers
        kms.process.send_signal(signal.SIGTERM)
        kms.close()
        out, err = kms.process.communicate(timeout=DEADLINE_S)
        assert (kms.process.returncode, out, err) == (0, b"", b"")
    assert not place.admin_socket.exists()


def test_every_decision_has_one_audit_line_before_its_answer(place: KmsPlace, workers: int) -> None:
    with place.serving(workers) as kms:
        clients = kms.every_worker()
        call(clients[0], "POST", "/kms/v1/keys", {"name": "k", "length": 256})
        before = len(place.audit_lines())
        for number in range(40):
            client = clients[number % workers]
            eeks = json_of(call(client, "GET", "/kms/v1/key/k/_eek", query={"eek_op": "generate", "num_keys": "3"}))
            lines = place.audit_lines()[before:]
            assert len(lines) == number + 1
        assert len(eeks) == 3
        assert {line["slot"] for line in lines} == set(range(workers))
        assert {key: lines[-1][key] for key in ("op", "key", "user", "identity", "address", "status", "outcome")} == {
            "op": "GENERATE_EEK",
            "key": "k",
            "user": "hdfs",
            "identity": "claimed",
            "address": "127.0.0.1",
            "status": 200,
            "outcome": "ok",
        }
        call(clients[0], "GET", "/kms/v1/keys/names", user=None)
        call(clients[0], "DELETE", "/kms/v1/key/absent")
        assert [line["outcome"] for line in place.audit_lines()[-2:]] == ["unauthenticated", "failed"]


def test_neither_log_holds_key_material_or_cookies(place: KmsPlace) -> None:
    with place.serving(1, "-v") as kms:
        client = kms.one_worker()
        created = call(client, "POST", "/kms/v1/keys", {"name": "k"})
        secrets = [json_of(created)["material"], (created.header("Set-Cookie") or "").partition("&s=")[2][:40]]
        (eek,) = json_of(call(client, "GET", "/kms/v1/key/k/_eek", query={"eek_op": "generate"}))
        body = {"name": "k", "iv": eek["iv"], "material": eek["encryptedKeyVersion"]["material"]}
        opened = call(client, "POST", "/kms/v1/keyversion/k%400/_eek", body, query={"eek_op": "decrypt"})
        secrets.append(json_of(opened)["material"])
        call(client, "POST", "/kms/v1/keys", {"name": "bad", "material": secrets[0] + "!"})
        kms.process.send_signal(signal.SIGTERM)
        kms.close()
        _, log = kms.process.communicate(timeout=DEADLINE_S)
    written = b"".join(path.read_bytes() for path in place.audit_directory.iterdir()) + log
    assert b'"k"' in written  # the scan looks at the right place
    for secret in secrets:
        assert len(secret) > 20
        assert secret.encode() not in written


def test_an_audit_log_that_cannot_be_written_refuses_every_request(place: KmsPlace, workers: int) -> None:
    with place.serving(workers) as kms:
        kms.every_worker()
    full = place.directory / "full.yaml"
    # A limit on the file size is inherited by the server: the log is longer than that already, the store is not grown.
    for number in range(workers):
        (place.audit_directory / f"worker-{number}.jsonl").write_bytes(b"{}\n" * 1_000_000)
    full.write_text(f"keystore: sqlite:///{place.store}\nhadoop_conf: {place.conf}\nlisten: localhost:0\n")
    command = [place.command()[0], "kms", "serve", "--config", str(full), "--workers", str(workers)]
    limited = ["bash", "-c", 'ulimit -f 2000; exec "$0" "$@"', *command]
    process = subprocess.Popen(limited, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    kms = RunningKms(place, process, workers)
    try:
        kms.wait_until_ready()
        for _ in range(2 * workers):
            with kms.connect() as client:
                answer = call(client, "GET", "/kms/v1/keys/names")
            assert remote_exception_of(answer) == (
                503,
                "org.apache.hadoop.ipc.RetriableException",
                "the audit log cannot be written: File too large",
            )
    finally:
        process.kill()
        process.communicate()


def test_sighup_replaces_the_workers_without_failing_a_request(place: KmsPlace, workers: int) -> None:
    with place.serving(workers) as kms:
        call(kms.one_worker(), "POST", "/kms/v1/keys", {"name": "k"})
        stop, failures, served = threading.Event(), [], []

        def ask() -> None:
            while not stop.is_set():
                try:
                    with kms.connect() as client:
                        answer = call(client, "GET", "/kms/v1/key/k/_eek", query={"eek_op": "generate"})
                    served.append(answer.status)
                except OSError as error:
                    failures.append(repr(error))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        write_xml(place.conf / "kms-acls.xml", {**OPEN_ACLS, "hadoop.kms.acl.GET_KEYS": "nobody"})
        old = workers_of(kms)
        kms.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(workers_of(kms)) == workers and not workers_of(kms) & old, "new workers")
        stop.set()
        for thread in threads:
            thread.join()
        kms.close()
        assert failures == []
        assert set(served) == {200}
        assert call(kms.one_worker(), "GET", "/kms/v1/keys/names").status == 403


def test_a_reload_on_a_broken_acl_file_keeps_the_old_workers(place: KmsPlace, workers: int) -> None:
    with place.serving(workers) as kms:
        old = workers_of(kms)
        (place.conf / "kms-acls.xml").write_text("<configuration>")
        kms.process.send_signal(signal.SIGHUP)
        assert kms.process.stderr is not None
        while b"reload given up" not in (line := kms.process.stderr.readline()):
            assert line
        assert workers_of(kms) == old
        assert call(kms.one_worker(), "GET", "/kms/v1/keys/names").status == 200


def test_after_a_worker_died_in_the_middle_the_others_have_what_it_committed(place: KmsPlace) -> None:
    with place.serving(4) as kms:
        clients = kms.every_worker()
        call(clients[0], "POST", "/kms/v1/keys", {"name": "k"})
        for client in clients:
            call(client, "GET", "/kms/v1/key/k/_metadata")
        acknowledged = 1
        for _ in range(3):
            acknowledged += roll_until_killed(kms, "k")
        for client in kms.every_worker():
            found = json_of(call(client, "GET", "/kms/v1/key/k/_metadata"))["versions"]
            assert found >= acknowledged
        assert len({json_of(call(client, "GET", "/kms/v1/key/k"))["versions"] for client in kms.every_worker()}) == 1


def roll_until_killed(kms: RunningKms, name: str) -> int:
    """Rolls over one connection until its worker, which is killed meanwhile, is gone. How many were acknowledged."""
    client = kms.connect()
    user = f"victim-{time.monotonic_ns()}"
    slot = kms.slot_of(client, user)
    victims = {pid for pid in workers_of(kms) if connected_to(pid, client.socket.getsockname()[1], kms.port)}
    acknowledged = 0
    assert len(victims) == 1
    killer = threading.Timer(0.05, os.kill, (victims.pop(), signal.SIGKILL))
    killer.start()
    with suppress(OSError):
        while True:
            # As a user of this round: another round's first roll would pass for this one's last, sent again.
            if call(client, "POST", f"/kms/v1/key/{name}", b"{}", user=user).status == 200:
                acknowledged += 1
    killer.join()
    client.socket.close()
    kms.close()
    assert slot in range(kms.workers)
    return acknowledged


def connected_to(pid: int, client_port: int, server_port: int) -> bool:
    """Whether a process holds the server's end of a loopback connection (its socket's inode, proc(5))."""
    ends = (f":{server_port:04X} ", f":{client_port:04X} ")
    inodes = set()
    for line in (
        Path("/proc/net/tcp").read_text().splitlines()[1:] + Path("/proc/net/tcp6").read_text().splitlines()[1:]
    ):
        fields = line.split()
        if fields[1].endswith(ends[0].strip()) and fields[2].endswith(ends[1].strip()):
            inodes.add(f"socket:[{fields[9]}]")
    links = set()
    with suppress(FileNotFoundError):  # a worker killed before may go only now
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                links.add(str(descriptor.readlink()))
    return bool(inodes & links)


def workers_of(kms: RunningKms) -> set[int]:
    children = Path(f"/proc/{kms.process.pid}/task/{kms.process.pid}/children").read_text()
    return {int(pid) for pid in children.split()}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.parametrize("storms", [3, pytest.param(20, marks=pytest.mark.long)])
def test_a_killed_server_has_every_acknowledged_version_after_its_restart(
    place: KmsPlace, workers: int, storms: int
) -> None:
    acknowledged: dict[str, int] = {}
    for storm in range(storms):
        with place.serving(workers) as kms:
            threads = [
                threading.Thread(target=create_and_roll, args=(kms, f"s{storm}t{number}", acknowledged))
                for number in range(4)
            ]
            for thread in threads:
                thread.start()
            wait_until(lambda: len(acknowledged) >= 10 * (storm + 1), "a storm")  # noqa: B023 - called at once
            kms.process.kill()
            for thread in threads:
                thread.join()
            kms.process.wait()
        wait_until(lambda: not store_in_use(place), "the end of the workers")
    with place.serving(workers) as kms:
        for client in kms.every_worker():
            names = json_of(call(client, "GET", "/kms/v1/keys/names"))
            assert set(acknowledged) <= set(names)
            for name in names:
                versions = json_of(call(client, "GET", f"/kms/v1/key/{name}/_versions"))
                # One more than acknowledged may be there: committed, and killed before the answer. Never a gap.
                assert [version["versionName"] for version in versions] == [f"{name}@{n}" for n in range(len(versions))]
                assert acknowledged.get(name, 0) <= len(versions) <= acknowledged.get(name, 0) + 1
                (eek,) = json_of(call(client, "GET", f"/kms/v1/key/{name}/_eek", query={"eek_op": "generate"}))
                assert eek["versionName"] == f"{name}@{len(versions) - 1}"


def create_and_roll(kms: RunningKms, prefix: str, acknowledged: dict[str, int]) -> None:
    with suppress(OSError), kms.connect() as client:
        for number in range(100_000):
            name = f"{prefix}k{number}"
            if call(client, "POST", "/kms/v1/keys", {"name": name}).status == 201:
                acknowledged[name] = 1
            for _ in range(3):
                if call(client, "POST", f"/kms/v1/key/{name}", b"{}").status == 200:
                    acknowledged[name] += 1


def store_in_use(place: KmsPlace) -> bool:
    """Whether a process still runs with this store on its command line."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(place.store).encode() in process.read_bytes():
                return True
    return False


@pytest.mark.parametrize(
    ("site", "options", "words"),
    [
        ({"hadoop.kms.authentication.type": "kerberos"}, (), "kerberos.keytab names no file"),
        ({"hadoop.kms.ssl.enabled": "true"}, (), "does not set ssl.server.keystore.location"),
        ({"hadoop.kms.authentication.simple.anonymous.allowed": "true"}, (), "keys are not served to nobody"),
        ({}, ("--listen", "0.0.0.0:0"), "would send data keys over the network in clear"),
        ({}, ("--listen", "nonsense"), "write HOST:PORT"),
        ({}, ("--keystore", "jceks://file@/x"), "Java key store"),
        ({}, ("--root-key", "/no/such/directory/key"), "/no/such/directory"),
        ({"hadoop.kms.authentication.token.validity": "x"}, (), "token.validity must be a whole number"),
    ],
)
def test_what_cannot_be_served_is_refused_with_exit_code_2(
    place: KmsPlace, site: dict[str, str], options: tuple[str, ...], words: str
) -> None:
    write_xml(place.conf / "kms-site.xml", site)
    ended = run_to_the_end(place, *options)
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_plain_http_off_loopback_is_served_when_hadoops_file_writes_it_out(place: KmsPlace) -> None:
    write_xml(place.conf / "kms-site.xml", {"hadoop.kms.ssl.enabled": "false"})
    with place.serving(1, "--listen", "0.0.0.0:0") as kms:
        assert kms.ready_line.startswith("ready kms://http@0.0.0.0:")


def test_a_broken_acl_file_at_the_start_is_refused(place: KmsPlace) -> None:
    (place.conf / "kms-acls.xml").write_text("<configuration>")
    ended = run_to_the_end(place)
    assert ended.returncode == 2
    assert "kms-acls.xml is not well-formed" in ended.stderr


def test_a_store_opened_with_another_root_key_is_refused(
    place: KmsPlace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with place.serving(1):
        pass
    other = KmsPlace.make(tmp_path_factory.mktemp("other"))
    with other.serving(1):
        pass
    ended = run_to_the_end(place, "--root-key", str(other.store) + ".root-key")
    assert ended.returncode in (1, 2)
    assert "root key" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_any_configuration_both_ways_are_named() -> None:
    command = [KmsPlace(Path("/nowhere")).command()[0], "kms", "serve"]
    environment = {**os.environ, "HADOOP_CONF_DIR": "/nowhere"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert ended.returncode == 2
    assert "--config" in ended.stderr and "--hadoop-conf" in ended.stderr


def test_its_own_file_is_read_strictly(tmp_path: Path) -> None:
    file = tmp_path / "kms.yaml"
    file.write_text("keystor: sqlite:////x\nworkers: none\n")
    command = [KmsPlace(tmp_path).command()[0], "kms", "serve", "--config", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "did you mean 'keystore'?" in ended.stderr
    assert "'workers'" in ended.stderr


def test_its_own_file_serves(tmp_path: Path, workers: int) -> None:
    tmp_path.chmod(0o700)
    file = tmp_path / "kms.yaml"
    socket, audit = tmp_path / "admin.sock", tmp_path / "audit"
    file.write_text(
        f"listen: localhost:0\nkeystore: sqlite:///{tmp_path}/k.db\nworkers: {workers}\n"
        f"admin: {{socket: {socket}}}\naudit: {{directory: {audit}, sync: 50ms}}\n"
    )
    command = [KmsPlace(tmp_path).command()[0], "kms", "serve", "--config", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    kms = RunningKms(KmsPlace(tmp_path), process, workers)
    try:
        kms.wait_until_ready()
        with kms.connect() as client:
            assert call(client, "GET", "/kms/v1/keys/names").status == 200
        assert socket.is_socket()
        assert [record.fields["op"] for record in find_files([audit]).read()] == ["GET_KEYS"]
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
