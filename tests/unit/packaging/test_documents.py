"""The README and its pages promise only what is there: commands, scripts, files, settings. The changelog speaks of this
version."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import get_args

import click
import pytest
from acl_files import SOUND, write_acls
from certificates import Certificates
from kdc import Kdc
from pydantic import BaseModel

from ringfence_agent.config import AgentConfig
from ringfence_agent.kms.config import KmsFile, Options, load_settings
from ringfence_zones.cli.main import root
from ringfence_zones.config_file import read_config
from ringfence_zones.policy import parse_policy

CHECKOUT = Path(__file__).parents[3]
README = (CHECKOUT / "README.md").read_text()
DOCS = CHECKOUT / "packaging/docs"
PAGES = [CHECKOUT / "README.md", *sorted(DOCS.glob("*.md")), CHECKOUT / "packaging/decisions/README.md"]
TEXT = "\n".join(page.read_text() for page in PAGES)
RECORDS = sorted((CHECKOUT / "packaging/decisions").glob("[0-9]*.md"))
# `ringfence` followed by words, in a code block or in backquotes.
COMMANDS = sorted(set(re.findall(r"\bringfence ((?:--as \w+ )?[a-z]+(?: [a-z]+(?:-[a-z]+)*)?)", TEXT)))
PROSE = {"commands", "command"}


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_of_the_readme_exists(words: str) -> None:
    command: click.Command | None = root
    for word in re.sub(r"^--as \w+ ", "", words).split():
        if word in PROSE or not isinstance(command, click.Group):
            break
        command = command.get_command(click.Context(command), word)
        assert command is not None, f"ringfence {words}: there is no {word!r}"


def test_the_readme_names_commands_at_all() -> None:
    assert {"plan", "sandbox up", "kms serve", "--as etl mv"} <= {words.strip() for words in COMMANDS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("path", sorted(set(re.findall(r"packaging/scripts/[a-z-]+", README))))
def test_every_script_of_the_readme_can_be_run(path: str) -> None:
    assert (CHECKOUT / path).stat().st_mode & 0o111


def _yaml_with(text: str) -> str:
    (block,) = (block for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if text in block)
    return str(block)


def test_the_readme_s_policy_is_a_valid_policy() -> None:
    assert parse_policy(_yaml_with("zones:"), "README.md").zones[0].path == "/data/pii"


def test_the_readme_s_kms_yaml_is_one_that_the_server_takes(
    certificates: Certificates, kdc: Kdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {
        "/etc/hadoop-kms/conf": write_acls(tmp_path, SOUND).parent,
        "/etc/ringfence/kms.pem": certificates.server.certificate,
        "/etc/ringfence/kms.key": certificates.server.key,
        "/etc/security/keytabs/http.keytab": kdc.keytab("HTTP/kms.example.com"),
    }
    text = _yaml_with("keystore:")
    for stated, there in places.items():
        assert stated in text
        text = text.replace(stated, str(there))
    (tmp_path / "kms.yaml").write_text(text)
    monkeypatch.setenv("KRB5_CONFIG", kdc.environment["KRB5_CONFIG"])
    settings = load_settings(Options(config=tmp_path / "kms.yaml"))
    assert (settings.host, settings.port) == ("kms.example.com", 9600)
    assert settings.tls is not None
    assert settings.authentication.type == "kerberos"
    assert settings.authentication.proxy_rules.keys() == {"hive"}


def _names(model: type[BaseModel]) -> set[str]:
    """Every setting of a block, and of the blocks in it."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        found.add(field.alias or name)
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= _names(part)
    return found


def test_the_annotated_kms_yaml_is_valid_and_names_every_setting() -> None:
    path = DOCS / "kms.yaml"
    read_config(path, KmsFile)
    assert _names(KmsFile) - set(re.findall(r"(\w+):", path.read_text())) == set()


def test_the_annotated_agent_yaml_is_valid_and_names_every_setting() -> None:
    path = DOCS / "agent.yaml"
    read_config(path, AgentConfig)
    assert _names(AgentConfig) - set(re.findall(r"(\w+):", path.read_text())) == set()


def test_a_command_stands_in_the_first_twenty_lines() -> None:
    assert "packaging/scripts/demo" in "\n".join(README.splitlines()[:20])


def test_the_changelog_s_newest_entry_is_this_version() -> None:
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    (newest, *_) = re.findall(r"^## (\S+)", (CHECKOUT / "packaging/CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest == setup["metadata"]["version"]


def test_decisions_are_numbered_without_gap_and_say_their_status() -> None:
    assert [int(record.name[:4]) for record in RECORDS] == list(range(1, len(RECORDS) + 1))
    for record in RECORDS:
        assert re.search(r"^Status: (accepted|proposed|superseded)", record.read_text(), re.MULTILINE), record.name


def test_every_decision_stands_in_the_index_under_its_title() -> None:
    titles = {record.name: record.read_text().splitlines()[0].partition(": ")[2] for record in RECORDS}
    index = (CHECKOUT / "packaging/decisions/README.md").read_text()
    assert dict(re.findall(r"^\| \[\d+\]\((.*?)\) \| (.*) \|$", index, re.MULTILINE)) == titles
