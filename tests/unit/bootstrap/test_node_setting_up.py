"""Which steps a node is changed by, by its mode and its kind, and what is refused."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ringfence_bootstrap.node.changes import Backups
from ringfence_bootstrap.node.configuration import parse_node_config
from ringfence_bootstrap.node.facts import NodeFacts, Provisioning
from ringfence_bootstrap.node.setting_up import SetUp
from ringfence_zones.errors import ConfigError, RefusedError

WHEELS = f"wheelhouse: s3://bucket/wheels\nwheelhouse_sha256: {'a' * 64}\n"
TLS = "kms: {tls: {cert: /etc/ringfence/kms.pem, key: /etc/ringfence/kms.key, ca_file: /etc/ringfence/ca.pem}}\n"
CLIENTS = "mode: clients-only\nclients: {uri: kms://https@kms1;kms2:9600/kms}\n"
OURS = "mode: ringfence-kms\n"
HARDENED = (
    "mode: hardened-stock-kms\nhardened: {policy: /etc/ringfence/zones.yaml, password_file: /mnt/r/password,"
    " tls: {cert: /etc/ringfence/kms.pem, key: /etc/ringfence/kms.key, ca_file: /etc/ringfence/ca.pem}}\n"
)
SERVER = ["account", "key-directory", "log-directory", "kms-unit"]
TRUST = ["trust-store", "ssl-client"]
SWITCH = ["namenode", "core-site", "restart"]


def set_up(text: str, tmp_path: Path, role: str = "primary", *, high_availability: bool = False) -> SetUp:
    facts = NodeFacts(role, "j-1", "i-1", "eu-west-1", None, high_availability, Provisioning.SUCCESSFUL)
    return SetUp(parse_node_config(WHEELS + text), facts, tmp_path, Backups(tmp_path / "kept"), lambda _text: None)


@pytest.mark.parametrize(
    ("text", "role", "names"),
    [
        (OURS, "primary", [*SERVER, "client", "takeover", "verify"]),
        (OURS, "core", ["client"]),
        (OURS + TLS, "primary", [*SERVER, "client", "takeover", "kms-tls", *TRUST, *SWITCH, "verify"]),
        (OURS + TLS, "task", ["client", *TRUST, "core-site"]),
        (CLIENTS, "primary", ["client", *SWITCH, "verify"]),
        (CLIENTS, "core", ["client", "core-site"]),
        (OURS + "files: [{source: /x, path: /etc/ringfence/x, nodes: primary}]\n", "core", ["client"]),
        (HARDENED, "primary", ["secrets", "client", "harden", "verify"]),
        (HARDENED, "core", ["client", *TRUST, "core-site"]),
        ("mode: existing-kms\n", "primary", ["client", "verify"]),
        ("mode: existing-kms\n", "core", ["client"]),
        (
            OURS + "kms: {settings: {protector: [aws-kms]}}\nfiles: [{source: /x, path: /etc/ringfence/x}]\n",
            "primary",
            [*SERVER, "kms-settings", "file-0", "client", "takeover", "verify"],
        ),
        (
            OURS + "kms: {settings: {protector: [vault-transit], vault: {addresses: [https://v], cluster: c}}}\n",
            "primary",
            [*SERVER, "kms-settings", "client", "vault-login", "takeover", "verify"],
        ),
        (
            OURS + "kms: {settings: {vault: {auth: {method: token_file}}}}\n",
            "primary",
            [*SERVER, "kms-settings", "client", "takeover", "verify"],
        ),
    ],
)
def test_steps_are_those_of_the_mode_and_the_kind_of_node(
    text: str, role: str, names: list[str], tmp_path: Path
) -> None:
    assert [step.name for step in set_up(text, tmp_path, role).steps()] == names


def test_three_primaries_are_refused_with_the_reason_and_both_ways_out(tmp_path: Path) -> None:
    for text in (OURS, HARDENED):
        with pytest.raises(RefusedError, match=r"three key stores") as refused:
            set_up(text, tmp_path, high_availability=True).check()
        assert "clients-only" in str(refused.value.hint) and "existing-kms" in str(refused.value.hint)
    for text in (CLIENTS, "mode: existing-kms\n"):
        set_up(text, tmp_path, high_availability=True).check()


def test_a_copy_of_the_keytab_comes_before_what_names_it(tmp_path: Path) -> None:
    prepared = replace(set_up(OURS, tmp_path), keytab=Path("/etc/kms.keytab"))
    names = [step.name for step in prepared.steps()]
    assert names == [*SERVER, "kms-keytab", "kms-settings", "client", "takeover", "verify"]


def test_kerberos_without_a_login_is_refused_where_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "core-site.xml").write_text(
        "<configuration><property><name>hadoop.security.authentication</name><value>kerberos</value></property>"
        "</configuration>"
    )
    with pytest.raises(ConfigError, match=r"uses Kerberos") as refused:
        set_up(OURS, tmp_path).check()
    assert "kerberos: {principal: hdfs/_HOST@REALM" in str(refused.value.hint)
    set_up(OURS + "kerberos: {principal: hdfs/_HOST@R, keytab: /etc/hdfs.keytab}\n", tmp_path).check()
    set_up(OURS, tmp_path, "core").check()


def test_who_proves_with_a_keytab_is_told_to_the_takeover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getfqdn", lambda: "ip-1")
    monkeypatch.setattr("ringfence_bootstrap.node.exchange_step.ringfence_command", lambda: "ringfence")
    called: list[list[str]] = []

    def run(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        called.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("ringfence_bootstrap.node.places.TAKEOVER_STATE", tmp_path / "takeover")
    text = OURS + "kms: {prove_with: [{principal: hive/_HOST@R, keytab: /etc/hive.keytab}]}\n"
    (takeover,) = [step for step in set_up(text, tmp_path).steps() if step.name == "takeover"]
    takeover.do()
    (command,) = called
    assert command[command.index("--prove-with") + 1] == "hive/ip-1@R=/etc/hive.keytab"
    assert "--prove-as" not in command and "--allow-unproven" not in command


def test_the_host_in_a_principal_is_this_nodes_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getfqdn", lambda: "IP-10-0-0-1.ec2.internal")
    text = "mode: existing-kms\nkerberos: {principal: hdfs/_HOST@R, keytab: /etc/hdfs.keytab}\n"
    content = yaml.safe_load(set_up(text, tmp_path).client_text())
    assert content["kerberos"]["principal"] == "hdfs/ip-10-0-0-1.ec2.internal@R"


def test_a_key_server_beside_jobs_says_what_it_does_not_protect_from(tmp_path: Path) -> None:
    beside, clear = set_up(OURS, tmp_path).warnings()
    assert "sudo" in beside and "plain HTTP" in clear
    assert len(set_up(OURS + TLS, tmp_path).warnings()) == 1
    assert set_up(OURS, tmp_path, "core").warnings() == set_up(CLIENTS, tmp_path).warnings() == []


@pytest.mark.parametrize(
    ("text", "role", "content"),
    [
        (OURS, "primary", {"kms_admin_socket": "/var/lib/ringfence/keys.db.sock"}),
        (OURS, "core", {}),
        (
            OURS + "kms: {keystore: 'postgresql://r@db/r', root_key_file: /etc/ringfence/root}\n",
            "primary",
            {"kms_admin_socket": "/var/lib/ringfence/kms.sock"},
        ),
        (
            CLIENTS.replace("kms}", "kms, ca_file: /etc/ringfence/ca.pem}"),
            "core",
            {"kms_ca_file": "/etc/ringfence/ca.pem"},
        ),
        (
            "mode: existing-kms\nkerberos: {principal: hdfs, keytab: /etc/hdfs.keytab}\n",
            "core",
            {"kerberos": {"principal": "hdfs", "keytab": "/etc/hdfs.keytab"}},
        ),
    ],
)
def test_client_yaml_says_how_this_nodes_commands_reach_the_kms(
    text: str, role: str, content: dict[str, object], tmp_path: Path
) -> None:
    assert (yaml.safe_load(set_up(text, tmp_path, role).client_text()) or {}) == content
