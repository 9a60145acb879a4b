"""The README promises only what is there: commands, scripts, files. The changelog speaks of this version."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import click
import pytest

from ringfence_zones.cli.main import root
from ringfence_zones.policy import parse_policy

CHECKOUT = Path(__file__).parents[3]
README = (CHECKOUT / "README.md").read_text()
# `ringfence` followed by words, in a code block or in backquotes.
COMMANDS = sorted(set(re.findall(r"\bringfence ((?:--as \w+ )?[a-z]+(?: [a-z]+(?:-[a-z]+)*)?)", README)))
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


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_every_link_of_the_readme_leads_somewhere(path: str) -> None:
    assert (CHECKOUT / path).exists()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"packaging/scripts/[a-z-]+", README))))
def test_every_script_of_the_readme_can_be_run(path: str) -> None:
    assert (CHECKOUT / path).stat().st_mode & 0o111


def test_the_readme_s_policy_is_a_valid_policy() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert parse_policy(block, "README.md").zones[0].path == "/data/pii"


def test_a_command_stands_in_the_first_twenty_lines() -> None:
    assert "packaging/scripts/demo" in "\n".join(README.splitlines()[:20])


def test_the_changelog_s_newest_entry_is_this_version() -> None:
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    (newest, *_) = re.findall(r"^## (\S+)", (CHECKOUT / "packaging/CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest == setup["metadata"]["version"]


def test_decisions_are_numbered_without_gap_and_say_their_status() -> None:
    records = sorted((CHECKOUT / "packaging/decisions").glob("*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        assert re.search(r"^Status: (accepted|proposed|superseded)", record.read_text(), re.MULTILINE), record.name
