"""`ringfence key import` and `key export` as commands: from Java key stores and running KMSs, and back into a file."""

from __future__ import annotations

import functools
import json
import os
import pwd
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kms_serving import OPEN_ACLS, KmsPlace, call, json_of
from sandboxes import RINGFENCE

from ringfence_agent.keystore.jceks.provider import format_jceks, parse_jceks
from ringfence_agent.keystore.jceks.seal import seal, unseal
from ringfence_zones.secret import Secret

VECTOR = Path(__file__).parents[1] / "vectors/jceks/hadoop-3.4.2.jceks"
PII = bytes(range(32, 64))


@functools.cache
def quick_key_store() -> bytes:
    """The keys that Hadoop wrote, sealed with fewer rounds: each import of the file itself would take a second."""
    password = Secret(b"correct horse")
    entries = parse_jceks(VECTOR.read_bytes(), password, "vector")
    quick = [replace(each, sealed=seal(unseal(each.sealed, password, each.alias), password, 10)) for each in entries]
    return format_jceks(quick, password)


class Transfer:
    """A directory with a Java key store, its password, and a store of ours."""

    def __init__(self, directory: Path) -> None:
        directory.chmod(0o700)
        self.directory = directory
        self.source = directory / "kms.keystore"
        self.source.write_bytes(quick_key_store())
        self.password = directory / "password"
        self.password.write_text("correct horse\n")
        self.store = directory / "k.db"

    def run(self, verb: str, *options: str, expect: int = 0, environ: Mapping[str, str] | None = None) -> Any:
        """The command's JSON; of its error when another code than 0 is expected."""
        command = [RINGFENCE, "key", verb, *options, "--keystore", f"sqlite:///{self.store}", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, timeout=120)
        assert done.returncode == expect, done.stderr
        return json.loads(done.stderr.splitlines()[-1])["error"] if expect else json.loads(done.stdout)

    def bring(self, *options: str, expect: int = 0) -> Any:
        given = ("--from", f"jceks://file@{self.source}", "--password-file", str(self.password))
        return self.run("import", *given, *options, expect=expect)

    def write(self, target: Path, *options: str, expect: int = 0) -> Any:
        given = ("--to", f"jceks://file@{target}", "--password-file", str(self.password))
        return self.run("export", *given, *options, expect=expect)

    def audit(self) -> list[dict[str, Any]]:
        files = sorted(self.directory.glob("k.db.audit.d/*.jsonl"))
        return [json.loads(line) for path in files for line in path.read_text().splitlines()]


@pytest.fixture
def transfer(tmp_path: Path) -> Transfer:
    return Transfer(tmp_path)


NEW = [{"name": "data.pii", "new": True, "added": [0]}, {"name": "k1", "new": True, "added": [0, 1]}]


def test_a_plan_tells_what_would_come_and_makes_nothing(transfer: Transfer) -> None:
    planned = transfer.bring("--plan")
    assert (planned["planned"], planned["keys"]) == (True, NEW)
    assert not transfer.store.exists()
    transfer.bring()
    assert transfer.bring("--plan")["keys"] == []


def test_keys_come_once_and_a_receipt_saves_opening_them_again(transfer: Transfer) -> None:
    receipt = transfer.directory / "receipt"
    assert transfer.bring("--receipt", str(receipt))["keys"] == NEW
    assert transfer.bring("--receipt", str(receipt))["keys"] == []
    assert transfer.bring()["keys"] == []
    assert PII.hex() not in receipt.read_text()
    # A receipt is believed only beside the store it belongs to.
    transfer.store = transfer.directory / "other.db"
    assert "belongs to the key store" in transfer.bring("--receipt", str(receipt), expect=2)["message"]


def test_another_key_of_the_same_name_is_refused_by_name(transfer: Transfer) -> None:
    with serving(transfer) as kms:
        made = call(kms.one_worker(), "POST", "/kms/v1/keys", {"name": "k1", "length": 128})
        assert made.status == 201
    error = transfer.bring(expect=1)
    assert "key k1: its version 0 here is not the one there" in error["message"]
    with serving(transfer) as kms:
        assert json_of(call(kms.one_worker(), "GET", "/kms/v1/keys/names")) == ["k1"]


def serving(transfer: Transfer) -> Any:
    directory = transfer.directory
    place = KmsPlace(directory) if (directory / "conf").exists() else KmsPlace.make(directory, OPEN_ACLS)
    return place.serving(1)


def test_keys_imported_beside_a_running_kms_are_served(transfer: Transfer) -> None:
    with serving(transfer) as kms:
        client = kms.one_worker()
        assert transfer.bring()["keys"] == NEW
        eek = json_of(call(client, "GET", "/kms/v1/key/k1/_eek", query={"eek_op": "generate", "num_keys": "1"}))
        assert eek[0]["versionName"] == "k1@1"
        metadata = json_of(call(client, "GET", "/kms/v1/key/data.pii/_metadata"))
    assert metadata["created"] == 1795330661705
    assert metadata["description"] == "Gehälter " * 40
    assert metadata["attributes"] == {"key.acl.name": "k1"}


def test_keys_come_from_a_running_kms_that_gives_them_out(transfer: Transfer, tmp_path_factory: Any) -> None:
    transfer.bring()
    other = Transfer(tmp_path_factory.mktemp("other"))
    with serving(transfer) as kms:
        uri = f"kms://http@localhost:{kms.port}/kms"
        done = other.run("import", "--from", uri, "--as", "hdfs")
        assert done["keys"] == NEW
        assert other.run("import", "--from", uri, "--as", "hdfs")["keys"] == []
    back = other.directory / "back"
    other.write(back)
    other.source = back
    other.store = other.directory / "third.db"
    assert other.bring()["keys"] == NEW


def test_a_kms_that_gives_no_material_out_is_told(transfer: Transfer, tmp_path_factory: Any) -> None:
    transfer.bring()
    other = Transfer(tmp_path_factory.mktemp("other"))
    place = KmsPlace.make(transfer.directory, OPEN_ACLS | {"hadoop.kms.acl.GET": " "})
    with place.serving(1) as kms:
        error = other.run("import", "--from", f"kms://http@localhost:{kms.port}/kms", "--as", "hdfs", expect=1)
    assert "refused" in error["message"]


def test_an_export_is_new_closed_and_on_record(transfer: Transfer) -> None:
    transfer.bring()
    target = transfer.directory / "out.keystore"
    assert transfer.write(target)["keys"] == [{"name": "data.pii", "versions": 1}, {"name": "k1", "versions": 2}]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    records = transfer.audit()
    assert [(record["op"], record["key"], record["version"]) for record in records] == [
        ("EXPORT_KEY", "data.pii", 0),
        ("EXPORT_KEY", "k1", 1),
    ]
    assert all(record["file"] == str(target) and record["user"].startswith("uid ") for record in records)
    before = target.read_bytes()
    assert "is there already" in transfer.write(target, expect=2)["message"]
    assert target.read_bytes() == before


def test_an_export_that_cannot_be_put_on_record_writes_nothing(transfer: Transfer) -> None:
    transfer.bring()
    target = transfer.directory / "out.keystore"
    transfer.write(target, "--audit-directory", "/proc/none", expect=2)
    assert not target.exists()


def test_an_export_of_some_keys_holds_those_and_an_unknown_one_is_named(transfer: Transfer) -> None:
    transfer.bring()
    target = transfer.directory / "out.keystore"
    assert [key["name"] for key in transfer.write(target, "k1")["keys"]] == ["k1"]
    assert "no key nothing" in transfer.write(transfer.directory / "o2", "k1", "nothing", expect=1)["message"]


def test_an_export_carries_over_what_the_receipt_knows(transfer: Transfer) -> None:
    receipt = ("--receipt", str(transfer.directory / "receipt"))
    transfer.bring(*receipt)
    base = ("--base", f"jceks://file@{transfer.source}")
    same = transfer.write(transfer.directory / "same", *base, *receipt)
    assert (same["sealed"], same["dropped"]) == (0, 0)
    with serving(transfer) as kms:
        client = kms.one_worker()
        assert call(client, "POST", "/kms/v1/key/k1", {}).status == 200
        assert call(client, "DELETE", "/kms/v1/key/data.pii").status == 200
    changed = transfer.write(transfer.directory / "changed", *base, *receipt)
    assert (changed["sealed"], changed["dropped"]) == (
        2,
        2,
    )  # k1's metadata and its third version; data.pii and its one


def test_a_password_is_never_an_argument_and_never_assumed_for_an_export(transfer: Transfer) -> None:
    transfer.bring()
    environ = {name: value for name, value in os.environ.items() if name != "HADOOP_KEYSTORE_PASSWORD"}
    target = f"jceks://file@{transfer.directory}/out"
    error = transfer.run("export", "--to", target, expect=2, environ=environ)
    assert "needs a password" in error["message"]
    transfer.run("export", "--to", target, environ=environ | {"HADOOP_KEYSTORE_PASSWORD": "correct horse"})


@pytest.mark.parametrize("suffix", ["_NEW", "_OLD"])
def test_a_key_store_in_the_middle_of_a_write_is_left_alone(transfer: Transfer, suffix: str) -> None:
    Path(f"{transfer.source}{suffix}").write_bytes(b"")
    assert f"kms.keystore{suffix} is there" in transfer.bring(expect=2)["message"]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("jceks://hdfs@nn/kms.keystore", "no Java key store on this machine"),
        ("localjceks://file/x", "no Java key store on this machine"),
        ("/var/kms.keystore", "is not a KMS address"),
    ],
)
def test_other_sources_say_what_is_meant(transfer: Transfer, source: str, why: str) -> None:
    assert why in transfer.run("import", "--from", source, expect=2)["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_works_as_the_stores_owner_and_leaves_no_file_of_its_own(transfer: Transfer) -> None:
    owner = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="rf-") as home:  # pytest's own directories are closed to others
        os.chown(home, owner.pw_uid, owner.pw_gid)
        transfer.store = Path(home) / "k.db"
        transfer.bring()
        transfer.write(transfer.directory / "out", "k1")
        made = list(Path(home).rglob("*"))
        assert made and {path.stat().st_uid for path in made} == {owner.pw_uid}
    assert (transfer.directory / "out").stat().st_uid == 0
