"""Health, Hadoop's jmx page and `ringfence kms status` of the real server."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from kms_serving import DEADLINE_S, KmsPlace, RunningKms, call, json_of


@pytest.fixture
def place(tmp_path: Path) -> KmsPlace:
    return KmsPlace.make(tmp_path)


def ask(kms: RunningKms, path: str, method: str = "GET") -> tuple[int, Any]:
    with kms.connect() as client:
        answer = call(client, method, path, user=None)
        return answer.status, json.loads(answer.body) if answer.body else None


def until_status(kms: RunningKms, path: str, status: int) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while (found := ask(kms, path))[0] != status:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found[1]


def test_anybody_may_ask_whether_it_lives_and_is_ready_with_and_without_a_key(place: KmsPlace) -> None:
    with place.serving(2) as kms:
        for _ in range(2):
            assert ask(kms, "/health/live") == (200, {"live": True})
            assert ask(kms, "/health/ready") == (200, {"ready": True})
            assert ask(kms, "/health/live", "HEAD") == (200, None)
            assert ask(kms, "/health/ready", "HEAD") == (200, None)
            assert ask(kms, "/health/ready", "POST")[0] == 405
            call(kms.one_worker(), "POST", "/kms/v1/keys", {"name": "k"})
        # Nobody decided anything, so nothing is on record but what made the connections and the key.
        assert {line["op"] for line in place.audit_lines()} == {"GET_STATUS", "CREATE_KEY"}


def test_a_store_that_does_not_open_its_keys_is_not_ready_and_strangers_are_not_told_why(place: KmsPlace) -> None:
    with place.serving(1) as kms:
        call(kms.one_worker(), "POST", "/kms/v1/keys", {"name": "k"})
        assert ask(kms, "/health/ready")[0] == 200
        with closing(sqlite3.connect(place.store)) as store, store:
            store.execute("UPDATE key_version SET sealed = zeroblob(60)")
        assert until_status(kms, "/health/ready", 503) == {"ready": False}
        assert ask(kms, "/health/live")[0] == 200
        with kms.connect_admin() as admin:
            told = json.loads(call(admin, "GET", "/health/ready", user=None).body)
        assert told["ready"] is False
        assert len(told["problems"]) == 1


def test_a_store_that_is_held_by_somebody_is_asked_once_and_not_waited_for_again(place: KmsPlace) -> None:
    with place.serving(1) as kms:
        call(kms.one_worker(), "POST", "/kms/v1/keys", {"name": "k"})
        began_s = time.monotonic()
        for _ in range(300):
            assert ask(kms, "/health/ready")[0] == 200
        elapsed_s = time.monotonic() - began_s
        metrics = _metrics(kms)
        reads = metrics['ringfence_kms_store_seconds_count{work="read"}']
        # One look a second, whoever asks.
        assert reads <= elapsed_s + 12


def _metrics(kms: RunningKms) -> dict[str, float]:
    with kms.connect() as client:
        text = call(client, "GET", "/metrics", user=None).body.decode()
    rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


@pytest.mark.parametrize("path", ["/jmx", "/kms/jmx"])
def test_the_jmx_page_has_the_beans_that_hadoops_tests_look_for(place: KmsPlace, path: str) -> None:
    with place.serving(2) as kms:
        client = kms.one_worker()
        call(client, "POST", "/kms/v1/keys", {"name": "k"})
        for each in kms.every_worker():
            call(each, "GET", "/kms/v1/key/k/_eek", query={"eek_op": "generate"})
        call(client, "DELETE", "/kms/v1/key/absent")
        call(client, "GET", "/kms/v1/keys/names", user=None)
        answer = call(client, "GET", path)
        assert answer.status == 200
        assert answer.header("Content-Type") == "application/json; charset=utf8"
        assert b'"name" : "java.lang:type=Memory"' in answer.body
        beans = {bean["name"]: bean for bean in json.loads(answer.body)["beans"]}
        assert {name: beans[f"metrics:name=hadoop.kms.{name}.calls.meter"]["Count"] for name in METERS} == METERS
        assert set(beans["metrics:name=hadoop.kms.key.calls.meter"]) >= {
            *("MeanRate", "OneMinuteRate", "FiveMinuteRate", "FifteenMinuteRate")
        }
        assert call(client, "GET", path, user=None).status == 401
        for pattern, names in {
            "Hadoop:service=KMS,name=JvmMetrics": ["Hadoop:service=KMS,name=JvmMetrics"],
            "Hadoop:name=JvmMetrics,service=KMS": ["Hadoop:service=KMS,name=JvmMetrics"],
            "java.lang:type=*": ["java.lang:type=Memory", "java.lang:type=Runtime"],
            "no.such:*": [],
        }.items():
            found = json.loads(call(client, "GET", path, query={"qry": pattern}).body)["beans"]
            assert [bean["name"] for bean in found] == names
        # Thousands of patterns, each tried on each bean, would hold up everybody else for a second.
        assert call(client, "GET", path, query={"qry": "*:" + ",".join(["*n*"] * 10_000)}).status == 400


METERS = {
    "admin": 2,
    "key": 0,
    "generate_eek": 2,
    "decrypt_eek": 0,
    "reencrypt_eek": 0,
    "reencrypt_eek_batch": 0,
    "invalid": 1,
    "unauthorized": 0,
    "unauthenticated": 1,
}


def kms_status(place: KmsPlace, *options: str) -> subprocess.CompletedProcess[str]:
    where = ("--hadoop-conf", str(place.conf), "--keystore", f"sqlite:///{place.store}")
    command = [place.command()[0], "kms", "status", *where, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_status_shows_the_server_on_one_screen(place: KmsPlace) -> None:
    absent = kms_status(place)
    assert (absent.returncode, absent.stdout) == (1, "")
    assert "no key server answers on" in absent.stderr
    with place.serving(2) as kms:
        call(kms.one_worker(), "POST", "/kms/v1/keys", {"name": "k"})
        shown = kms_status(place)
        assert (shown.returncode, shown.stderr) == (0, "")
        for words in (
            f"kms://http@localhost:{kms.port}/kms",
            "ready    yes",
            f"sqlite:///{place.store}, 1 key",
            "user names are claims that nobody proves",
            "off: plain HTTP",
            f"{place.audit_directory} (json)",
            "within 30 s",
        ):
            assert words in shown.stdout
        told = json.loads(kms_status(place, "--json").stdout)["server"]
        pids = [worker["pid"] for worker in told["workers"]]
        assert [worker["slot"] for worker in told["workers"]] == [0, 1]
        os.kill(pids[0], signal.SIGKILL)
        deadline = time.monotonic() + DEADLINE_S
        while told["worker_crashes"] != 1 or len(told["workers"]) != 2:
            assert time.monotonic() < deadline, told
            with suppress(ValueError, KeyError):
                told = json.loads(kms_status(place, "--json").stdout)["server"]
        assert pids[0] not in [worker["pid"] for worker in told["workers"]]
        # To a user under simple authentication the server says what it is, not how it is.
        with kms.connect() as client:
            assert "server" not in json_of(call(client, "GET", "/ringfence/v1/status"))


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_status_shows_what_http_tells_when_the_socket_is_closed(
    tmp_path: Path, certificates: Certificates, secure: bool
) -> None:
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    place = KmsPlace.make(tmp_path, site={"hadoop.kms.http.host": "localhost", "hadoop.kms.http.port": str(port)})
    server = certificates.server
    tls = ["--tls-cert", str(server.certificate), "--tls-key", str(server.key)] if secure else []
    context = ssl.create_default_context(cafile=str(certificates.trusted)) if secure else None
    with place.serving(1, "--listen", f"localhost:{port}", *tls, client_context=context):
        closed = ("--admin-socket", str(tmp_path / "elsewhere.sock"))
        shown = kms_status(place, *closed)
        scheme = "https" if secure else "http"
        for words in (
            f"kms://{scheme}@localhost:{port}/kms",
            "ready    yes",
            "certificate until" if secure else "off: plain HTTP",
            f"limited  no key server answers on {closed[1]}",
        ):
            assert words in shown.stdout, shown
        assert shown.returncode == 0
        told = json.loads(kms_status(place, *closed, "--json").stdout)
        assert (told["schema"], told["server"]["ready"]) == (1, True)
        # A user is told the version, but by no server whose certificate this machine does not trust.
        assert (told["version"] is None) == secure
        assert (told["server"]["certificate"] is not None) == secure
