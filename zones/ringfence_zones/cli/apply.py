"""`ringfence apply`: makes the cluster as the policy says; running it again changes nothing."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ringfence_zones.apply import ApplyResult, Boundary, Moment, OnStep, apply_plan
from ringfence_zones.cli import exits
from ringfence_zones.cli.cluster import Cluster, open_cluster
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.policy_file import policy_option
from ringfence_zones.cli.render import counted, print_findings, print_json, shown
from ringfence_zones.client_config import read_client_config
from ringfence_zones.errors import PlanRefusedError
from ringfence_zones.kms_admin import AdminClient, open_admin_client
from ringfence_zones.observe import observe_cluster
from ringfence_zones.plan import ActionKind, Plan, make_plan
from ringfence_zones.policy import Policy, load_policy

APPLY_SCHEMA = 1
# How the summary counts each kind of action: one, many.
_COUNTED = {
    ActionKind.CREATE_KEY: ("key created", "keys created"),
    ActionKind.MAKE_DIRECTORY: ("directory made", "directories made"),
    ActionKind.CREATE_ZONE: ("zone created", "zones created"),
    ActionKind.PROVISION_TRASH: ("trash provisioned", "trashes provisioned"),
    ActionKind.SET_RIGHTS: ("directory's rights set", "directories' rights set"),
}


@click.command()
@policy_option(required=True)
@global_options
@click.pass_context
def apply(click_context: click.Context, context: CommandContext, policy_file: Path) -> None:
    """Make the cluster as the policy says: keys, zones, trash, rights.

    Idempotent: run again after a failure, it finishes what is missing. Exits with 1 when anything failed.
    """
    on_terminal = not context.json and sys.stderr.isatty()
    try:
        plan, result = run_apply(context, policy_file, lambda plan: _progress(plan, visible=on_terminal))
    except PlanRefusedError as error:
        if not context.json:
            raise
        print_json(refusal_json(error))
        click_context.exit(exits.FAILED)
    if context.json:
        print_json(result_json(result, plan))
    else:
        print_result(result, plan)
    click_context.exit(exits.DONE if result.is_complete else exits.FAILED)


def run_apply(
    context: CommandContext, policy_file: Path, watch: Callable[[Plan], AbstractContextManager[OnStep]]
) -> tuple[Plan, ApplyResult]:
    """The whole command without its output. `watch` sees the plan, and each boundary of its execution."""
    policy = load_policy(policy_file)
    with open_cluster(context) as cluster:
        return apply_policy(context, cluster, policy, watch)


def apply_policy(
    context: CommandContext,
    cluster: Cluster,
    policy: Policy,
    watch: Callable[[Plan], AbstractContextManager[OnStep]] = lambda _plan: nullcontext(lambda _boundary: None),
) -> tuple[Plan, ApplyResult]:
    """The same for a policy that was read, on a cluster that is open. Raises PlanRefusedError."""
    plan = make_plan(policy, observe_cluster(cluster.hdfs, cluster.kms, policy))
    admin = _admin(context, cluster, plan)
    with watch(plan) as on_step:
        return plan, apply_plan(plan, cluster.hdfs, cluster.kms, admin, on_step)


def result_json(result: ApplyResult, plan: Plan) -> dict[str, Any]:
    """What `apply --json` prints: ids of actions as the plan has them, errors as sentences."""
    return {
        "schema": APPLY_SCHEMA,
        "revision": result.revision if result.revision is not None else plan.revision,
        "done": [action.id for action in result.done],
        "failed": [
            {
                "id": failure.action.id,
                "path": failure.action.path,
                "key": failure.action.key,
                "message": failure.error.message,
                "hint": failure.error.hint,
                "command": failure.error.command,
            }
            for failure in result.failed
        ],
        "not_attempted": [action.id for action in result.not_attempted],
        "problems": [problem.to_json() for problem in plan.problems],
    }


def refusal_json(error: PlanRefusedError) -> dict[str, Any]:
    """The same shape for a plan that was refused: nothing was done, the problems say why."""
    return {
        "schema": APPLY_SCHEMA,
        "revision": None,
        "done": [],
        "failed": [],
        "not_attempted": [],
        "problems": [problem.to_json() for problem in error.findings],
    }


def _admin(context: CommandContext, cluster: Cluster, plan: Plan) -> AdminClient | None:
    """Opened before anything is changed: without a way to publish, nothing is begun."""
    if plan.refusals or not any(action.kind is ActionKind.PUBLISH_POLICY for action in plan.actions):
        return None
    config = read_client_config(context.hadoop_conf, os.environ)
    return open_admin_client(config, cluster.kms.uri, access=cluster.hdfs.access)


@contextmanager
def _progress(plan: Plan, *, visible: bool) -> Iterator[OnStep]:
    if not visible or not plan.actions:
        yield lambda _boundary: None
        return
    columns = (TextColumn("applying"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("apply", total=len(plan.actions))

        def on_step(boundary: Boundary) -> None:
            if boundary.moment is Moment.AFTER:
                progress.advance(task)

        yield on_step


def print_result(result: ApplyResult, plan: Plan) -> None:
    """What was done, and on standard error what was not."""
    if plan.problems:
        print_findings(plan.problems, nothing="")
    if not plan.actions:
        click.echo("nothing to do: the cluster is as the policy says")
        return
    counts = Counter(action.kind for action in result.done)
    parts = [f"{counts[kind]} {names[counts[kind] != 1]}" for kind, names in _COUNTED.items() if counts[kind]]
    if result.revision is not None:
        parts.append(f"policy revision {result.revision} published")
    click.echo(f"done: {', '.join(parts) or 'nothing'}")
    for failure in result.failed:
        click.echo(f"failed: {shown(failure.action.id)}: {shown(failure.error.message)}", err=True)
        if failure.error.hint:
            click.echo(f"  hint: {shown(failure.error.hint)}", err=True)
        if failure.error.command:
            click.echo(f"  run:  {shown(failure.error.command)}", err=True)
    if result.not_attempted:
        steps = counted(len(result.not_attempted), "step")
        click.echo(f"not attempted, because a step before failed: {steps}", err=True)
    if not result.is_complete:
        click.echo("remove the cause and run the same command again: it does what is missing", err=True)
