"""The real server keeps its store: backups after changes, verification while it serves, deleted keys brought back."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kms_serving import DEADLINE_S, KmsPlace, RunningKms, call, json_of, remote_exception_of
from sandboxes import RINGFENCE

from ringfence_agent.keystore.backup.high_water import find_mark
from ringfence_zones.client_config import ClientConfig
from ringfence_zones.errors import KmsRemoteError
from ringfence_zones.kms_admin import AdminClient, open_admin_client
from ringfence_zones.kms_uri import parse_kms_uri


class Keeping:
    """A place with settings, a running server, and the commands beside it."""

    def __init__(self, directory: Path, settings: str = "") -> None:
        self.place = KmsPlace.make(directory)
        self.backups = directory / "backups"
        self.backups.mkdir(mode=0o700)
        self.config = directory / "kms.yaml"
        self.config.write_text(
            f"keystore: sqlite:///{self.place.store}\nhadoop_conf: {self.place.conf}\n"
            f"admin: {{socket: {self.place.admin_socket}}}\naudit: {{directory: {self.place.audit_directory}}}\n"
            f"backup: {{to: {self.backups}}}\n{settings}"
        )

    def serving(self, workers: int) -> Any:
        return self.place.serving(workers, "--config", str(self.config))

    def run(self, *arguments: str, expect: int = 0) -> Any:
        """A command's JSON; of its error with another code than 0, unless that is about findings."""
        command = [RINGFENCE, *arguments, "--config", str(self.config), "--json"]
        environ = {**os.environ, "HADOOP_CONF_DIR": "/nonexistent"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environ)
        assert done.returncode == expect, done.stderr
        return json.loads(done.stdout) if done.stdout else json.loads(done.stderr.splitlines()[-1])["error"]

    def admin(self) -> AdminClient:
        """The admin endpoint, as the commands ask it."""
        uri = parse_kms_uri("kms://http@localhost:9600/kms")
        return open_admin_client(ClientConfig(kms_admin_socket=self.place.admin_socket), uri)

    def newest(self) -> int:
        """The change number of the newest backup, -1 without one."""
        return max((int(path.name.split("-")[2]) for path in self.backups.glob("*.rfbackup")), default=-1)

    def newest_file(self) -> str:
        return str(max(self.backups.glob("*.rfbackup")))


def wait_for(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def create(kms: RunningKms, name: str) -> None:
    assert call(kms.one_worker(), "POST", "/kms/v1/keys", {"name": name, "length": 128}).status == 201


def status_of(kms: RunningKms) -> Any:
    client = kms.connect_admin()
    try:
        return json_of(call(client, "GET", "/ringfence/v1/status", user=None))["server"]
    finally:
        client.socket.close()


def test_each_change_is_backed_up_at_once_and_told(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path)
    with keeping.serving(2) as kms:
        for number in range(1, 4):
            create(kms, f"k{number}")
            wait_for(lambda n=number: keeping.newest() == n, f"backup {number}")  # type: ignore[misc]
        for worker in kms.every_worker():
            assert call(worker, "POST", "/kms/v1/key/k1", {}).status == 200
        wait_for(lambda: keeping.newest() == 5, "the backup of both rolls")
        assert call(kms.one_worker(), "DELETE", "/kms/v1/key/k2").status == 200
        wait_for(lambda: keeping.newest() == 6, "the backup of the delete")
        wait_for(lambda: status_of(kms)["backup"]["behind_s"] == 0, "the status to say so")
        told = status_of(kms)["backup"]
        assert told["newest"] == keeping.newest_file()
        assert (told["change_number"], told["problem"]) == (6, None)
        assert any("own disk" in risk for risk in status_of(kms)["risks"])
        metrics = call(kms.one_worker(), "GET", "/metrics").body.decode()
        assert "ringfence_kms_backup_behind_seconds 0.0" in metrics
        assert "ringfence_kms_store_genuine 1.0" in metrics
        shown = keeping.run("kms", "status")
        assert shown["server"]["backup"]["change_number"] == 6
    store_id = json.loads(Path(keeping.newest_file()).read_bytes().split(b"\n")[1])["store_id"]
    mark = find_mark(keeping.place.audit_directory, store_id)
    assert mark is not None
    assert mark.change_number == 6
    drilled = keeping.run("keystore", "drill", keeping.newest_file())
    assert {key["name"]: len(key["versions"]) for key in drilled["keys"]} == {"k1": 3, "k2": 1, "k3": 1}


def test_a_place_that_is_gone_holds_up_nothing(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path)
    keeping.backups.rmdir()
    with keeping.serving(1) as kms:
        create(kms, "k")
        wait_for(lambda: status_of(kms)["backup"]["problem"], "the failure to be told")
        assert call(kms.one_worker(), "GET", "/health/ready").status == 200
        metrics = call(kms.one_worker(), "GET", "/metrics").body.decode()
        assert "ringfence_kms_backup_failures_total 0.0" not in metrics


def test_a_deleted_key_is_listed_and_brought_back_by_administrators_alone(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path)
    with keeping.serving(2) as kms:
        create(kms, "data/pii ☃")
        name = "data%2Fpii%20%E2%98%83"
        (edek,) = json_of(call(kms.one_worker(), "GET", f"/kms/v1/key/{name}/_eek", query={"eek_op": "generate"}))
        before = call(kms.one_worker(), "GET", f"/kms/v1/key/{name}/_metadata")
        assert call(kms.one_worker(), "DELETE", f"/kms/v1/key/{name}").status == 200
        for worker in kms.every_worker():
            refused = call(worker, "POST", f"/ringfence/v1/key/{name}/_undelete", {})
            assert remote_exception_of(refused)[0] == 403
            assert call(worker, "GET", "/ringfence/v1/keys/deleted").status == 403
        (listed,) = keeping.run("key", "deleted")["keys"]
        assert (listed["name"], listed["versions"]) == ("data/pii ☃", 1)
        assert listed["until"] > listed["deleted"]
        assert keeping.run("key", "undelete", "data/pii ☃")["versions"] == 1
        assert keeping.admin().list_deleted_keys() == []
        body = {"name": "data/pii ☃", "iv": edek["iv"], "material": edek["encryptedKeyVersion"]["material"]}
        for worker in kms.every_worker():
            assert call(worker, "GET", f"/kms/v1/key/{name}/_metadata").body == before.body
            opened = call(worker, "POST", f"/kms/v1/keyversion/{name}%400/_eek", body, query={"eek_op": "decrypt"})
            assert opened.status == 200
        with pytest.raises(KmsRemoteError, match="key data/pii ☃ is not deleted, so there is nothing to bring back"):
            keeping.admin().undelete_key("data/pii ☃")
        with pytest.raises(KmsRemoteError, match="not found"):
            keeping.admin().undelete_key("never")
    lines = [(line["op"], line["outcome"], line["key"]) for line in keeping.place.all_audit_lines()]
    assert lines.count(("UNDELETE_KEY", "denied", "data/pii ☃")) == 2
    for outcome in ("begun", "ok"):
        assert ("UNDELETE_KEY", outcome, "data/pii ☃") in lines
    assert ("UNDELETE_KEY", "failed", "never") in lines
    assert ("GET_DELETED_KEYS", "ok", None) in lines


def test_a_key_is_not_brought_back_after_the_window_nor_over_a_newer_one(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path, "tombstone: 0s\n")
    with keeping.serving(1) as kms:
        create(kms, "k")
        assert call(kms.one_worker(), "DELETE", "/kms/v1/key/k").status == 200
        time.sleep(0.01)
        (listed,) = keeping.admin().list_deleted_keys()
        assert (listed.name, listed.until_ms) == ("k", None)
        with pytest.raises(KmsRemoteError, match="too long ago"):
            keeping.admin().undelete_key("k")
        create(kms, "k")
        assert keeping.admin().list_deleted_keys() == []


def test_an_undelete_takes_json_so_that_no_web_page_can_send_one(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path)
    with keeping.serving(1) as kms:
        create(kms, "k")
        assert call(kms.one_worker(), "DELETE", "/kms/v1/key/k").status == 200
        client = kms.connect_admin()
        try:
            assert call(client, "POST", "/ringfence/v1/key/k/_undelete", user=None).status == 400
            assert call(client, "GET", "/ringfence/v1/key/k/_undelete", user=None).status == 405
            assert call(client, "GET", "/ringfence/v1/key/k", user=None).status == 404
        finally:
            client.socket.close()


@contextmanager
def altered(store: Path) -> Iterator[None]:
    """A row that the store wrote, put back over the one that came after it, and repaired again."""
    with closing(sqlite3.connect(store, timeout=10)) as connection:
        (kept,) = connection.execute("SELECT * FROM zone_key WHERE name = 'other'").fetchall()
        versions = connection.execute("SELECT * FROM key_version WHERE key_name = 'other'").fetchall()
        connection.execute("DELETE FROM key_version WHERE key_name = 'other'")
        connection.execute("DELETE FROM zone_key WHERE name = 'other'")
        connection.commit()
        yield
        connection.execute(f"INSERT INTO zone_key VALUES ({', '.join('?' * len(kept))})", kept)
        for row in versions:
            connection.execute(f"INSERT INTO key_version VALUES ({', '.join('?' * len(row))})", row)
        connection.commit()


@pytest.mark.parametrize("workers", [3, pytest.param(1, marks=pytest.mark.long)])
def test_no_worker_serves_a_key_of_a_store_that_is_not_genuine(tmp_path: Path, workers: int) -> None:
    keeping = Keeping(tmp_path, "store_check: 1s\n")
    with keeping.serving(workers) as kms:
        create(kms, "k")
        create(kms, "other")
        (edek,) = json_of(call(kms.one_worker(), "GET", "/kms/v1/key/k/_eek", query={"eek_op": "generate"}))
        body = {"name": "k", "iv": edek["iv"], "material": edek["encryptedKeyVersion"]["material"]}

        def open_on(worker: Any) -> int:
            path = "/kms/v1/keyversion/k%400/_eek"
            return int(call(worker, "POST", path, body, query={"eek_op": "decrypt"}).status)

        every = kms.every_worker()
        assert {open_on(worker) for worker in every} == {200}
        with altered(keeping.place.store):
            wait_for(lambda: {open_on(worker) for worker in every} == {500}, "every worker to refuse")
            for worker in every:
                answer = call(worker, "GET", "/kms/v1/key/k/_metadata")
                status, java_class, message = remote_exception_of(answer)
                assert (status, java_class) == (500, "java.io.IOException")
                assert "integrity check" in message
                wait_for(lambda w=worker: call(w, "GET", "/health/ready").status == 503, "unready")  # type: ignore[misc]
            error = keeping.run("kms", "status", expect=1)
            assert "integrity check" in error["message"]
            metrics = call(kms.one_worker(), "GET", "/metrics").body.decode()
            assert "ringfence_kms_store_genuine 0.0" in metrics
        wait_for(lambda: {open_on(worker) for worker in every} == {200}, "every worker to serve again")
        wait_for(lambda: call(every[0], "GET", "/health/ready").status == 200, "ready")
        assert status_of(kms)["store_check"]["problem"] is None
