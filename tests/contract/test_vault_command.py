"""`ringfence vault` and `ringfence doctor vault` as typed, against the double."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from vault_clusters import VaultCluster, server_of, vault_cluster
from vault_doubles import VaultDouble, running_vault
from vault_settings import write_private

from ringfence_agent import process_hygiene
from ringfence_agent.cli.doctor import doctor
from ringfence_agent.cli.vault import vault as vault_command
from ringfence_agent.vault.settings import WRAP_KEY
from ringfence_zones.errors import ConfigError, InputError, ProtectorRefusedError, RingfenceError


@pytest.fixture(scope="module")
def double() -> Iterator[VaultDouble]:
    with running_vault() as double:
        yield double


@pytest.fixture
def cluster(double: VaultDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VaultCluster]:
    # Commands run in this process, which goes on; that they leave no core is seen by test_protector_canary.py.
    monkeypatch.setattr(process_hygiene, "forbid_core_dumps", lambda: None)
    with vault_cluster(server_of(double), tmp_path) as cluster:
        write_private(tmp_path / "admin", double.root_token)
        (tmp_path / "kms.yaml").write_text(
            f"""\
keystore: vault://ringfence/{cluster.name}
vault:
  addresses: [{double.address}]
  cluster: {cluster.name}
  kv_mount: {cluster.kv_mount}
  token_file: {tmp_path}/vault-token
  auth:
    mount: {cluster.approle_mount}
    role_id_file: {tmp_path}/vault-role-id
    wrapped_secret_id_file: {tmp_path}/vault-wrapped-secret-id
"""
        )
        yield cluster


def run(cluster: VaultCluster, *words: str, typed: str = "") -> Result:
    """As typed, with this cluster's kms.yaml and, where it is asked for, the administrator's token."""
    command, *rest = words
    options = ["--config", str(cluster.directory / "kms.yaml")]
    if command == "setup":
        options += ["--token-file", str(cluster.directory / "admin")]
    return CliRunner().invoke(vault_command, [command, *options, *rest], input=typed)


def done(cluster: VaultCluster, *words: str, typed: str = "") -> str:
    result = run(cluster, *words, typed=typed)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def document(cluster: VaultCluster, *words: str) -> Any:
    return json.loads(done(cluster, *words, "--json"))


def error_of(result: Result) -> RingfenceError:
    assert isinstance(result.exception, RingfenceError), (result.exit_code, result.output, result.exception)
    return result.exception


def test_a_first_day_as_typed(cluster: VaultCluster, double: VaultDouble) -> None:
    directory = cluster.directory
    planned = done(cluster, "setup", "--dry-run")
    assert f"do  Transit key transit-{cluster.name}/keys/{WRAP_KEY}: missing -> make it" in planned
    assert "nothing was changed" in planned
    assert f"transit-{cluster.name}/" not in cluster.done("GET", "sys/mounts").data
    asked = done(cluster, "setup", typed="n\n")
    assert "do this?" in asked
    assert "nothing was changed" in asked
    made = done(cluster, "setup", "--issue", str(directory), typed="y\n")
    assert "opens once, within 600 s" in made
    assert (directory / "vault-wrapped-secret-id").stat().st_mode & 0o777 == 0o600
    again = done(cluster, "setup", "--dry-run")
    assert "  do  " not in again
    logged_in = done(cluster, "login")
    assert "logged in for 3600 s" in logged_in
    status = done(cluster, "status")
    assert "active" in status
    assert f"key {WRAP_KEY}: version 1" in status
    checked = CliRunner().invoke(
        doctor, ["vault", "--config", str(directory / "kms.yaml"), "--token-file", str(directory / "admin")]
    )
    assert "trial" in checked.output
    assert "Transit does what the key server relies on" in checked.output
    secrets = [double.root_token, (directory / "vault-token").read_text().strip()]
    secrets.append((directory / "vault-wrapped-secret-id").read_text().strip())
    for output in (planned, asked, made, again, logged_in, status, checked.output):
        assert not [secret for secret in secrets if secret in output]


def test_a_second_login_with_what_was_used_up_says_what_to_do(cluster: VaultCluster) -> None:
    done(cluster, "setup", "--yes", "--issue", str(cluster.directory))
    done(cluster, "login")
    error = error_of(run(cluster, "login"))
    assert isinstance(error, ProtectorRefusedError)
    assert "was used up by an earlier login" in error.message
    assert "ringfence vault setup --token-file FILE --issue" in (error.hint or "")


def test_as_json_nobody_is_asked(cluster: VaultCluster) -> None:
    assert isinstance(error_of(run(cluster, "setup", "--json")), InputError)
    planned = document(cluster, "setup", "--dry-run")
    assert planned["applied"] is False
    assert all(step["action"] for step in planned["steps"])
    applied = document(cluster, "setup", "--yes", "--issue", str(cluster.directory))
    assert applied["applied"] is True
    assert applied["issued"] == {"directory": str(cluster.directory), "ttl_s": 600}
    again = document(cluster, "setup", "--yes")
    assert (again["applied"], again["issued"]) == (False, None)
    assert all(step["action"] is None for step in again["steps"])
    got = document(cluster, "login")
    assert got["ttl_s"] == 3600
    assert "token" not in got
    status = document(cluster, "status")
    assert [node["role"] for node in status["nodes"]] == ["active"]
    assert status["key"] == {"version": 1, "mount": f"transit-{cluster.name}"}
    assert status["problem"] is None


def test_policies_are_printed_without_a_server(cluster: VaultCluster, double: VaultDouble) -> None:
    double.forget_requests()
    every = done(cluster, "policy")
    for role in ("service", "generator", "keyadmin", "destroyer"):
        assert f"# ringfence-{role}-{cluster.name}" in every
    one = done(cluster, "policy", "--role", "generator")
    assert "/encrypt/+" in one
    assert "/decrypt/" not in one
    assert set(document(cluster, "policy")) == {
        f"ringfence-{role}-{cluster.name}" for role in ("service", "generator", "keyadmin", "destroyer")
    }
    assert double.requests() == []


def test_what_is_printed_is_what_setup_writes(cluster: VaultCluster) -> None:
    done(cluster, "setup", "--yes")
    for name, hcl in document(cluster, "policy").items():
        assert cluster.done("GET", f"sys/policies/acl/{name}").data["policy"] == hcl


def test_status_says_what_is_wrong_and_exits_1(cluster: VaultCluster, double: VaultDouble) -> None:
    before = run(cluster, "status")
    assert before.exit_code == 1
    assert "problem: nobody is logged in" in before.output
    done(cluster, "setup", "--yes", "--issue", str(cluster.directory))
    done(cluster, "login")
    double.seal()
    try:
        sealed = run(cluster, "status")
    finally:
        double.unseal()
    assert sealed.exit_code == 1
    assert "sealed" in sealed.output
    cluster.call("POST", "auth/token/revoke-self", token=(cluster.directory / "vault-token").read_text().strip())
    revoked = run(cluster, "status")
    assert "does not take the key server's token" in revoked.output


def test_doctor_exits_3_when_it_finds_something(cluster: VaultCluster) -> None:
    found = CliRunner().invoke(doctor, ["vault", "--config", str(cluster.directory / "kms.yaml"), "--json"])
    assert found.exit_code == 3
    names = {check["name"]: check["result"] for check in json.loads(found.output)["checks"]}
    assert (names["nodes"], names["token"], names["trial"]) == ("ok", "found", "not_checked")


def test_an_administrator_s_token_that_others_can_read_is_not_used(cluster: VaultCluster) -> None:
    (cluster.directory / "admin").chmod(0o644)
    error = error_of(run(cluster, "setup", "--dry-run"))
    assert isinstance(error, ConfigError)
    assert error.command == f"chmod 600 {cluster.directory / 'admin'}"


def test_a_bound_that_is_no_network_and_an_issue_without_approle(cluster: VaultCluster) -> None:
    assert "10.0.0.1/8" in error_of(run(cluster, "setup", "--bound-cidr", "10.0.0.1/8", "--dry-run")).message
    path = cluster.directory / "kms.yaml"
    path.write_text(path.read_text().partition("  auth:")[0] + "  auth: {method: token_file}\n")
    planned = done(cluster, "setup", "--dry-run")
    assert "the login (token_file) is yours to set up" in planned
    assert f"the policies ringfence-keyadmin-{cluster.name} and ringfence-service-{cluster.name}" in planned
    assert "AppRole" not in planned
    assert (
        "kms.yaml names no file for one" in error_of(run(cluster, "setup", "--issue", str(cluster.directory))).message
    )


def test_nobody_logs_in_for_another_user(cluster: VaultCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    done(cluster, "setup", "--yes", "--issue", str(cluster.directory))
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: 12345)
        error = error_of(run(cluster, "login"))
    assert f"belongs to uid {os.geteuid()}, and this is uid 12345" in error.message
    assert not (cluster.directory / "vault-token").exists()
    assert "logged in" in done(cluster, "login"), "the wrapped secret id was not opened"
