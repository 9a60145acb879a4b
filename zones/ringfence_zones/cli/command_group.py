"""A group of commands as all of ours are: its help shows whole sentences, and a mistyped name gets the nearest one."""

from __future__ import annotations

from difflib import get_close_matches

import click

_WHOLE = 1000  # characters; click would cut a sentence at the terminal's width


class CommandGroup(click.Group):
    """See the module. Subclasses that load commands late override `describe`."""

    def describe(self, ctx: click.Context, name: str) -> str:
        """What the list of commands says about one."""
        command = self.get_command(ctx, name)
        return command.get_short_help_str(limit=_WHOLE) if command is not None else ""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each command on as many lines as it takes."""
        names = self.list_commands(ctx)
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.describe(ctx, name)) for name in names])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Raises click.UsageError that names the command which was probably meant."""
        name = args[0]
        if name.startswith("-") or self.get_command(ctx, name) is not None:
            return super().resolve_command(ctx, args)
        near = get_close_matches(name, self.list_commands(ctx), n=1)
        guess = f": did you mean {near[0]!r}?" if near else ""
        raise click.UsageError(f"no such command {name!r}{guess}", ctx)
