"""The agent's configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import ringfence_agent.config as module
from ringfence_agent.config import AgentConfig, load_config
from ringfence_zones.config_file import parse_config
from ringfence_zones.errors import ConfigError


def test_the_example_in_the_documentation_is_valid_and_complete() -> None:
    example = "\n".join(line[4:] for line in (module.__doc__ or "").splitlines() if line.startswith("    "))
    config = parse_config(example, "agent.yaml", AgentConfig)
    assert config.interval == 5.0
    assert yaml.safe_load(example).keys() == AgentConfig.model_fields.keys()


def test_without_a_file_everything_has_a_safe_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "DEFAULT_CONFIG_FILE", tmp_path / "absent.yaml")
    config = load_config(None)
    assert config.allowed_users == config.allowed_groups == config.delegate_users == []


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "agent.yaml")


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("pin: apply", "'pin' is not a setting"),
        ("intervall: 5s", "did you mean 'interval'"),
        ("interval: 5", "duration with a unit"),
        ("interval: 1ms", "must be at least 200ms"),
        ("socket: run/agent.sock", "absolute path"),
        ("socket: /" + "x" * 120, "107 bytes"),
        ("allowed_users: [0]", "valid string"),
        ("allowed_users: ['a b']", "pattern"),
        ("interval: 60s\nstale_after: 61s", "twice the interval"),
    ],
)
def test_a_mistake_is_told(text: str, because: str) -> None:
    with pytest.raises(ConfigError, match=because):
        parse_config(text, "agent.yaml", AgentConfig)
