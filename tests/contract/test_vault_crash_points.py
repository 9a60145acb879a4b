"""kill -9 at every crash point (`crash_points`) of `ringfence vault setup` and `ringfence vault login`.

A set-up that was killed is finished by the next. A login that was killed is made by the next until the wrapped secret
id is used up, which it is once; then the next says that it was us, never that somebody took it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from crash_points import END, distinct, kill_at, trace_points
from vault_clusters import WRAPPED, VaultCluster, server_of, vault_cluster
from vault_doubles import VaultDouble, running_vault
from vault_settings import write_private

from ringfence_agent import process_hygiene
from ringfence_agent.cli.vault import vault as vault_command
from ringfence_agent.vault.login import NEEDS_HUMAN
from ringfence_agent.vault.settings import WRAP_KEY
from ringfence_agent.vault.token_file import TokenFile
from ringfence_zones.errors import ProtectorRefusedError

HOW_MANY = [False, pytest.param(True, marks=pytest.mark.long)]


@pytest.fixture(scope="module")
def double() -> Iterator[VaultDouble]:
    with running_vault() as double:
        yield double


@pytest.fixture(autouse=True)
def this_process_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_hygiene, "forbid_core_dumps", lambda: None)


def configured(cluster: VaultCluster) -> VaultCluster:
    """With its kms.yaml and the administrator's token beside it."""
    directory = cluster.directory
    write_private(directory / "admin", cluster.root_token)
    block = {
        "addresses": cluster.addresses,
        "cluster": cluster.name,
        "kv_mount": cluster.kv_mount,
        "token_file": str(directory / "vault-token"),
        "auth": {
            "mount": cluster.approle_mount,
            "role_id_file": str(directory / "vault-role-id"),
            "wrapped_secret_id_file": str(directory / WRAPPED),
        },
    }
    (directory / "kms.yaml").write_text(json.dumps({"keystore": f"vault://ringfence/{cluster.name}", "vault": block}))
    return cluster


def command(cluster: VaultCluster, *words: str) -> list[str]:
    options = ["--config", str(cluster.directory / "kms.yaml"), "--json"]
    if words[0] == "setup":
        options += ["--token-file", str(cluster.directory / "admin")]
    return [*words, *options]


def told(cluster: VaultCluster, *words: str) -> Any:
    result = CliRunner().invoke(vault_command, command(cluster, *words))
    if result.exception is not None:
        raise result.exception
    return json.loads(result.output)


def set_up(cluster: VaultCluster) -> None:
    vault_command.main(command(cluster, "setup", "--yes", "--issue", str(cluster.directory)), standalone_mode=False)


def log_in(cluster: VaultCluster) -> None:
    vault_command.main(command(cluster, "login"), standalone_mode=False)


def a_cluster(double: VaultDouble, directory: Path) -> Any:
    directory.mkdir(mode=0o700)
    return vault_cluster(server_of(double), directory)


@pytest.mark.parametrize("every", HOW_MANY)
def test_a_set_up(double: VaultDouble, tmp_path: Path, every: bool) -> None:
    with a_cluster(double, tmp_path / "rehearsal") as cluster:
        points = trace_points(set_up, configured(cluster))
    assert any(label.startswith("answer") and label.endswith(f"keys/{WRAP_KEY}") for label in points)
    assert any(label.startswith("os.rename") for label in points)
    assert points[-1] == END
    due = set()
    for number in range(len(points)) if every else distinct(points):
        with a_cluster(double, tmp_path / str(number)) as cluster:
            configured(cluster)
            kill_at(points, number, set_up, cluster)
            planned = told(cluster, "setup", "--dry-run")
            due.add(sum(step["action"] is not None for step in planned["steps"]))
            done = told(cluster, "setup", "--yes", "--issue", str(cluster.directory))
            assert done["issued"] is not None, points[number]
            again = told(cluster, "setup", "--dry-run")
            assert [step for step in again["steps"] if step["action"] is not None] == [], points[number]
            assert told(cluster, "login")["ttl_s"] == 3600, points[number]
            assert told(cluster, "status")["key"] == {"version": 1, "mount": f"transit-{cluster.name}"}
            assert [path.name for path in cluster.directory.glob(".*")] == [], points[number]
    assert {0, len(again["steps"])} <= due
    assert len(due) > 3


@pytest.mark.parametrize("every", HOW_MANY)
def test_a_login(double: VaultDouble, tmp_path: Path, every: bool) -> None:
    with a_cluster(double, tmp_path / "cluster") as cluster:
        configured(cluster)
        prepared = cluster.set_up()
        cluster.issue(prepared)
        points = trace_points(log_in, cluster)
        unwrapped = next(number for number, label in enumerate(points) if label == "answer /v1/sys/wrapping/unwrap")
        assert 0 < unwrapped < len(points) - 4
        for number in range(len(points)) if every else distinct(points):
            for left in cluster.directory.glob("vault-token*"):
                left.unlink()
            cluster.issue(prepared)
            kill_at(points, number, log_in, cluster)
            check_token(cluster, is_there=has_token(points, number))
            if number < unwrapped:
                assert told(cluster, "login")["ttl_s"] == 3600, points[number]
            else:
                with pytest.raises(ProtectorRefusedError, match="was used up by an earlier login") as caught:
                    told(cluster, "login")
                assert caught.value.reason == NEEDS_HUMAN
                check_token(cluster, is_there=has_token(points, number))
                cluster.issue(prepared)
                told(cluster, "login")
            check_token(cluster, is_there=True)
            assert [path.name for path in cluster.directory.glob(".*")] == [], points[number]


def has_token(points: list[str], number: int) -> bool:
    return any(label == "os.rename /.vault-token.new" for label in points[:number])


def check_token(cluster: VaultCluster, *, is_there: bool) -> None:
    """A whole one, which Vault takes, or none."""
    path = cluster.directory / "vault-token"
    assert path.exists() == is_there
    if is_there:
        token = TokenFile(path).current().reveal().decode()
        assert cluster.call("GET", "auth/token/lookup-self", token=token).status == 200
