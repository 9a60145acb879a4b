"""A key server off the cluster: what it is set up with, what it does not protect from, and what guards its keys."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ringfence_bootstrap.node import key_server, lifecycle, places
from ringfence_bootstrap.node.changes import Backups
from ringfence_bootstrap.node.configuration import parse_node_config
from ringfence_bootstrap.node.key_server import KeyServerSetUp, key_server_facts
from ringfence_bootstrap.node.status import object_address
from ringfence_zones.errors import ConfigError

WHEELS = f"wheelhouse: s3://bucket/wheels\nwheelhouse_sha256: {'a' * 64}\nmode: key-server\n"
ALONE = "kms: {listen: 'localhost:9600', keystore: 'sqlite:////var/lib/ringfence/keys.db'}\n"
PAIR = (
    "kms: {listen: 'kms1:9600', keystore: 'postgresql://r@db/r', keystore_password_file: /etc/ringfence/db-password,"
    " root_key_file: /etc/ringfence/root-key, tls: {cert: /etc/ringfence/kms.pem, key: /etc/ringfence/kms.key},"
    " settings: {tombstone: 7d}}\nfiles: [{source: /x, path: /etc/ringfence/root-key, owner: ringfence}]\n"
)
FIRST_OF_PAIR = PAIR.replace("/etc/ringfence/root-key, tls", "/var/lib/ringfence/root-key, tls")
MADE = {"key-directory": {"made": True}}


@pytest.fixture(autouse=True)
def _on_this_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "KMS_STATE", tmp_path / "state")
    monkeypatch.setattr(places, "KMS_CONFIG", tmp_path / "kms.yaml")
    (tmp_path / "state").mkdir()


def set_up(text: str, tmp_path: Path, *, delete_keys: bool = False) -> KeyServerSetUp:
    text = text.replace("/var/lib/ringfence", str(tmp_path / "state"))
    backups = Backups(tmp_path / "kept")
    return KeyServerSetUp(
        parse_node_config(WHEELS + text), key_server_facts(), backups, lambda _text: None, delete_keys
    )


def test_steps_end_with_a_server_that_is_ready(tmp_path: Path) -> None:
    server = ["account", "key-directory", "log-directory", "kms-unit"]
    end = ["file-0", "kms-config", "trial", "start", "ready"]
    assert [step.name for step in set_up(PAIR, tmp_path).steps()] == [*server, *end]


def test_kms_yaml_says_what_bootstrap_yaml_says(tmp_path: Path) -> None:
    assert yaml.safe_load(set_up(PAIR, tmp_path).kms_yaml()) == {
        "listen": "kms1:9600",
        "keystore": "postgresql://r@db/r",
        "keystore_password_file": "/etc/ringfence/db-password",
        "root_key_file": "/etc/ringfence/root-key",
        "tls": {"cert": "/etc/ringfence/kms.pem", "key": "/etc/ringfence/kms.key"},
        "tombstone": "7d",
    }
    in_clear = set_up("kms: {listen: '0.0.0.0:9600', allow_plain_http: true}\n", tmp_path)
    assert yaml.safe_load(in_clear.kms_yaml())["allow_plain_http"] is True


def test_what_is_not_protected_is_said(tmp_path: Path) -> None:
    assert set_up(PAIR, tmp_path).warnings() == []
    assert set_up(ALONE, tmp_path).warnings() == [key_server.CLEAR_WIRE, key_server.ONE_SERVER]


@pytest.mark.parametrize(("text", "name"), [(ALONE, "keys.db"), (FIRST_OF_PAIR, "root-key")])
def test_the_only_copy_of_keys_is_not_deleted_in_passing(text: str, name: str, tmp_path: Path) -> None:
    set_up(text, tmp_path).check_uninstall(MADE)  # nothing is there yet
    (tmp_path / "state" / name).touch()
    with pytest.raises(ConfigError, match=rf"{name} would be deleted") as refused:
        set_up(text, tmp_path).check_uninstall(MADE)
    assert "--delete-keys" in str(refused.value.command)
    set_up(text, tmp_path, delete_keys=True).check_uninstall(MADE)
    set_up(text, tmp_path).check_uninstall({"key-directory": {"made": False}})  # a directory of before stays
    by_name = {step.name: step for step in set_up(text, tmp_path).steps()}
    assert "stays" in str(by_name["key-directory"].undo({"made": True}))
    assert "stays" in str(by_name["account"].undo({"made": True}))
    assert (tmp_path / "state" / name).exists()
    by_name = {step.name: step for step in set_up(text, tmp_path, delete_keys=True).steps()}
    assert by_name["key-directory"].undo({"made": True}) is None
    assert not (tmp_path / "state").exists()


def test_a_root_key_that_came_by_files_is_a_copy(tmp_path: Path) -> None:
    (tmp_path / "state/kms.audit.d").mkdir()
    set_up(PAIR, tmp_path).check_uninstall(MADE)
    by_name = {step.name: step for step in set_up(PAIR, tmp_path).steps()}
    assert by_name["key-directory"].undo({"made": True}) is None
    assert not (tmp_path / "state").exists()


def test_a_node_of_a_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_server, "is_emr_node", lambda: True)
    with pytest.raises(ConfigError, match="this is a node of an EMR cluster") as refused:
        lifecycle.install(parse_node_config(WHEELS + ALONE), WHEELS + ALONE, lambda _text: None)
    assert "ringfence-kms" in str(refused.value.hint)


def test_each_key_server_has_a_status_object_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "kms1")
    assert object_address("s3://logs/ringfence", key_server_facts()) == "s3://logs/ringfence/key-servers/kms1.json"
