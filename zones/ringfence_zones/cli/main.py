"""The `ringfence` command's root: finds sub-commands, turns errors into exit codes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

import click

from ringfence_zones.cli import exits
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.errors import MissingExtraError, RingfenceError

# Command name -> "module:attribute" inside this package. Components add theirs by the entry point group
# `ringfence.commands`. Nothing is imported before it is named: `ringfence mv` must not pay for a server.
_COMMANDS = {
    "apply": "ringfence_zones.cli.apply:apply",
    "check": "ringfence_zones.cli.check:check",
    "mv": "ringfence_zones.cli.mv:mv",
    "plan": "ringfence_zones.cli.plan:plan",
    "policy": "ringfence_zones.cli.policy:policy",
    "status": "ringfence_zones.cli.status:status",
    "zone": "ringfence_zones.cli.zone:zone",
}
_ENTRY_POINT_GROUP = "ringfence.commands"
# The extra that installs a module, for the sentence when it is missing.
_EXTRA_OF_MODULE = {
    "cryptography": "kms",
    "fastapi": "agent",
    "hdfs_native": "hdfs",
    "httptools": "kms",
    "jpype": "hdfs",
    "sqlalchemy": "kms",
    "uvloop": "kms",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        components = {entry.name for entry in entry_points(group=_ENTRY_POINT_GROUP)}
        return sorted(components | _COMMANDS.keys())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        target = _COMMANDS.get(cmd_name)
        if target is not None:
            module, _, attribute = target.partition(":")
            loaded = getattr(importlib.import_module(module), attribute)
        else:
            found = entry_points(group=_ENTRY_POINT_GROUP, name=cmd_name)
            loaded = next(iter(found)).load() if found else None
        return loaded if isinstance(loaded, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click's, but a command whose extra is not installed does not take the whole help with it."""
        rows = []
        for name in self.list_commands(ctx):
            try:
                command = self.get_command(ctx, name)
            except ModuleNotFoundError as error:
                rows.append((name, f"not installed: {_missing_extra(name, error).command}"))
            else:
                if command is not None:
                    rows.append((name, command.get_short_help_str(limit=formatter.width)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _missing_extra(command: str | None, error: ModuleNotFoundError) -> MissingExtraError:
    """What to say for a module that is not there. Raises `error` again when no extra brings it."""
    extra = _EXTRA_OF_MODULE.get((error.name or "").partition(".")[0])
    if extra is None:
        raise error
    # A server's command is named as its extra, which brings all that the command needs.
    return MissingExtraError(f"ringfence {command or ''}".strip(), command if command in ("agent", "kms") else extra)


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ringfence")
@global_options
def root(_context: CommandContext) -> None:
    """Transparent encryption for HDFS: one key per zone, and data that stays inside its zone."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command and exits with the codes of `exits.py`."""
    try:
        outcome = root.main(args=argv, prog_name="ringfence", standalone_mode=False)
    except RingfenceError as error:
        exits.print_error(error)
        sys.exit(exits.exit_code(error))
    except ModuleNotFoundError as error:
        missing = _missing_extra(_named_command(sys.argv[1:] if argv is None else argv), error)
        exits.print_error(missing)
        sys.exit(exits.exit_code(missing))
    except click.ClickException as error:
        error.show()
        sys.exit(exits.USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(exits.FAILED)
    # `ctx.exit(n)` inside a command comes back as its return value in non-standalone mode.
    sys.exit(outcome if isinstance(outcome, int) else exits.DONE)


def _named_command(argv: Sequence[str]) -> str | None:
    """The sub-command on this command line, for a message."""
    names = root.list_commands(click.Context(root))
    return next((argument for argument in argv if argument in names), None)
