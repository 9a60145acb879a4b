"""The real server with everything in Vault: no database and no root key file, its keys in KV and opened by Transit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kms_serving import KmsPlace, RunningKms, call, json_of, remote_exception_of
from protected_kms import create, decrypt, generate
from store_places import VAULT_KV, VaultKvPlace, VaultStores, storing_cluster


class VaultOnly:
    """A KMS whose kms.yaml names a Vault and nothing else that keeps keys."""

    def __init__(self, directory: Path, store: VaultKvPlace) -> None:
        self.place = KmsPlace.make(directory)
        self.store = store
        self.config = directory / "kms.yaml"
        self.write()

    def write(self, vault: str | None = None) -> None:
        self.config.write_text(
            f"keystore: {self.store.uri}\nprotector: [vault-transit]\n"
            f"admin: {{socket: {self.place.admin_socket}}}\naudit: {{directory: {self.place.audit_directory}}}\n"
            + (VaultStores(self.store.cluster).kms_yaml() if vault is None else vault)
        )

    @contextmanager
    def serving(self, *options: str, workers: int = 1) -> Iterator[RunningKms]:
        with self.place.serving(workers, "--config", str(self.config), *self.keystore, *options) as kms:
            yield kms

    @property
    def keystore(self) -> tuple[str, str]:
        return "--keystore", self.store.uri

    def run(self, *arguments: str, exit_code: int = 0) -> str:
        """`ringfence ...` beside the server; what it printed."""
        command = [str(Path(sys.executable).with_name("ringfence")), *arguments]
        options = ["--config", str(self.config), *self.keystore]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        assert done.returncode == exit_code, done.stderr
        return done.stdout + done.stderr


@pytest.fixture(params=VAULT_KV)
def only(request: pytest.FixtureRequest, tmp_path: Path) -> VaultOnly:
    directory = tmp_path / "kms"
    directory.mkdir()
    return VaultOnly(directory, VaultKvPlace(storing_cluster(request, request.param), tmp_path))


def test_keys_are_made_used_rolled_and_there_after_a_restart_on_every_worker(only: VaultOnly) -> None:
    with only.serving("--init", workers=2) as kms:
        one, other = kms.every_worker()
        assert create(one, "k").status == 201
        eek = generate(other, "k")
        first = json_of(decrypt(one, eek))
        assert call(other, "POST", "/kms/v1/key/k", {}).status == 200
        assert json_of(call(one, "GET", "/kms/v1/key/k/_metadata"))["versions"] == 2
        assert json_of(decrypt(other, eek)) == first
        assert json_of(call(one, "GET", "/kms/v1/keys/names")) == ["k"]
        assert create(other, "gone").status == 201
        assert call(one, "DELETE", "/kms/v1/key/gone").status == 200
    with only.serving() as kms:
        client = kms.one_worker()
        assert json_of(decrypt(client, eek)) == first
        assert generate(client, "k")[0] == "k@1"
        assert json_of(call(client, "GET", "/kms/v1/keys/names")) == ["k"]
        assert create(client, "gone").status == 201
        assert generate(client, "gone")[0] == "gone@1"
        assert call(client, "GET", "/health/ready", user=None).status == 200
        # What takes tables of its own is not there, and says so.
        admin = kms.connect_admin()
        lease = call(admin, "PUT", "/ringfence/v1/leases/agent", {"holder": "one", "ttl_s": 15}, user=None)
        assert remote_exception_of(lease)[::2] == (501, "a key store in Vault keeps no leases")
        assert call(admin, "GET", "/ringfence/v1/grants", user=None).status == 501
        admin.socket.close()
    names = {path.name for path in only.place.directory.iterdir()}
    assert names <= {"conf", "kms.yaml", only.place.audit_directory.name, only.place.admin_socket.name}


@pytest.mark.long
def test_the_commands_for_a_store_work_on_it_while_it_is_served(only: VaultOnly, tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    backups.mkdir(mode=0o700)
    with only.serving("--init") as kms:
        client = kms.one_worker()
        assert create(client, "k").status == 201
        slots = json.loads(only.run("keystore", "slots", "--json"))["slots"]
        assert [(slot["protector"], slot["versions"]) for slot in slots] == [("vault-transit", 1)]
        assert "1 key" in only.run("keystore", "verify")
        only.run("keystore", "backup", "--to", str(backups))
        (backup,) = backups.glob("*.rfbackup")
        assert "k" in only.run("keystore", "drill", str(backup))
        assert call(client, "DELETE", "/kms/v1/key/k").status == 200
        copy = tmp_path / "copy.db"
        only.run("keystore", "restore", str(backup), "--to", f"sqlite:///{copy}", "--allow-rollback")
        assert copy.exists()


def test_a_store_in_vault_without_the_block_that_says_which_does_not_start(only: VaultOnly) -> None:
    only.write(vault="")
    command = only.place.command("--config", str(only.config), "--workers", "1", *only.keystore)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "vault" in done.stderr
    assert "Traceback" not in done.stderr
