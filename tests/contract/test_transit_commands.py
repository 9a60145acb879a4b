"""What commands tell of keys that Vault holds, and what they cannot do with them; as an operator runs them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sandboxes import RINGFENCE
from transit_custody import CustodyKms, create, dek, generate, roll
from vault_clusters import SERVERS, VaultCluster, vault_cluster, vault_server

from ringfence_agent.keystore.held import is_zone_key_name, new_transit_name
from ringfence_bootstrap.takeover.exchange import Places
from ringfence_bootstrap.takeover.services import Commands


@dataclass
class Scene:
    """A KMS that served one key of each custody, and stopped; on a Vault cluster of its own."""

    kms: CustodyKms
    cluster: VaultCluster
    transit_key: str = ""

    @classmethod
    def make(cls, directory: Path, cluster: VaultCluster) -> Scene:
        scene = cls(CustodyKms.make(directory, cluster), cluster)
        with scene.kms.serving() as running:
            client = running.one_worker()
            assert create(client, "held").status == create(client, "plain", "envelope").status == 201
            assert roll(client, "held").status == 200
        (scene.transit_key,) = scene.zone_keys()
        return scene

    def zone_keys(self) -> list[str]:
        return [name for name in self.cluster.administrator().transit.list_names() if is_zone_key_name(name)]

    def run(self, *arguments: str, expect: int = 0, store: bool = True) -> Any:
        """The command's JSON, or its error's."""
        command = [RINGFENCE, *arguments, "--config", str(self.kms.config), "--json"]
        command += ["--keystore", f"sqlite:///{self.kms.place.store}"] if store else []
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == expect, (done.stdout, done.stderr)
        return json.loads(done.stdout) if done.stdout else json.loads(done.stderr.splitlines()[-1])["error"]


@pytest.fixture(scope="module", params=SERVERS)
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Shared; the last test of the module is the one that loses something."""
    directory = tmp_path_factory.mktemp("scene")
    (directory / "kms").mkdir()
    with vault_server(request.param) as server, vault_cluster(server, directory) as cluster:
        cluster.set_up_and_log_in()
        yield Scene.make(directory / "kms", cluster)


def test_backup_verify_drill_and_restore_say_what_is_vaults(scene: Scene) -> None:
    verified = scene.run("keystore", "verify")
    assert (verified["versions"], verified["held"]) == (3, {"versions": 2, "checked": True, "problems": []})
    backups = scene.kms.place.directory / "backups"
    backups.mkdir(mode=0o700)
    made = scene.run("keystore", "backup", "--to", str(backups))
    assert made["without_canary"] == 0
    assert scene.run("keystore", "verify", made["file"])["held"]["versions"] == 2
    drilled = {each["name"]: each for each in scene.run("keystore", "drill", made["file"])["keys"]}
    assert (drilled["plain"]["held"], drilled["held"]["held"]) == ([], [0, 1])
    assert all(each["passed"] for each in drilled.values())

    with scene.kms.serving() as running:
        (eek,) = generate(running.one_worker(), "held")
        secret = dek(running.one_worker(), eek)
    scene.kms.place.store.unlink()
    assert scene.run("keystore", "restore", made["file"])["keys"] == 2
    with scene.kms.serving() as running:
        assert dek(running.one_worker(), eek) == secret
        assert roll(running.one_worker(), "held").status == 200


def test_slots_count_what_vault_holds_apart(scene: Scene) -> None:
    versions = scene.run("keystore", "verify")["held"]["versions"]
    told = scene.run("keystore", "slots")
    assert versions >= 2
    assert ([slot["versions"] for slot in told["slots"]], told["held"]) == ([1], versions)
    command = [RINGFENCE, "keystore", "slots", "--config", str(scene.kms.config)]
    command += ["--keystore", f"sqlite:///{scene.kms.place.store}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert shown.splitlines()[-1] == f"{versions} versions more: held by Vault (custody transit), in no slot"


def test_without_vault_verify_says_that_it_did_not_ask(scene: Scene) -> None:
    config = json.loads(scene.kms.config.read_text())
    scene.kms.config.write_text(json.dumps({**config, "vault": None}))
    held = scene.run("keystore", "verify")["held"]
    scene.kms.config.write_text(json.dumps(config))
    assert (held["versions"] >= 2, held["checked"], held["problems"]) == (True, False, [])


def test_what_vault_holds_is_not_exported(scene: Scene, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("password\n")
    password.chmod(0o600)
    target = ["--to", f"jceks://file@{tmp_path}/out.jceks", "--password-file", str(password)]
    for names in (["held"], []):
        error = scene.run("key", "export", *target, *names, expect=2)
        assert "key held is held by Vault" in error["message"] and "cannot be" in error["message"]
    assert not (tmp_path / "out.jceks").exists()
    exported = scene.run("key", "export", *target, "--without-held")
    assert ([key["name"] for key in exported["keys"]], exported["left_out"]) == (["plain"], ["held"])


@pytest.mark.parametrize("yes", [(), ("--yes",)], ids=["plan", "yes"])
def test_a_return_to_a_stock_kms_is_refused_before_anything_is_changed(
    scene: Scene, tmp_path: Path, yes: tuple[str, ...]
) -> None:
    state, touched = tmp_path / "state", tmp_path / "touched"
    state.mkdir(mode=0o700)
    with scene.kms.serving() as running:
        uri = f"kms://http@localhost:{running.port}/kms"
        service = Commands(f"touch {touched}", f"touch {touched}")
        places = Places(
            uri=uri,
            host="localhost",
            port=running.port,
            plain_http=True,
            kms_conf=scene.kms.place.conf,
            stock_keystore=tmp_path / "kms.keystore",
            password_file=None,
            keystore=f"sqlite:///{scene.kms.place.store}",
            root_key=None,
            store_password=None,
            config=scene.kms.config,
            state=state,
            stock=service,
            ours=service,
        )
        steps = [{"name": "configure", "undo": {"previous": None}}]
        journal = {"schema": 1, "state": "done", "details": places.to_json(), "steps": steps}
        (state / "takeover.json").write_text(json.dumps(journal))
        before = scene.kms.config.read_text()
        command = [RINGFENCE, "kms", "return", "--state-dir", str(state), "--no-files", "--json", "--as", "hdfs", *yes]
        command += ["--hadoop-conf", str(scene.kms.place.conf)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        error = json.loads(done.stderr.splitlines()[-1])["error"]
        assert done.returncode == 1
        assert error["message"].startswith("key held is held by Vault (custody transit)")
        assert "nothing was changed" in error["message"] and "copy the files" in error["hint"]
        assert (touched.exists(), (state / "return.json").exists()) == (False, False)
        assert json.loads((state / "takeover.json").read_text())["state"] == "done"
        assert scene.kms.config.read_text() == before
        assert generate(running.one_worker(), "held")


def test_what_vault_holds_is_not_taken_over_from_a_running_server(scene: Scene, tmp_path: Path) -> None:
    with scene.kms.serving() as running:
        source = f"kms://http@localhost:{running.port}/kms"
        command = [RINGFENCE, "key", "import", "--from", source, "--as", "hdfs", "--json"]
        command += ["--keystore", f"sqlite:///{tmp_path}/k.db", "--init", "--hadoop-conf", str(tmp_path / "none")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "no material of key held: Vault holds it" in json.loads(done.stderr.splitlines()[-1])["error"]["message"]


def test_verify_and_doctor_find_what_vault_has_lost(scene: Scene) -> None:
    transit, cluster = scene.cluster.administrator().transit, scene.cluster
    told = doctor(scene)
    assert told == {}
    names = [f"held@{number}" for number in range(transit.get(scene.transit_key).latest_version)]
    transit.configure(scene.transit_key, min_decryption_version=2)
    (problem,) = scene.run("keystore", "verify", expect=3)["held"]["problems"]
    assert (problem["version"], problem["transit_key"]) == ("held@0", scene.transit_key)
    assert "nothing older than version 2" in problem["problem"]
    transit.create(new_transit_name())
    transit.configure(scene.transit_key, deletion_allowed=True)
    transit.delete(scene.transit_key)
    problems = scene.run("keystore", "verify", expect=3)["held"]["problems"]
    assert [each["version"] for each in problems] == names
    found = doctor(scene)
    assert sorted(found) == ["error", "info"]
    assert "held@0 is held here in version 1: Vault does not have it any more" in found["error"]
    assert "Vault has a key for zones that no record of the key store names" in found["info"]
    cluster.done("POST", f"{cluster.settings().transit_mount}/keys/{scene.transit_key}", {"derived": True})
    problems = scene.run("keystore", "verify", expect=3)["held"]["problems"]
    lacking = [(each["version"], "up to version 1 alone" in each["problem"]) for each in problems]
    assert lacking == [(name, True) for name in names[1:]]
    with scene.kms.serving() as running:
        assert roll(running.one_worker(), "held").status == 500, "its number was another key's before"
    assert transit.get(scene.transit_key).latest_version == 1, "nothing was rotated"


def doctor(scene: Scene) -> dict[str, str]:
    """The findings of the check that is about held keys: severity to message."""
    config = json.loads(scene.kms.config.read_text())
    config["keystore"] = f"sqlite:///{scene.kms.place.store}"
    scene.kms.config.write_text(json.dumps(config))
    done = subprocess.run(
        [RINGFENCE, "doctor", "vault", "--config", str(scene.kms.config), "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    (held,) = [each for each in json.loads(done.stdout)["checks"] if each["name"] == "held"]
    assert held["result"] != "not_checked", held
    messages = [each for each in json.loads(done.stdout)["findings"] if "held here" in each["message"]]
    messages += [each for each in json.loads(done.stdout)["findings"] if "no record" in each["message"]]
    return {each["severity"]: each["message"] for each in reversed(messages)}
