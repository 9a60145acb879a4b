"""Commands that one component adds to another's group."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import click
import pytest

from ringfence_zones.cli import component_group
from ringfence_zones.cli.component_group import ComponentGroup


@click.group(cls=ComponentGroup)
def kms() -> None:
    pass


@kms.command()
def serve() -> None:
    pass


@click.command()
def takeover() -> None:
    pass


ENTRIES = [
    EntryPoint("kms", f"{__name__}:kms", component_group.ENTRY_POINT_GROUP),
    EntryPoint("kms.takeover", f"{__name__}:takeover", component_group.ENTRY_POINT_GROUP),
    EntryPoint("key.import", "no.such.module:command", component_group.ENTRY_POINT_GROUP),
]


@pytest.fixture(autouse=True)
def _entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(component_group, "entry_points", lambda group: ENTRIES)


def test_an_entry_point_with_the_groups_name_adds_a_command() -> None:
    context = click.Context(kms)
    assert kms.list_commands(context) == ["serve", "takeover"]
    assert kms.get_command(context, "serve") is serve
    found = kms.get_command(context, "takeover")
    assert found is not None and found.name == "takeover"
    assert kms.get_command(context, "import") is None


def test_the_groups_own_commands_load_no_other_component() -> None:
    program = (
        "import sys\nfrom ringfence_zones.cli.main import main\n"
        "try:\n    main(['kms', 'serve', '--help'])\nexcept SystemExit as done:\n    assert not done.code\n"
        "print([name for name in sys.modules if name.startswith('ringfence_bootstrap.takeover')])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
