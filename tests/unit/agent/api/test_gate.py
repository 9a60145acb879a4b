"""The gate, through the served API: rates, bounds, repeats, web pages, and what every answer carries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated

import pytest
from agent_api import ServedApi, ask, serving_api
from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from ringfence_agent.api import repeats
from ringfence_agent.api.caller import Caller, Verb, require
from ringfence_agent.api.view import ClusterView

SETTINGS = """
allowed_users: [masker, eve]
operators: {users: [hadoop]}
rates: {requests: 20, changes: 2}
"""
_made: list[str] = []


def _routers(_: ClusterView) -> list[APIRouter]:
    routes = APIRouter()

    @routes.post("/v1/things")
    async def make(request: Request, caller: Annotated[Caller, Depends(require(Verb.TRANSFER))]) -> Response:
        _made.append(caller.user)
        headers = {"X-Key": str(request.state.idempotency_key), "Cache-Control": "private"}
        return JSONResponse({"made": len(_made)}, status_code=201, headers=headers)

    return [routes]


@pytest.fixture
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    _made.clear()
    with serving_api(ServedApi(tmp_path_factory.mktemp("g"), SETTINGS, routers=_routers)) as running:
        running.accounts.name = "hadoop"
        yield running


def test_a_right_that_is_missing_is_named(api: ServedApi) -> None:
    api.accounts.name = "masker"
    status, problem = api.ask("POST", "/v1/things", b"{}")
    assert (status, problem["type"]) == (403, "urn:ringfence:problem:access-denied")
    assert "transfer" in problem["detail"]
    assert _made == []


def test_a_caller_that_asks_too_often_waits_and_others_do_not(api: ServedApi) -> None:
    connection = api.unix()
    statuses = []
    for _ in range(60):
        connection.request("GET", "/v1/health")
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    assert statuses[:40] == [200] * 40
    assert statuses[-1] == 429
    assert int(answer.headers["Retry-After"]) >= 1
    connection.close()
    api.accounts.name = "eve"
    assert api.ask("GET", "/v1/health")[0] == 200


def test_changes_are_rarer_than_questions(api: ServedApi) -> None:
    statuses = [api.ask("POST", "/v1/things", b"{}")[0] for _ in range(6)]
    assert statuses == [201] * 4 + [429] * 2
    question = b'{"src": "/a", "dst": "/b"}'
    assert [api.ask("POST", "/v1/moves/check", question)[0] for _ in range(6)] == [200] * 6


def test_a_change_that_is_sent_again_is_made_once(api: ServedApi) -> None:
    first = ask(api.unix(), "POST", "/v1/things", b"{}", {"Idempotency-Key": "k-1"})
    again = ask(api.unix(), "POST", "/v1/things", b"{}", {"Idempotency-Key": "k-1"})
    assert (first[0], first[2]) == (again[0], again[2]) == (201, {"made": 1})
    assert first[1]["X-Key"] == "k-1"
    assert (first[1]["Idempotent-Replayed"], again[1]["Idempotent-Replayed"]) == (None, "true")
    assert len(_made) == 1
    status, _, problem = ask(api.unix(), "POST", "/v1/things", b"{} ", {"Idempotency-Key": "k-1"})
    assert (status, problem["type"]) == (422, "urn:ringfence:problem:key-reused")
    status, _, problem = ask(api.unix(), "POST", "/v1/things", b"{}", {"Idempotency-Key": "k 1"})
    assert status == 400
    assert len(_made) == 1


def test_questions_push_no_answers_out(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MAX_KEPT", 4)
    ask(api.unix(), "POST", "/v1/things", b"{}", {"Idempotency-Key": "k-1"})
    api.accounts.name = "eve"
    for number in range(8):
        question, key = b'{"src": "/a", "dst": "/b"}', {"Idempotency-Key": f"q-{number}"}
        assert ask(api.unix(), "POST", "/v1/moves/check", question, key)[0] == 200
    api.accounts.name = "hadoop"
    assert ask(api.unix(), "POST", "/v1/things", b"{}", {"Idempotency-Key": "k-1"})[2] == {"made": 1}


def test_a_change_that_ends_like_a_question_is_rare_as_well(api: ServedApi) -> None:
    # Fewer than a caller may ask at once, many more than it may change.
    assert {api.ask("DELETE", "/v1/tokens/check")[0] for _ in range(30)} == {403, 429}


def test_one_callers_key_is_not_anothers(api: ServedApi) -> None:
    ask(api.unix(), "POST", "/v1/things", b"{}", {"Idempotency-Key": "k-1"})
    api.accounts.name = "masker"
    assert ask(api.unix(), "POST", "/v1/things", b"{}", {"Idempotency-Key": "k-1"})[0] == 403


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded", "application/jsonx"])
def test_a_body_that_is_not_called_json_is_none(api: ServedApi, kind: str) -> None:
    status, _, problem = ask(api.unix(), "POST", "/v1/things", b"{}", {"Content-Type": kind})
    assert (status, problem["type"]) == (415, "urn:ringfence:problem:not-json")
    assert _made == []


def test_only_policy_documents_may_be_large(api: ServedApi) -> None:
    large = json.dumps({"document": "# " + "x" * 100_000}).encode()
    status, problem = api.ask("POST", "/v1/moves/check", large)
    assert (status, problem["type"]) == (413, "urn:ringfence:problem:too-large")
    assert api.ask("POST", "/v1/policy/validate", large)[0] in (200, 422)
    assert api.ask("POST", "/v1/policy/validate", b" " * (1024 * 1024 + 1))[0] == 413


def test_every_answer_says_how_it_may_be_kept_and_a_routes_own_word_wins(api: ServedApi) -> None:
    for target in ("/v1/health", "/nowhere"):
        _, headers, _ = ask(api.unix(), "GET", target)
        assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    _, headers, _ = ask(api.unix(), "POST", "/v1/things", b"{}")
    assert headers["Cache-Control"] == "private"
    api.accounts.name = None
    status, headers, _ = ask(api.unix(), "GET", "/v1/health")
    assert (status, headers["WWW-Authenticate"]) == (401, "PeerCredentials")
