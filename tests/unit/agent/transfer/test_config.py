"""The settings of transfers."""

from __future__ import annotations

import pytest

from ringfence_agent.config import AgentConfig
from ringfence_zones.config_file import parse_config
from ringfence_zones.errors import ConfigError


def test_an_edges_service_principal_is_found_by_its_zones() -> None:
    text = "transfers: {services: [{from: /a, to: /b, user: mover}]}"
    settings = parse_config(text, "agent.yaml", AgentConfig).transfers
    found = settings.find_service("/a", "/b")
    assert found is not None
    assert found.user == "mover"
    assert settings.find_service("/b", "/a") is None


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("{stream: 8}", "did you mean 'streams'"),
        ("{max_size: 5}", "size with a unit"),
        ("{job: {above: 64}}", "size with a unit"),
        ("{job: {queue: etl}}", "above"),
        ("{job: {above: 1GiB, queue: 'root etl'}}", "pattern"),
        ("{keep: [acl]}", "'mode', 'times', 'owner' or 'group'"),
        ("{services: [{from: a, to: /b, user: u}]}", "must be the root of a zone"),
        ("{services: [{from: /a, to: /b, user: 'u v'}]}", "pattern"),
        ("{services: [{from: /a, to: /b, user: u}, {from: /a, to: /b, user: v}]}", "each pair of zones once"),
    ],
)
def test_a_mistake_is_told(text: str, because: str) -> None:
    with pytest.raises(ConfigError, match=because):
        parse_config(f"transfers: {text}", "agent.yaml", AgentConfig)


def test_a_job_is_for_those_who_say_from_which_size_on() -> None:
    assert parse_config("transfers: {}", "agent.yaml", AgentConfig).transfers.job is None
    job = parse_config("transfers: {job: {above: 64GiB, queue: root.etl}}", "agent.yaml", AgentConfig).transfers.job
    assert job is not None
    assert (job.above, job.queue) == (64 << 30, "root.etl")
