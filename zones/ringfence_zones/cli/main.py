"""The `ringfence` command's root: finds sub-commands, turns errors into exit codes.

`ringfence --help` imports no sub-command: it stays fast, and it works when an extra is not installed or a component
is broken. The short help of a command therefore stands here, and a test compares it with the command's own.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple, NoReturn

import click

from ringfence_zones.cli import exits
from ringfence_zones.cli.command_group import CommandGroup
from ringfence_zones.cli.component_group import ENTRY_POINT_GROUP, load_command
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.errors import InputError, MissingExtraError, RingfenceError


class _Summary(NamedTuple):
    """What the list of commands says about one: its help, the extra it needs, and a module that extra brings."""

    short_help: str
    extra: str | None = None
    module: str | None = None


_HDFS = ("hdfs", "jpype")
# A group that was named without a command shows its help, as bad usage. Older releases of click have no class for it.
_NO_ARGUMENTS: tuple[type[Exception], ...] = tuple(
    getattr(click.exceptions, name) for name in ("NoArgsIsHelpError",) if hasattr(click.exceptions, name)
)

# Command name -> "module:attribute" inside this package. Components add theirs by the entry point group
# `ringfence.commands`. Nothing is imported before it is named: `ringfence mv` must not pay for a server.
_COMMANDS = {
    "apply": "ringfence_zones.cli.apply:apply",
    "check": "ringfence_zones.cli.check:check",
    "mv": "ringfence_zones.cli.mv:mv",
    "plan": "ringfence_zones.cli.plan:plan",
    "policy": "ringfence_zones.cli.policy:policy",
    "receipt": "ringfence_zones.cli.receipt:receipt",
    "status": "ringfence_zones.cli.status:status",
    "zone": "ringfence_zones.cli.zone:zone",
}
SUMMARIES = {
    "agent": _Summary("The resident agent: watches zones, pins their roots, answers step jobs.", "agent", "fastapi"),
    "apply": _Summary("Make the cluster as the policy says: keys, zones, trash, rights.", *_HDFS),
    "audit": _Summary("What the key server has decided, for whom and why.", "kms", "uvloop"),
    "check": _Summary("Compare the cluster with the policy; exit 3 when anything is found.", *_HDFS),
    "doctor": _Summary(
        "Look at this machine and what the KMS on it depends on; exit 3 when anything is found.", "kms", "uvloop"
    ),
    "emr": _Summary("Ringfence on Amazon EMR."),
    "key": _Summary("Keys and who may use them.", "kms", "uvloop"),
    "keystore": _Summary("Where keys rest, and what protects them.", "kms", "uvloop"),
    "kms": _Summary("The Hadoop-compatible key server.", "kms", "uvloop"),
    "mv": _Summary("Rename SRC to DST, or into DST when that is a directory.", *_HDFS),
    "plan": _Summary("Show what `ringfence apply` would change, and what stands in its way.", *_HDFS),
    "policy": _Summary("Look at a policy document, offline."),
    "receipt": _Summary(
        "Receipts of transfers: verify them anywhere, from the receipt and the agent's public key alone."
    ),
    "sandbox": _Summary("A real one-node HDFS and a KMS on this machine, for trying and testing."),
    "status": _Summary("Show zones, keys, KMS and agent on one screen.", *_HDFS),
    "transfer": _Summary(
        "Copy SRC to DST, or into DST when that is a directory, verify the copy, and get a signed receipt.",
        "agent",
        "fastapi",
    ),
    "transfers": _Summary("Transfers of the agent: list, show, approve, cancel; fetch a receipt.", "agent", "fastapi"),
    "uninstall": _Summary("Return this EMR node, or key server of a bootstrap action, to what it was before."),
    "vault": _Summary("Vault or OpenBao: prepare it, log in, see what is there.", "vault", "hvac"),
    "zone": _Summary("List and look at encryption zones.", *_HDFS),
}


class _LazyGroup(CommandGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        # A name with a dot belongs below another component's group, which lists it.
        components = {entry.name for entry in entry_points(group=ENTRY_POINT_GROUP) if "." not in entry.name}
        return sorted(components | _COMMANDS.keys())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = _find_entry_point(cmd_name)
        if entry is None:
            return None
        try:
            return load_command(entry)
        except ModuleNotFoundError as error:
            raise _missing(cmd_name, error) from error

    def describe(self, ctx: click.Context, name: str) -> str:  # noqa: ARG002
        return _describe(name)


def _find_entry_point(name: str) -> EntryPoint | None:
    if name in _COMMANDS:
        return EntryPoint(name, _COMMANDS[name], ENTRY_POINT_GROUP)
    return next(iter(entry_points(group=ENTRY_POINT_GROUP, name=name)), None)


def _describe(name: str) -> str:
    summary = SUMMARIES.get(name)
    if summary is None:
        return ""
    if summary.module is not None and importlib.util.find_spec(summary.module) is None:
        return f"{summary.short_help}  (needs ringfence[{summary.extra}])"
    return summary.short_help


def _missing(name: str, error: ModuleNotFoundError) -> RingfenceError:
    """The extra to install; a module of our own that is missing is a broken installation."""
    summary = SUMMARIES.get(name)
    if (error.name or "").startswith("ringfence_") or summary is None or summary.extra is None:
        return RingfenceError(
            f"the command {name} cannot be loaded: {error}",
            hint="this installation of Ringfence is incomplete; install it again",
            command="pip install --force-reinstall ringfence",
        )
    return MissingExtraError(f"ringfence {name}", summary.extra)


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ringfence")
@global_options
def root(_context: CommandContext) -> None:
    """Transparent encryption for HDFS: one key per zone, and data that stays inside its zone."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command and exits with the codes of `exits.py`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        outcome = root.main(args=arguments, prog_name="ringfence", standalone_mode=False)
    except RingfenceError as error:
        _fail(error, arguments)
    except ModuleNotFoundError as error:
        # A server's command imports the server only when it runs: --help must not load one.
        _fail(_missing(next((word for word in arguments if word in SUMMARIES), "ringfence"), error), arguments)
    except click.ClickException as error:
        if isinstance(error, _NO_ARGUMENTS):
            error.show()
            sys.exit(exits.USAGE)
        _fail(_usage(error), arguments)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # Python would complain once more when it flushes standard output at exit.
        sys.stderr.close()
        sys.exit(exits.FAILED)
    # `ctx.exit(n)` inside a command comes back as its return value in non-standalone mode.
    sys.exit(outcome if isinstance(outcome, int) else exits.DONE)


def _usage(error: click.ClickException) -> InputError:
    """What click would print, as an error of ours and in its voice: `--json` gives JSON whatever went wrong."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    message = error.format_message().removesuffix(".")
    message = message[:1].lower() + message[1:]
    return InputError(message, command=f"{context.command_path} --help" if context else None)


def _fail(error: RingfenceError, arguments: Sequence[str]) -> NoReturn:
    exits.print_error(error, as_json="--json" in arguments)
    sys.exit(exits.exit_code(error))
