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


@click.group(cls=ComponentGroup, path="kms.store")
def store() -> None:
    pass


@click.command()
def takeover() -> None:
    pass


@click.command()
def repair() -> None:
    pass


ENTRIES = [
    EntryPoint("kms", f"{__name__}:kms", component_group.ENTRY_POINT_GROUP),
    EntryPoint("kms.takeover", f"{__name__}:takeover", component_group.ENTRY_POINT_GROUP),
    EntryPoint("kms.store", f"{__name__}:store", component_group.ENTRY_POINT_GROUP),
    EntryPoint("kms.store.repair", f"{__name__}:repair", component_group.ENTRY_POINT_GROUP),
    EntryPoint("store.other", "no.such.module:command", component_group.ENTRY_POINT_GROUP),
    EntryPoint("key.import", "no.such.module:command", component_group.ENTRY_POINT_GROUP),
]


@pytest.fixture(autouse=True)
def _entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(component_group, "entry_points", lambda group: ENTRIES)


def test_an_entry_point_with_the_groups_name_adds_a_command() -> None:
    context = click.Context(kms)
    assert kms.list_commands(context) == ["serve", "store", "takeover"]
    assert kms.get_command(context, "serve") is serve
    found = kms.get_command(context, "takeover")
    assert found is not None and found.name == "takeover"
    assert kms.get_command(context, "import") is None


def test_a_group_below_a_group_is_found_by_its_whole_path() -> None:
    context = click.Context(kms)
    assert kms.get_command(context, "store.repair") is None
    found = kms.get_command(context, "store")
    assert isinstance(found, ComponentGroup)
    assert found.list_commands(context) == ["repair"]
    inner = found.get_command(context, "repair")
    assert inner is not None and inner.name == "repair"


def test_the_groups_own_commands_load_no_other_component() -> None:
    program = (
        "import sys\nfrom ringfence_zones.cli.main import main\n"
        "try:\n    main(['kms', 'serve', '--help'])\nexcept SystemExit as done:\n    assert not done.code\n"
        "print([name for name in sys.modules if name.startswith('ringfence_bootstrap.takeover')])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
