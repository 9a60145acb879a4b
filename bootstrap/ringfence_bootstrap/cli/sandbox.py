"""`ringfence sandbox`: a real one-node HDFS on this machine, for trying and testing.

Standard output holds only what a program reads (export lines, JSON); everything said to people goes to standard
error, so that `eval "$(ringfence sandbox up)"` works.
"""

from __future__ import annotations

import functools
import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ringfence_bootstrap.sandbox.artifacts import OnProgress, ensure_jars, sandbox_jars, yarn_jars
from ringfence_bootstrap.sandbox.configuration import environment
from ringfence_bootstrap.sandbox.lifecycle import DaemonStatus, Sandbox, Wanted
from ringfence_bootstrap.sandbox.security import USERS
from ringfence_bootstrap.sandbox.state import KmsKind, State, default_directory
from ringfence_zones.cli import exits
from ringfence_zones.cli.command_group import CommandGroup
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import print_table
from ringfence_zones.config_file import parse_duration_s
from ringfence_zones.errors import SandboxError

_FETCHING = "fetching Hadoop's jars"

directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="the sandbox's directory  [${XDG_STATE_HOME:-~/.local/state}/ringfence/sandbox]",
)


def _read_duration(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else int(parse_duration_s(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _read_settings(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str:
    if value is None:
        return ""
    try:
        settings = yaml.safe_load(Path(value).read_text(encoding="utf-8"))
    except OSError as error:
        raise click.BadParameter(f"cannot read {value}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise click.BadParameter(f"{value} is not well-formed YAML") from error
    if not isinstance(settings, dict) or not settings:
        raise click.BadParameter(f"{value} holds no settings, as in  vault: {{...}}")
    # Written anew, in lines that can follow others: a mapping in braces could not.
    return yaml.safe_dump(settings, sort_keys=False)


@click.group(cls=CommandGroup)
@global_options
def sandbox(_context: CommandContext) -> None:
    """A real one-node HDFS and a KMS on this machine, for trying and testing."""


@sandbox.command()
@directory_option
@click.option(
    "--kms",
    type=click.Choice(["ringfence", "stock"]),
    help="our KMS, or Hadoop's own with a JCEKS key store  [ringfence]",
)
@click.option("--agent", is_flag=True, help="start the agent too")
@click.option("--kerberos", is_flag=True, help="a KDC, and Kerberos and encryption everywhere; needs --tls")
@click.option("--tls", is_flag=True, help="the KMS over TLS; with --kerberos every web page too")
@click.option("--ha", is_flag=True, help="two NameNodes and a JournalNode; `sandbox failover` changes the active one")
@click.option("--yarn", is_flag=True, help="a ResourceManager and a NodeManager, for jobs; fetches 29 MB more")
@click.option(
    "--ticket-lifetime",
    "ticket_lifetime_s",
    metavar="DURATION",
    callback=_read_duration,
    help="of every Kerberos ticket, as in 2m  [10h]",
)
@click.option(
    "--kms-settings",
    metavar="FILE",
    callback=_read_settings,
    help="YAML that our KMS is to have too, such as a vault block: added to kms.yaml of a new sandbox",
)
@global_options
def up(
    context: CommandContext,
    directory: Path | None,
    kms: KmsKind | None,
    agent: bool,
    kerberos: bool,
    tls: bool,
    ha: bool,
    yarn: bool,
    ticket_lifetime_s: int | None,
    kms_settings: str,
) -> None:
    """Start what does not run yet; print export lines when a file can be written."""
    console = Console(stderr=True, highlight=False)
    wanted = Wanted(
        kms=kms,
        agent=agent,
        kerberos=kerberos,
        tls=tls,
        ha=ha,
        yarn=yarn,
        ticket_lifetime_s=ticket_lifetime_s,
        kms_settings=kms_settings,
    )
    with _fetching(console) as on_progress:
        state = _sandbox(directory).up(wanted, _say(console), on_progress)
    _print_state(context, _sandbox(directory), state)


@sandbox.command()
@click.option("--yarn", is_flag=True, help="what `up --yarn` needs too")
@global_options
def fetch(_context: CommandContext, yarn: bool) -> None:
    """Fetch Hadoop's jars into the cache, so that `up` needs no network; print where they are."""
    console = Console(stderr=True, highlight=False)
    for jars in (sandbox_jars(), *([yarn_jars()] if yarn else [])):
        with _fetching(console) as on_progress:
            click.echo(ensure_jars(jars, os.environ, _say(console), on_progress))


@sandbox.command()
@directory_option
@click.option("--delete", is_flag=True, help="delete the directory too: files, keys and logs")
@global_options
def down(_context: CommandContext, directory: Path | None, delete: bool) -> None:
    """Stop the sandbox's daemons, and only those; files and keys stay unless --delete."""
    _sandbox(directory).down(delete=delete, say=_say(Console(stderr=True, highlight=False)))


@sandbox.command()
@directory_option
@click.option("--to", type=click.Choice(["nn1", "nn2"]), help="the NameNode to make active  [the other one]")
@click.option("--kill", is_flag=True, help="kill -9 the active one first, instead of asking it to stand by")
@global_options
def failover(context: CommandContext, directory: Path | None, to: str | None, kill: bool) -> None:
    """Make the other one of two NameNodes active, as an administrator does with haadmin; needs `up --ha`."""
    chosen = _sandbox(directory)
    state = chosen.fail_over(_say(Console(stderr=True, highlight=False)), to=to, kill=kill)
    if context.json:
        click.echo(json.dumps(_state_json(chosen, state, chosen.status()), indent=2))


@sandbox.command()
@directory_option
@global_options
@click.pass_context
def status(click_context: click.Context, context: CommandContext, directory: Path | None) -> None:
    """Show each daemon; exit 1 when one does not run."""
    chosen = _sandbox(directory)
    rows = chosen.status()
    if context.json:
        click.echo(json.dumps(_state_json(chosen, chosen.get_state(), rows), indent=2))
    else:
        print_table(
            ("DAEMON", "PID", "PORTS", "LOG"),
            [(row.name, _run_words(row), " ".join(map(str, row.ports)), str(row.log)) for row in rows],
        )
    click_context.exit(exits.DONE if all(row.pid for row in rows) else exits.FAILED)


@sandbox.command()
@directory_option
@global_options
def env(context: CommandContext, directory: Path | None) -> None:
    """Print the export lines again."""
    chosen = _sandbox(directory)
    _print_state(context, chosen, chosen.get_state())


def _hadoop_command(name: str, summary: str) -> None:
    @sandbox.command(
        name=name, help=summary, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
    )
    @directory_option
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    @global_options
    def run(context: CommandContext, directory: Path | None, arguments: Sequence[str]) -> None:
        chosen = _sandbox(directory)
        environ = chosen.command_environment(context.as_user or os.environ.get("HADOOP_USER_NAME"))
        program = chosen.layout.hadoop_home / "bin" / name
        if not program.exists():
            raise SandboxError(f"the sandbox in {chosen.layout.directory} was made without YARN")
        # Becomes the program: its exit code, its signals and its terminal are the caller's.
        os.execve(program, [str(program), *arguments], environ)  # noqa: S606 - no shell is meant


_hadoop_command("hdfs", "Run Hadoop's own hdfs command on the sandbox, as in: hdfs dfs -ls /")
_hadoop_command("hadoop", "Run Hadoop's own hadoop command on the sandbox, as in: hadoop key list")
_hadoop_command("yarn", "Run Hadoop's own yarn command on a sandbox with YARN, as in: yarn app -list")
_hadoop_command("mapred", "Run Hadoop's own mapred command on a sandbox with YARN, as in: mapred streaming -help")


def _run_words(row: DaemonStatus) -> str:
    if row.pid is None:
        return "does not run"
    return f"{row.pid} {row.role}" if row.role else str(row.pid)


def _sandbox(directory: Path | None) -> Sandbox:
    return Sandbox(directory or default_directory(os.environ), os.environ)


def _say(console: Console) -> Callable[[str], None]:
    return functools.partial(console.print, markup=False, soft_wrap=True)


@contextmanager
def _fetching(console: Console) -> Iterator[OnProgress]:
    """A bar on a terminal; elsewhere a line for each tenth, so that a log shows that it goes on."""
    said = -1
    columns = (TextColumn(_FETCHING), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", visible=False)

        def report(done: int, total: int) -> None:
            nonlocal said
            progress.update(task, completed=done, total=total, visible=done < total)
            tenth = done * 10 // total
            if not console.is_terminal and tenth > said:
                said = tenth
                _say(console)(f"{_FETCHING}: {done} of {total}")

        yield report


def _print_state(context: CommandContext, chosen: Sandbox, state: State) -> None:
    if context.json:
        click.echo(json.dumps(_state_json(chosen, state, chosen.status()), indent=2))
        return
    for name, value in environment(chosen.layout, state).items():
        click.echo(f"export {name}={shlex.quote(value)}")
    if state.kerberos:
        for user in USERS:  # For people: a shell that evaluates these lines passes over them.
            click.echo(f"# to be {user}: kinit -k -t {shlex.quote(str(chosen.layout.keytab(user)))} {user}")


def _state_json(chosen: Sandbox, state: State, rows: Sequence[DaemonStatus]) -> dict[str, Any]:
    described = state.to_json()
    return {
        "schema": described["schema"],
        "directory": str(chosen.layout.directory),
        "hadoop_version": state.hadoop_version,
        "kms": state.kms,
        "ports": described["ports"],
        "pids": {row.name: row.pid for row in rows},
        "namenodes": _namenodes_json(state, rows),
        "logs": {row.name: str(row.log) for row in rows},
        "environment": environment(chosen.layout, state),
        "keytabs": {user: str(chosen.layout.keytab(user)) for user in USERS} if state.kerberos else {},
        "ca": str(chosen.layout.authority) if state.tls else None,
    }


def _namenodes_json(state: State, rows: Sequence[DaemonStatus]) -> dict[str, Any]:
    """Each NameNode by Hadoop's name for it; `role` is null where there is one, or when it does not answer."""
    roles = {row.name: row.role for row in rows}
    return {
        each.name: {
            "daemon": each.daemon,
            "rpc": f"localhost:{each.port}",
            "web": f"{'https' if state.kerberos else 'http'}://localhost:{each.http_port}",
            "role": roles.get(each.daemon),
        }
        for each in state.namenodes
    }
