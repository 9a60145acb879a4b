"""The policy over the API: the current one, what is wrong with a new one, and whether it does what cases expect."""

from __future__ import annotations

import json
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_api import POLICY, ServedApi, serving_api

from ringfence_agent.api import documents
from ringfence_agent.client import AgentClient, AgentError
from ringfence_zones.policy import canonical_json, parse_policy, policy_digest

EXAMPLE = (Path(__file__).parents[4] / "zones/example.yaml").read_text()
CASES = """
version: 1
cases:
  - {user: masker, from: /data/pii/f, to: /data/masked/f, expect: {rename: false, transfer: true}}
  - {user: etl, from: /data/pii/f, to: /data/masked/f, expect: {transfer: %s}}
"""


@pytest.fixture
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    with serving_api(ServedApi(tmp_path_factory.mktemp("p"))) as running:
        yield running


@pytest.fixture
def client(api: ServedApi) -> AgentClient:
    return AgentClient(str(api.path))


def test_the_current_policy_is_told_as_it_is_published(api: ServedApi, client: AgentClient) -> None:
    status, answer = api.ask("GET", "/v1/policy")
    assert status == 200
    documents.PolicyNow.model_validate(answer)
    assert answer["digest"] == policy_digest(POLICY)
    document = client.policy()
    assert document is not None
    assert canonical_json(parse_policy(str(document), "again")) == canonical_json(POLICY)
    api.publish(policy=None)
    assert client.policy() is None


def test_a_good_document_has_nothing_wrong(client: AgentClient) -> None:
    assert client.validate_policy(EXAMPLE) == []


def test_everything_wrong_with_a_document_is_told_at_once(client: AgentClient) -> None:
    found = client.validate_policy("version: 1\nzonez: []\nkms: 7\n")
    assert len(found) >= 2
    assert {finding.severity for finding in found} == {"error"}


@pytest.mark.parametrize("text", ["", "a: b: c", "[" * 5000, "&a [*a]", "\t", "x" * 100_000])
def test_what_is_no_document_is_told_and_harms_nothing(client: AgentClient, text: str) -> None:
    assert client.validate_policy(text) != []


def test_cases_are_judged_by_the_current_policy_or_by_one_that_is_sent(client: AgentClient) -> None:
    assert client.test_policy(CASES % "false") == []
    (finding,) = client.test_policy(CASES % "true")
    assert finding.severity == "error"
    without_flows = EXAMPLE.partition("\nflows:")[0] + "\nkms: {namenode_users: [hdfs], admins: [hdfs]}\n"
    assert [each.rule for each in client.test_policy(CASES % "true", without_flows)] == []


def test_cases_that_cannot_be_read_are_a_problem(api: ServedApi, client: AgentClient) -> None:
    with pytest.raises(AgentError) as caught:
        client.test_policy("cases: []\n")
    assert (caught.value.status, caught.value.type) == (422, "bad-policy")
    api.publish(policy=None)
    with pytest.raises(AgentError, match="no policy to test"):
        client.test_policy(CASES % "true")


def test_a_viewer_cannot_have_the_agent_read_itself_to_death(api: ServedApi) -> None:
    # A few of these at once took more memory than the agent's whole budget, which ends it.
    hostile = json.dumps({"document": "version: 1\ncluster: t\nzones: [" + "a," * 190_000 + "]\n"}).encode()
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answers: list[tuple[int, dict[str, Any]]] = []

    def send() -> None:
        answers.append(api.ask("POST", "/v1/policy/validate", hostile))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    by_status = dict(answers)
    assert set(by_status) == {200, 429}
    assert by_status[429]["type"].endswith(":too-often")
    assert [finding["rule"] for finding in by_status[200]["findings"]] == ["yaml_syntax"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 300 * 1024
    assert api.ask("POST", "/v1/policy/validate", b'{"document": "version: 1"}')[0] == 200
