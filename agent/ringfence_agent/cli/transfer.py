"""`ringfence transfer SRC DST`: the sanctioned way between zones, through the agent; and `ringfence transfers`.

The agent decides, copies, verifies and signs; this command asks, shows how it goes, and fetches the receipt. Nothing is
lost when it is interrupted: the transfer goes on, and `ringfence transfers show ID` finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ringfence_agent.client import AgentClient, AgentError, Transfer
from ringfence_agent.client import AgentUnavailableError as NoAgent
from ringfence_zones.cli.command_group import CommandGroup
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import counted, print_json, print_table, shown
from ringfence_zones.client_config import is_secure
from ringfence_zones.durable_file import write_new_file
from ringfence_zones.errors import (
    AccessDeniedError,
    AgentUnavailableError,
    AuthenticationError,
    InputError,
    RefusedError,
    TransferError,
    TransferNotFoundError,
)
from ringfence_zones.findings import Rule
from ringfence_zones.hadoop_conf import find_default_fs
from ringfence_zones.kerberos import refuse_claimed_user
from ringfence_zones.paths import HdfsPath

_POLL_S = 0.5


@click.command()
@click.argument("src")
@click.argument("dst")
@click.option("--purpose", metavar="TEXT", help="what it is for; stands in the receipt")
@click.option("--remove-source", is_flag=True, help="remove SRC after everything was verified")
@click.option("--ask-for-approval", is_flag=True, help="wait for an administrator where the policy has no flow")
@click.option(
    "--receipt", "receipt_file", type=click.Path(path_type=Path), metavar="FILE", help="keep the receipt here"
)
@click.option("--no-wait", is_flag=True, help="print the transfer's id and leave")
@global_options
def transfer(
    context: CommandContext,
    src: str,
    dst: str,
    purpose: str | None,
    remove_source: bool,
    ask_for_approval: bool,
    receipt_file: Path | None,
    no_wait: bool,
) -> None:
    """Copy SRC to DST, or into DST when that is a directory, verify the copy, and get a signed receipt.

    The agent copies as you, when the policy allows it; exit code 1 when it is refused or fails.
    """
    if receipt_file is not None and (receipt_file.exists() or no_wait):
        why = "is there already" if receipt_file.exists() else "cannot be written with --no-wait"
        raise InputError(f"{receipt_file} {why}", hint="name a new file for the receipt, and wait for the transfer")
    default_fs = find_default_fs(context.hadoop_conf)
    source, target = HdfsPath.parse(src, default_fs=default_fs), HdfsPath.parse(dst, default_fs=default_fs)
    if is_secure(context.hadoop_conf):
        refuse_claimed_user(context.as_user)
    agent = _agent(context)
    try:
        submitted = agent.submit_transfer(
            str(source),
            str(target),
            purpose=purpose,
            remove_source=remove_source,
            ask_for_approval=ask_for_approval,
            user=context.as_user,
        )
        if no_wait:
            _print(context, submitted, None)
            return
        ended = _follow(context, agent, submitted)
        receipt = agent.get_receipt(ended.id) if ended.state == "done" and receipt_file is not None else None
    except AgentError as error:
        _raise(error)
    if receipt is not None and receipt_file is not None:
        _keep(receipt_file, receipt)
    _print(context, ended, receipt_file if receipt is not None else None)
    _raise_problem(ended)


@click.group(cls=CommandGroup)
def transfers() -> None:
    """Transfers of the agent: list, show, approve, cancel; fetch a receipt."""


@transfers.command(name="list")
@global_options
def list_transfers(context: CommandContext) -> None:
    """Your transfers, newest first; everybody's for an administrator."""
    try:
        listed = _agent(context).transfers()
    except AgentError as error:
        _raise(error)
    if context.json:
        print_json({"transfers": [each._asdict() for each in listed]})
        return
    rows = [(each.id, each.state, each.user, _counts(each), f"{each.src} to {each.dst}") for each in listed]
    print_table(("ID", "STATE", "USER", "VERIFIED", "FROM AND TO"), rows)


@transfers.command()
@click.argument("transfer_id", metavar="ID")
@global_options
def show(context: CommandContext, transfer_id: str) -> None:
    """How a transfer goes, and why it failed."""
    seen = _act(context, lambda agent: agent.get_transfer(transfer_id))
    if seen.problem is not None and not context.json:
        click.echo(f"  because  {shown(seen.problem['message'])}")
        if seen.problem["hint"]:
            click.echo(f"  hint     {shown(seen.problem['hint'])}")


@transfers.command()
@click.argument("transfer_id", metavar="ID")
@global_options
def approve(context: CommandContext, transfer_id: str) -> None:
    """Let a transfer that waits for approval go on; not one that you asked for."""
    _act(context, lambda agent: agent.approve_transfer(transfer_id))


@transfers.command()
@click.argument("transfer_id", metavar="ID")
@global_options
def cancel(context: CommandContext, transfer_id: str) -> None:
    """End a transfer that is not placed yet; the source is as it was."""
    _act(context, lambda agent: agent.cancel_transfer(transfer_id))


@transfers.command()
@click.argument("transfer_id", metavar="ID")
@click.argument("receipt_file", metavar="FILE", type=click.Path(path_type=Path))
@global_options
def receipt(context: CommandContext, transfer_id: str, receipt_file: Path) -> None:
    """Write the signed receipt of a transfer that is done to FILE."""
    try:
        content = _agent(context).get_receipt(transfer_id)
    except AgentError as error:
        _raise(error)
    _keep(receipt_file, content)


def _act(context: CommandContext, ask: Callable[[AgentClient], Transfer]) -> Transfer:
    try:
        answered = ask(_agent(context))
    except AgentError as error:
        _raise(error)
    _print(context, answered, None)
    return answered


def _agent(context: CommandContext) -> AgentClient:
    return AgentClient(str(context.agent_socket))


def _follow(context: CommandContext, agent: AgentClient, submitted: Transfer) -> Transfer:
    console = Console(stderr=True)
    if context.json or not console.is_terminal:
        return agent.wait_for_transfer(submitted.id, poll_s=_POLL_S)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(submitted.state, total=None)

        def update(seen: Transfer) -> None:
            doing = f"{seen.state.replace('_', ' ')} {seen.files_verified}/{seen.files}"
            waits = f"waits: {shown(seen.waits_for)}" if seen.waits_for else doing
            bar.update(task, description=waits, completed=seen.bytes_verified, total=seen.bytes or None)

        return agent.wait_for_transfer(submitted.id, on_progress=update, poll_s=_POLL_S)


def _print(context: CommandContext, seen: Transfer, receipt_file: Path | None) -> None:
    if context.json:
        print_json(seen._asdict())
        return
    click.echo(f"{seen.state.replace('_', ' ')}: {shown(seen.src)} to {shown(seen.dst)}, {_counts(seen)}")
    click.echo(
        f"  transfer {seen.id} of {seen.user}" + ("" if seen.user == seen.copied_as else f" as {seen.copied_as}")
    )
    if seen.waits_for:
        click.echo(f"  waits    {shown(seen.waits_for)}")
    if seen.source_removed:
        click.echo("  the source was removed")
    if receipt_file is not None:
        click.echo(f"  receipt  {receipt_file}")


def _counts(seen: Transfer) -> str:
    return f"{seen.files_verified} of {counted(seen.files, 'file')}, {seen.bytes_verified} of {seen.bytes} bytes"


def _keep(path: Path, receipt: bytes) -> None:
    try:
        write_new_file(path, receipt, 0o644)
    except OSError as error:
        raise InputError(f"cannot write the receipt {path}: {error.strerror}") from error


def _raise_problem(ended: Transfer) -> None:
    if ended.problem is not None:
        raise TransferError(ended.problem["message"], hint=ended.problem["hint"], command=ended.problem["command"])


def _raise(error: AgentError) -> NoReturn:
    """The agent's problem document as an error of the command."""
    hint, command = error.hint, error.command
    if isinstance(error, NoAgent):
        start = "a transfer needs the agent: start it, or name its socket with --agent-socket"
        raise AgentUnavailableError(error.message, hint=start) from error
    rule = Rule.find_rule(error.rule)
    if rule is not None:
        raise RefusedError(error.message, rule, hint=hint, command=command) from error
    kinds = {400: InputError, 401: AuthenticationError, 403: AccessDeniedError, 404: TransferNotFoundError}
    raise kinds.get(error.status or 0, TransferError)(error.message, hint=hint, command=command) from error
