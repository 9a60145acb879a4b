"""The agent's configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

import ringfence_agent.config as module
from ringfence_agent.config import AgentConfig, load_config
from ringfence_zones.config_file import parse_config
from ringfence_zones.errors import ConfigError


def test_without_a_file_everything_has_a_safe_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "DEFAULT_CONFIG_FILE", tmp_path / "absent.yaml")
    config = load_config(None)
    assert config.allowed_users == config.allowed_groups == config.delegate_users == []


@pytest.mark.parametrize(
    "more", ["", "tokens: false\nspnego: {keytab: /k}\n", "tokens: false\n", "spnego: {keytab: /k}\n"]
)
def test_a_listener_has_tls_and_a_way_to_prove_callers(more: str) -> None:
    tls = "tls: {cert: /a, key: /b, client_ca: /c, client_auth: optional}\n"
    config = parse_config(f"listen: '0.0.0.0:9601'\n{tls}{more}", "agent.yaml", AgentConfig)
    assert config.tls is not None


def test_a_log_is_one_file_or_those_of_a_pair(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text("namenode_log: /var/log/nn.log\nnamenode_audit_log: [/var/log/a1, /var/log/a2]\n")
    config = load_config(path)
    assert config.namenode_log == [Path("/var/log/nn.log")]
    assert config.namenode_audit_log == [Path("/var/log/a1"), Path("/var/log/a2")]
    assert AgentConfig().namenode_log == []


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
        ("event_interval: 1ms", "must be at least 50ms"),
        ("without_lease: maybe", "without_lease"),
        ("budgets: {memory: 1MiB}", "must be at least 256MiB"),
        ("budgets: {cpu: 3}", "'budgets.cpu' is not a setting"),
        ("socket: run/agent.sock", "absolute path"),
        ("socket: /" + "x" * 120, "107 bytes"),
        ("allowed_users: [0]", "valid string"),
        ("allowed_users: ['a b']", "pattern"),
        ("interval: 60s\nstale_after: 61s", "twice the interval"),
        ("admins: {users: [hadoop]}", "must not name hadoop"),
        ("admins: [root]", "block"),
        ("listen: localhost:9601", "listen takes tls"),
        ("listen: '9601'", "HOST:PORT"),
        ("tls: {cert: /a, key: /b}", "name listen too"),
        ("spnego: {keytab: /a}", "name listen too"),
        ("listen: 'a:1'\ntls: {cert: /a, key: /b}\ntokens: false", "nobody could prove themselves"),
        ("listen: 'a:1'\ntls: {cert: /a, key: /b, client_ca: /c}", "go together"),
        ("rates: {requests: 0}", "rates.requests"),
        ("namenode_log: [/a, b.log]", "absolute path"),
    ],
)
def test_a_mistake_is_told(text: str, because: str) -> None:
    with pytest.raises(ConfigError, match=because):
        parse_config(text, "agent.yaml", AgentConfig)
