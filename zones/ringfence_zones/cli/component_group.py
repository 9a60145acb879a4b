"""A group of commands that another component may add one to, without either importing the other.

The entry point `GROUP.COMMAND` in `ringfence.commands` adds COMMAND to GROUP; it is loaded when it is named, or when
the group's help lists it. So `ringfence kms takeover` lives in bootstrap, below a group that lives in agent. A group
below a group says its whole path: commands of `ringfence emr security-config` are `emr.security-config.COMMAND`.
"""

from __future__ import annotations

import gc
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from ringfence_zones.cli.command_group import CommandGroup

ENTRY_POINT_GROUP = "ringfence.commands"


def load_command(entry: EntryPoint) -> click.Command | None:
    """Imports a command, without the cyclic collector: nothing that is being imported is garbage.

    Looking through it again and again takes a third of the time that the imports take; nor is it looked at later.
    None when the entry point names no command.
    """
    gc.disable()
    try:
        loaded = entry.load()
    finally:
        gc.freeze()
        gc.enable()
    return loaded if isinstance(loaded, click.Command) else None


class ComponentGroup(CommandGroup):
    """See the module. `path` is what entry points call the group, its name when it is not given."""

    def __init__(self, *args: Any, path: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._path = path

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The group's own commands and the added ones."""
        return sorted({*super().list_commands(ctx), *self._added()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command of the group's own, else an added one."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        entry = self._added().get(cmd_name)
        return load_command(entry) if entry is not None else None

    def _added(self) -> dict[str, EntryPoint]:
        prefix = f"{self._path or self.name}."
        entries = {
            entry.name.removeprefix(prefix): entry
            for entry in entry_points(group=ENTRY_POINT_GROUP)
            if entry.name.startswith(prefix)
        }
        return {name: entry for name, entry in entries.items() if "." not in name}
