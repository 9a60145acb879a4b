"""What `packaging/scripts/demo --vault` makes in a Vault, that it takes all of it away, and where the token goes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sandboxes import RINGFENCE
from vault_clusters import SERVERS, VaultServer, vault_server

SCRIPTS = Path(__file__).parents[2] / "packaging/scripts"
LISTS = ("sys/mounts", "sys/auth", "sys/policies/acl?list=true")


@pytest.fixture(scope="module")
def demo() -> Iterator[ModuleType]:
    """Its module, which lies beside the script and not in a package."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield importlib.import_module("demo_vault")
    finally:
        sys.path.remove(str(SCRIPTS))
        for name in ("demo_vault", "transcript"):
            sys.modules.pop(name, None)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[VaultServer]:
    with vault_server(request.param) as server:
        yield server


def found_in(given: Any) -> list[Any]:
    """Every mount, login method and policy of the server."""
    answers = [given._find(path) for path in LISTS]
    return [sorted(answer.get("keys", answer)) for answer in answers]


def test_a_cluster_is_set_up_plan_first_and_nothing_of_it_is_left(
    demo: ModuleType, server: VaultServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = demo.GivenVault(server.addresses[0], server.root_token, None, tmp_path, RINGFENCE)
    before = found_in(given)
    given.prepare()
    made = [sorted(set(now) - set(then)) for now, then in zip(found_in(given), before, strict=True)]
    assert made == [
        [f"transit-{given.cluster}/"],
        [f"approle-{given.cluster}/"],
        [f"ringfence-{role}-{given.cluster}" for role in ("destroyer", "generator", "keyadmin", "service")],
    ]
    assert given.zone_keys() == []
    files = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "vault").iterdir()}
    assert "administrator" not in files
    assert files["vault-wrapped-secret-id"] == 0o600
    given.take_away()
    assert found_in(given) == before
    assert list(tmp_path.iterdir()) == []
    told = capfd.readouterr()
    assert "nothing was changed" in told.out
    assert server.root_token not in told.out + told.err


def test_the_token_comes_from_a_file_or_the_environment_which_then_has_it_no_more(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(demo.TOKEN_VARIABLE, "of-the-environment")
    assert demo.take_token(None) == "of-the-environment"
    assert demo.TOKEN_VARIABLE not in os.environ
    monkeypatch.setenv(demo.TOKEN_VARIABLE, "of-the-environment")
    (tmp_path / "token").write_text("of-a-file\n")
    assert demo.take_token(tmp_path / "token") == "of-a-file"
    assert demo.TOKEN_VARIABLE not in os.environ
    with pytest.raises(Exception, match="--vault-token-file FILE or in VAULT_TOKEN"):
        demo.take_token(None)
