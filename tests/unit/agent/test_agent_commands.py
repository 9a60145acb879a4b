"""`ringfence agent token`, `grant` and `places`, against an API that answers."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_api import ServedApi, serving_api
from click.testing import CliRunner, Result

from ringfence_agent.api import grant_routes
from ringfence_agent.api.applications import BoundGrants
from ringfence_agent.api.wishes import WishBook
from ringfence_agent.cli.agent_grant import grant
from ringfence_agent.cli.agent_places import places
from ringfence_agent.cli.agent_token import token
from ringfence_agent.client import AgentClient
from ringfence_zones.errors import AccessDeniedError, AgentUnavailableError, InputError


class _Kms:
    def list_grants(self) -> list[object]:
        return []


@pytest.fixture
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    directory = tmp_path_factory.mktemp("c")
    book, bound = WishBook(directory / "wishes.json"), BoundGrants(directory / "bound.json")
    settings = "operators: {users: [etl]}\n"
    served = ServedApi(
        directory,
        settings,
        trusted=True,
        routers=lambda view: [grant_routes.router(book, bound, view, _Kms)],  # type: ignore[arg-type]
    )
    with serving_api(served) as running:
        yield running


def _run(api: ServedApi, command: object, *arguments: str | Path) -> Result:
    words = [*map(str, arguments), "--agent-socket", str(api.path)]
    return CliRunner().invoke(command, words, catch_exceptions=True)  # type: ignore[arg-type]


def test_a_token_goes_into_a_new_file_of_its_user_alone(api: ServedApi, tmp_path: Path) -> None:
    out = tmp_path / "agent.token"
    made = _run(api, token, "issue", "--user", "etl", "--for", "1h", "--path", "/data/pii", "--out", out)
    assert made.exit_code == 0, made.output
    secret = out.read_text().strip()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert secret.startswith("rfa-")
    assert secret not in made.output
    (kept,) = AgentClient(str(api.path)).tokens()
    assert (kept.user, kept.role, kept.paths) == ("etl", "viewer", ["/data/pii"])
    assert kept.expires_s - kept.issued_s == 3600
    listed = _run(api, token, "list", "--json")
    assert [each["name"] for each in json.loads(listed.output)["tokens"]] == [kept.name]
    assert secret not in listed.output
    assert _run(api, token, "revoke", kept.name).exit_code == 0
    assert "no token is good" in _run(api, token, "list").output


def test_no_token_is_made_that_could_not_be_kept(api: ServedApi, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    for out in (there, tmp_path / "no" / "where"):
        made = _run(api, token, "issue", "--user", "etl", "--out", out)
        assert isinstance(made.exception, InputError)
    assert there.read_text() == "mine"
    assert AgentClient(str(api.path)).tokens() == []


def test_a_refusal_leaves_no_file(api: ServedApi, tmp_path: Path) -> None:
    out = tmp_path / "agent.token"
    made = _run(api, token, "issue", "--user", "etl", "--for", "30s", "--out", out)
    assert isinstance(made.exception, InputError)
    longer = _run(api, token, "issue", "--user", "etl", "--for", "2d", "--out", out)
    assert longer.exit_code == 2
    assert "'--for': must be a day at most, not 2d" in longer.output
    assert not out.exists()
    assert _run(api, token, "issue", "--user", "etl", "--for", "2", "--out", out).exit_code == 2


def test_places_are_told_for_people_and_for_scripts(api: ServedApi) -> None:
    shown = _run(api, places, "/data/pii/out")
    assert "staging:  /data/pii/.staging-masker" in shown.output
    only = _run(api, places, "--only", "staging", "--job", "j1", "/data/pii/out")
    assert only.output == "/data/pii/.staging-masker-j1\n"
    assert json.loads(_run(api, places, "--json", "/data/pii/out").output)["zone"] == "/data/pii"
    assert isinstance(_run(api, places, "/data/../x").exception, InputError)


def test_a_grant_is_asked_for_and_waits(api: ServedApi) -> None:
    ask = ("request", "--from", "/data/pii", "--to", "/data/masked", "--for", "40m", "--purpose", "backfill")
    assert isinstance(_run(api, grant, *ask).exception, InputError)
    asked = _run(api, grant, *ask, "--token", "7")
    assert asked.exit_code == 0, asked.output
    listed = json.loads(_run(api, grant, "list", "--json").output)["grants"]
    assert [(each["state"], each["source"]) for each in listed] == [("requested", "/data/pii")]
    assert f"ringfence agent grant approve {listed[0]['id']}" in asked.output
    refused = _run(api, grant, "approve", listed[0]["id"])
    assert isinstance(refused.exception, AccessDeniedError)
    assert _run(api, grant, "end", listed[0]["id"]).exit_code == 0
    assert "there is no grant" in _run(api, grant, "list").output


def test_an_agent_that_is_away_is_said(tmp_path: Path) -> None:
    gone = CliRunner().invoke(places, ["/x", "--agent-socket", str(tmp_path / "none.sock")])
    assert isinstance(gone.exception, AgentUnavailableError)
