"""`ringfence keystore backup|verify|restore|drill` as an operator runs them, after a disk was lost."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from backups import BackupScene
from sandboxes import RINGFENCE

from ringfence_agent.keystore.backup.high_water import Mark, mark_file, put_mark
from ringfence_agent.kms.audit.offline import record_exports


class Shell:
    """Commands on one store."""

    def __init__(self, scene: BackupScene) -> None:
        self.scene = scene
        self.audit = scene.store.directory / "keys.db.audit.d"

    def run(self, *arguments: str, expect: int = 0, store: bool = True) -> Any:
        """The command's JSON; of its error when there is none. With `store` it is named."""
        command = [RINGFENCE, "keystore", *arguments, "--root-key", str(self.scene.store.root_key), "--json"]
        command += ["--keystore", self.scene.store.uri] if store else []
        environ = {**os.environ, "RINGFENCE_KMS_CONFIG": "/nonexistent"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environ)
        assert done.returncode == expect, done.stderr
        self.errors = done.stderr
        return json.loads(done.stdout) if done.stdout else json.loads(done.stderr.splitlines()[-1])["error"]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(BackupScene.make(tmp_path))


def test_a_store_is_backed_up_lost_rehearsed_and_restored(shell: Shell) -> None:
    scene = shell.scene
    assert shell.run("verify")["versions"] == 6
    made = shell.run("backup", "--to", str(scene.backups))
    assert (made["without_canary"], made["same_disk"], made["rows"]["key_version"]) == (0, True, 6)
    assert Path(made["file"]).parent == scene.backups
    assert "ever written over" in shell.run("backup", "--to", made["file"], expect=2)["message"]

    # A machine with nothing but the backup and the root key.
    verified = shell.run("verify", made["file"], store=False)
    assert (verified["keys"], verified["backup"]["store_id"]) == (3, made["store_id"])
    drilled = shell.run("drill", made["file"], store=False)
    assert [(key["name"], key["versions"]) for key in drilled["keys"] if key["passed"]] == [
        ("again", [0, 1]),
        ("gone", [0]),
        ("plain", [0]),
        ("rolled", [0, 1]),
    ]

    with closing(scene.store.open()) as store:
        store.roll_key("plain", None)
    assert "never writes over" in shell.run("restore", made["file"], expect=1)["message"]
    scene.store.path.unlink()
    restored = shell.run("restore", made["file"])
    assert (restored["was_there"], restored["undone"], restored["keys"]) == (False, 0, 3)
    assert shell.run("restore", made["file"])["was_there"]
    records = [json.loads(line) for path in shell.audit.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert [(each["op"], each["backup"], each["undone"]) for each in records] == [("RESTORE_KEYSTORE", made["file"], 0)]


def test_a_restore_that_would_undo_changes_says_which_and_needs_leave(shell: Shell) -> None:
    scene = shell.scene
    made = scene.back_up()
    shell.audit.mkdir(mode=0o700)
    put_mark(shell.audit, made.manifest.store_id, Mark(made.manifest.change_number + 2, 1))
    with closing(scene.store.open()) as store:
        record_exports(shell.audit, store.list_metadata(), Path("/elsewhere"))
    (log,) = shell.audit.glob("*.jsonl")
    line = json.loads(log.read_text().splitlines()[0])
    lost = {**line, "op": "ROLL_NEW_VERSION", "key": "rolled", "version": 2, "sequence": 99}
    log.write_text(log.read_text() + json.dumps(lost) + "\n" + json.dumps({**lost, "outcome": "begun"}) + "\n")
    scene.store.path.unlink()
    error = shell.run("restore", made.where, expect=1)
    assert "2 changes would be undone" in error["message"]
    assert "--allow-rollback" in error["hint"]
    assert "ROLL_NEW_VERSION rolled@2" in shell.errors
    assert shell.errors.count("undone: ") == 1
    assert not scene.store.path.exists()
    done = shell.run("restore", made.where, "--allow-rollback")
    assert (done["undone"], [each["key"] for each in done["lost"]]) == (2, ["rolled"])
    assert done["change_number"] == made.manifest.change_number + 3
    mark = json.loads(mark_file(shell.audit, made.manifest.store_id).read_text())
    assert mark["change_number"] == done["change_number"]


def test_a_drill_that_fails_is_a_finding_and_names_the_key(shell: Shell) -> None:
    scene = shell.scene
    changed = scene.resigned(
        Path(scene.back_up().where),
        lambda records: [each for each in records if each.kind != "canary" or each.fields[0] != "rolled"],
    )
    told = shell.run("drill", str(changed), expect=3)
    assert [key["name"] for key in told["keys"] if not key["passed"]] == ["rolled"]
