"""The agent's API over a real Unix socket, asked by the client that step jobs use."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_api import FINDING, ServedApi, serving_api

from ringfence_agent.api import documents
from ringfence_agent.client import AgentClient, AgentError, AgentUnavailableError


@pytest.fixture
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    settings = "allowed_users: [masker]\ndelegate_users: [hive]\noperators: {users: [hive]}\n"
    with serving_api(ServedApi(tmp_path_factory.mktemp("a"), settings)) as running:
        yield running


@pytest.fixture
def client(agent: ServedApi) -> AgentClient:
    return AgentClient(str(agent.path))


def test_zones_are_listed(client: AgentClient) -> None:
    masked, pii = client.zones()
    assert (pii.path, pii.key, pii.in_policy, pii.pinned) == ("/data/pii", "test-data-pii", True, True)
    assert masked.pinned is False


@pytest.mark.parametrize(
    ("path", "zone"),
    [
        ("/data/pii", "/data/pii"),
        ("/data/pii/a b/ü+%41", "/data/pii"),
        ("hdfs://nn:8020/data/pii/x", "/data/pii"),
        ("/.reserved/raw/data/pii/x", "/data/pii"),
        ("/data", None),
        ("/data/pii2/x", None),
        ("/", None),
    ],
)
def test_the_zone_of_a_path_is_found_by_component(client: AgentClient, path: str, zone: str | None) -> None:
    found = client.zone_of(path)
    assert (found.path if found else None) == zone


@pytest.mark.parametrize("path", ["data/pii", "/data/../x", "hdfs://other/x", "/a\u202eb", ""])
def test_an_unusable_path_is_a_problem_that_names_it(client: AgentClient, path: str) -> None:
    with pytest.raises(AgentError) as caught:
        client.zone_of(path)
    assert (caught.value.status, caught.value.type) == (400, "bad-path")


def test_a_move_is_answered_for_the_peer_as_the_kernel_names_it(agent: ServedApi, client: AgentClient) -> None:
    answer = client.check_move("/data/pii/f", "/data/masked/f")
    assert (answer.rename, answer.transfer, answer.same_zone, answer.rule) == (False, True, False, "zone_to_zone")
    assert answer.command
    assert client.check_move("/data/pii/f", "/data/pii/g").rename
    status, _ = agent.ask("POST", "/v1/moves/check", b'{"src": "/data/pii/f", "dst": "/data/masked/f", "user": "hdfs"}')
    assert status == 403


def test_no_header_and_no_field_changes_who_is_asking(agent: ServedApi) -> None:
    agent.accounts.name = "stranger"
    for headers in ({}, {"X-User": "masker", "Authorization": "Bearer x", "X-Forwarded-User": "root", "Cookie": "a=b"}):
        status, problem = agent.ask("GET", "/v1/zones?user.name=masker", **headers)
        assert (status, problem["type"]) == (403, "urn:ringfence:problem:access-denied")


def test_a_refused_user_cannot_fill_the_log(agent: ServedApi, caplog: pytest.LogCaptureFixture) -> None:
    agent.accounts.name = "stranger"
    for _ in range(20):
        agent.ask("GET", "/v1/zones")
    assert caplog.text.count("stranger may not use the agent") == 1


@pytest.mark.parametrize("target", ["/v1/health", "/v1/findings", "/v1/openapi.json", "/nowhere", "/v1/zones/of"])
def test_everything_is_behind_the_gate(agent: ServedApi, target: str) -> None:
    agent.accounts.name = None
    status, problem = agent.ask("GET", target)
    assert (status, problem["type"]) == (401, "urn:ringfence:problem:not-identified")


def test_a_delegate_may_ask_for_another_user(agent: ServedApi, client: AgentClient) -> None:
    agent.accounts.name = "hive"
    assert not client.check_move("/data/pii/f", "/data/masked/f", user="etl").transfer
    assert client.check_move("/data/pii/f", "/data/masked/f", user="masker").transfer


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"src": "/a"}',
        b'{"src": "/a", "dst": 7}',
        b'{"src": "/a", "dst": "/b", "as": "hdfs"}',
        b'{"src": "/a", "dst": "/b", "user": ""}',
        b'{"src": "/a", "dst": "' + b"x" * 2000 + b'/../b"}',
        b'{"src": "\xff", "dst": "/b"}',
        b'{"src": "/\\ud800", "dst": "/b"}',
        b"[" * 4000,
        b'{"src": ' * 500,
    ],
)
def test_a_bad_question_is_a_400_that_says_why(agent: ServedApi, body: bytes) -> None:
    status, problem = agent.ask("POST", "/v1/moves/check", body)
    assert status == 400, problem
    assert problem["detail"]


def test_an_oversized_question_is_refused_by_the_core_in_the_same_shape(agent: ServedApi) -> None:
    status, problem = agent.ask("POST", "/v1/moves/check", b'{"src": "' + b"x" * 80000 + b'"}')
    assert (status, problem["status"], problem["type"]) == (413, 413, "urn:ringfence:problem:too-large")


@pytest.mark.parametrize(("method", "target", "expected"), [("GET", "/v1/nothing", 404), ("DELETE", "/v1/zones", 405)])
def test_what_is_not_there_is_a_problem_too(agent: ServedApi, method: str, target: str, expected: int) -> None:
    status, problem = agent.ask(method, target)
    assert (status, problem["status"]) == (expected, expected)


def test_an_answer_from_too_long_ago_is_no_answer(agent: ServedApi, client: AgentClient) -> None:
    agent.clock.now += 61
    for ask in (client.zones, lambda: client.zone_of("/x"), lambda: client.check_move("/a", "/b")):
        with pytest.raises(AgentError) as caught:
            ask()
        assert (caught.value.status, caught.value.type) == (503, "namenode-unavailable")
        assert "enforce: 2 zones" in (caught.value.hint or "")


def test_before_the_first_look_nothing_is_answered(agent: ServedApi, client: AgentClient) -> None:
    agent.publish(state=None, observed_s=None, policy=None)
    with pytest.raises(AgentError, match="has not seen the cluster yet"):
        client.zones()
    assert client.health()["ready"] is False


def test_live_is_about_the_loop_and_ready_about_the_cluster(agent: ServedApi, client: AgentClient) -> None:
    assert (client.health()["live"], client.health()["ready"]) == (True, True)
    agent.publish(observed_s=agent.clock.now - 61)
    assert (client.health()["live"], client.health()["ready"]) == (True, False)
    agent.clock.now += 61
    assert agent.ask("GET", "/v1/health")[0] == 503
    assert client.health()["live"] is False


def test_findings_are_in_the_one_shape(agent: ServedApi, client: AgentClient) -> None:
    assert agent.ask("GET", "/v1/findings") == (200, {"findings": [FINDING.to_json()]})
    assert client.findings()[0].rule == "root_not_pinned"
    assert client.findings()[0].key is None


def test_answers_match_their_description(agent: ServedApi) -> None:
    question = b'{"src": "/data/pii/f", "dst": "/data/masked/f"}'
    for model, answer in (
        (documents.Health, agent.ask("GET", "/v1/health")),
        (documents.Zones, agent.ask("GET", "/v1/zones")),
        (documents.ZoneOf, agent.ask("GET", "/v1/zones/of?path=/data/pii/x")),
        (documents.MoveAnswer, agent.ask("POST", "/v1/moves/check", question)),
        (documents.Findings, agent.ask("GET", "/v1/findings")),
    ):
        assert answer[0] == 200
        model.model_validate_json(json.dumps(answer[1]))


def test_the_api_describes_itself(agent: ServedApi) -> None:
    status, description = agent.ask("GET", "/v1/openapi.json")
    assert status == 200
    assert sorted(description["paths"]) == [
        "/v1/findings",
        "/v1/health",
        "/v1/moves/check",
        "/v1/places",
        "/v1/policy",
        "/v1/policy/test",
        "/v1/policy/validate",
        "/v1/tokens",
        "/v1/tokens/{name}",
        "/v1/zones",
        "/v1/zones/of",
    ]


def test_a_bug_behind_the_gate_is_answered_blandly(
    agent: ServedApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ValueError("canary-8f2d")

    monkeypatch.setattr(agent.board, "fresh_state", broken)
    status, problem = agent.ask("GET", "/v1/zones")
    assert (status, problem["type"]) == (500, "urn:ringfence:problem:internal")
    assert "canary-8f2d" not in json.dumps(problem)
    assert "canary-8f2d" not in caplog.text
    assert "ValueError" in caplog.text


def test_an_agent_that_is_away_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(AgentUnavailableError, match="does not answer: No such file or directory"):
        AgentClient(str(tmp_path / "nobody.sock")).zones()


def test_a_server_that_speaks_no_json_is_not_believed(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("b") / "b.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(AgentError, match="not JSON"):
            AgentClient(str(path)).zones()
        thread.join(10)
