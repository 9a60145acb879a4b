"""`ringfence plan`: what would change, before anything does. Read-only."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ringfence_zones.cli import exits
from ringfence_zones.cli.cluster import open_cluster
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.policy_file import DEFAULT_POLICY, policy_option
from ringfence_zones.cli.render import counted, print_findings, print_json, shown
from ringfence_zones.custody import DEFAULT_CUSTODY, custody_word
from ringfence_zones.observe import observe_cluster
from ringfence_zones.plan import Action, ActionKind, Plan, make_plan
from ringfence_zones.policy import load_policy


@click.command()
@policy_option(required=True)
@click.option("--exit-code", is_flag=True, help="exit 3 when there is anything to do or in the way")
@global_options
@click.pass_context
def plan(click_context: click.Context, context: CommandContext, policy_file: Path, exit_code: bool) -> None:
    """Show what `ringfence apply` would change, and what stands in its way."""
    policy = load_policy(policy_file)
    with open_cluster(context) as cluster:
        made = make_plan(policy, observe_cluster(cluster.hdfs, cluster.kms, policy))
    if context.json:
        print_json(made.to_json())
    else:
        print_plan(made, policy_file)
    click_context.exit(exits.FINDINGS if exit_code and not made.is_empty else exits.DONE)


def print_plan(made: Plan, policy_file: Path) -> None:
    """The plan in words: the changes in their order, then the problems."""
    for action in made.actions:
        sign = click.style("~" if action.kind is ActionKind.SET_RIGHTS else "+", fg="green")
        click.echo(f"{sign} {shown(describe_action(action))}")
        for difference in action.detail.get("differences", ()):
            click.echo(f"    {shown(difference)}")
    if made.problems:
        print_findings(made.problems, nothing="")
    if made.refusals:
        click.echo("apply refuses this plan: solve the errors first")
    elif made.actions:
        apply = (
            "ringfence apply"
            if policy_file == DEFAULT_POLICY
            else f"ringfence apply -f {shlex.quote(str(policy_file))}"
        )
        click.echo(f"{counted(len(made.actions), 'change')}; nothing was changed yet: {apply}")
    else:
        click.echo("nothing to do: the cluster is as the policy says")


def describe_action(action: Action) -> str:
    """One action as a line."""
    detail = action.detail
    match action.kind:
        case ActionKind.CREATE_KEY:
            return f"create key {action.key}, {detail['length_bits']} bits{_custody(detail)}, for {action.path}"
        case ActionKind.PUBLISH_POLICY:
            return f"publish policy revision {detail['expected_revision'] + 1}"
        case ActionKind.MAKE_DIRECTORY:
            return f"make directory {action.path}"
        case ActionKind.CREATE_ZONE:
            rolled = ", rolled first because it was there before" if detail["roll_key"] else ""
            return f"make {action.path} an encryption zone with key {action.key}{rolled}"
        case ActionKind.PROVISION_TRASH:
            return f"provision trash in {action.path}"
        case ActionKind.SET_RIGHTS:
            return f"set rights of {action.path}: {_rights(detail)}"


def _custody(detail: Mapping[str, Any]) -> str:
    word = custody_word(detail["attributes"])
    return "" if word == DEFAULT_CUSTODY else f", in custody {word}"


def _rights(detail: Mapping[str, Any]) -> str:
    parts = [f"{name} {detail[name]}" for name in ("owner", "group", "mode") if detail[name] is not None]
    named = [entry for entry in detail["acl"] if not entry.startswith("default:")]
    return ", ".join(parts + named)
