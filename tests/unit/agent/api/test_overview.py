"""What the page is told of the cluster, and what is not told twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_page import ServedAgent, state_with
from fastapi import APIRouter
from starlette.responses import Response

from ringfence_agent.api.overview import Overview
from ringfence_agent.api.page import CONTENT_SECURITY_POLICY
from ringfence_agent.api.refused_moves import RefusedMoves
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.policy import parse_policy

POLICY = parse_policy(
    """
version: 1
cluster: test
zones: [{path: /data/pii, owner: etl, readers: [masker]}, {path: /data/masked, writers: [masker]}]
flows: [{from: /data/pii, to: /data/masked, who: [masker]}]
outside: {/exports: {from: [/data/masked]}}
kms: {namenode_users: [hdfs], admins: [hdfs]}
""",
    "zones.yaml",
)
FINDING = Finding(severity=Severity.WARN, rule=Rule.ROOT_NOT_PINNED, path="/data/pii", message="m", hint="h")


@pytest.fixture
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedAgent]:
    served = ServedAgent(Path(tmp_path_factory.mktemp("a")))
    with served.serving():
        yield served


def test_one_document_holds_what_one_look_showed(agent: ServedAgent) -> None:
    agent.publish(state_with("/data/pii", "/x", pinned=("/x",)), POLICY, findings=(FINDING,))
    status, headers, body = agent.ask("GET", "/v1/overview")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    shown = json.loads(body)
    Overview.model_validate_json(body)
    assert shown["zones"][0] == {
        "path": "/data/pii",
        "key": "key-0",
        "versions": 3,
        "length_bits": 256,
        "created_ms": 0,
        "custody": "envelope",
        "in_policy": True,
        "pinned": False,
    }
    assert (shown["zones"][1]["in_policy"], shown["zones"][1]["pinned"]) == (False, True)
    assert shown["flows"] == {
        "mode": "shadow",
        "edges": [{"from": "/data/pii", "to": "/data/masked", "who": ["masker"]}],
        "outside": [{"from": "/data/masked", "to": "/exports", "who": []}],
    }
    assert shown["findings"] == [FINDING.to_json()]
    assert (shown["cluster"], shown["sections"]) == ("test", [])


def test_before_the_first_look_nothing_is_made_up(agent: ServedAgent) -> None:
    shown = json.loads(agent.ask("GET", "/v1/overview")[2])
    assert shown == {"cluster": None, "kms": None, "zones": [], "flows": None, "findings": [], "sections": []}


def test_a_look_that_showed_the_same_is_not_sent_again(agent: ServedAgent) -> None:
    agent.publish(state_with("/a"))
    _, headers, _ = agent.ask("GET", "/v1/overview")
    known = {"If-None-Match": headers["ETag"]}
    agent.publish(state_with("/a"))
    assert agent.ask("GET", "/v1/overview", **known)[::2] == (304, b"")
    agent.publish(state_with("/b"))
    assert agent.ask("GET", "/v1/overview", **known)[0] == 200


def test_half_of_a_pair_in_a_name_is_no_failure(agent: ServedAgent) -> None:
    agent.publish(state_with("/a\ud800b"))
    status, _, body = agent.ask("GET", "/v1/overview")
    assert (status, json.loads(body)["zones"][0]["path"]) == (200, "/a\ud800b")


def test_transfers_are_a_section_exactly_when_the_agent_has_them(tmp_path_factory: pytest.TempPathFactory) -> None:
    routes = APIRouter()

    @routes.get("/v1/transfers")
    async def transfers() -> Response:
        return Response(b"{}")

    agent = ServedAgent(Path(tmp_path_factory.mktemp("a")), routes)
    with agent.serving():
        assert json.loads(agent.ask("GET", "/v1/overview")[2])["sections"] == ["transfers"]


def test_refused_moves_are_told_newest_first_and_only_once(agent: ServedAgent) -> None:
    agent.publish(state_with("/data/pii", "/data/masked"), POLICY)
    _, headers, body = agent.ask("GET", "/v1/moves/refused")
    assert json.loads(body) == {"all_callers": True, "moves": []}
    known = {"If-None-Match": headers["ETag"]}
    assert agent.ask("GET", "/v1/moves/refused", **known)[0] == 304
    for number in range(3):
        agent.ask("POST", "/v1/moves/check", {"src": f"/data/pii/{number}", "dst": "/data/masked/f"})
    agent.ask("POST", "/v1/moves/check", {"src": "/data/pii/a", "dst": "/data/pii/b"})
    status, _, body = agent.ask("GET", "/v1/moves/refused", **known)
    RefusedMoves.model_validate_json(body)
    moves = json.loads(body)["moves"]
    assert (status, [each["src"] for each in moves]) == (200, ["/data/pii/2", "/data/pii/1", "/data/pii/0"])
    assert (moves[0]["user"], moves[0]["rule"]) == ("root", "zone_to_zone")


@pytest.mark.parametrize("file", ["", "page.css", "main.js", "text.js", "graph.js", "icon.svg"])
def test_every_file_of_the_page_is_served_under_the_strict_policy(agent: ServedAgent, file: str) -> None:
    status, headers, body = agent.ask("GET", f"/page/{file}")
    assert status == 200
    assert body
    assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert (headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == ("nosniff", "DENY")
    assert agent.ask("GET", f"/page/{file}", **{"If-None-Match": headers["ETag"]})[0] == 304


def test_the_policy_admits_nothing_inline_nothing_from_elsewhere_and_no_frame() -> None:
    directives = dict(part.split(" ", 1) for part in CONTENT_SECURITY_POLICY.split("; "))
    assert (directives["default-src"], directives["frame-ancestors"], directives["form-action"]) == ("'none'",) * 3
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert {value for name, value in directives.items() if name.endswith("-src")} == {"'none'", "'self'"}


def test_the_bare_address_leads_to_the_page(agent: ServedAgent) -> None:
    status, headers, _ = agent.ask("GET", "/")
    assert (status, headers["Location"]) == (307, "/page/")


@pytest.mark.parametrize("file", ["../app.py", "__init__.py", "nothing.js", "%2e%2e/app.py"])
def test_no_other_file_is_served(agent: ServedAgent, file: str) -> None:
    assert agent.ask("GET", f"/page/{file}")[0] == 404


def test_a_page_from_elsewhere_reads_nothing(agent: ServedAgent) -> None:
    agent.publish(state_with("/a"))
    for target in ("/v1/overview", "/v1/moves/refused", "/metrics"):
        assert agent.ask("GET", target, **{"Sec-Fetch-Site": "cross-site"})[0] == 403
        assert agent.ask("GET", target, Host="evil.example")[0] == 403
        assert agent.ask("GET", target)[0] == 200
