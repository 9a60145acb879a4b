"""`ringfence policy`: the document itself, offline. Nothing here needs a cluster."""

from __future__ import annotations

from pathlib import Path

import click

from ringfence_zones.cli import exits
from ringfence_zones.cli.command_group import CommandGroup
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.policy_file import policy_option
from ringfence_zones.cli.policy_reach import reach
from ringfence_zones.cli.policy_replay import replay_command
from ringfence_zones.cli.policy_test import run_policy_cases
from ringfence_zones.cli.render import counted, print_findings, print_json, shown
from ringfence_zones.errors import PolicyError
from ringfence_zones.findings import findings_json
from ringfence_zones.hadoop_xml import read_document
from ringfence_zones.model import EncryptionZone
from ringfence_zones.moves import MoveDecision, decide_move
from ringfence_zones.paths import HdfsPath
from ringfence_zones.policy import load_policy
from ringfence_zones.stock_acls import stock_acls


@click.group(cls=CommandGroup)
def policy() -> None:
    """Look at a policy document, offline."""


policy.add_command(run_policy_cases)
policy.add_command(reach)
policy.add_command(replay_command)


@policy.command()
@policy_option(required=True)
@global_options
@click.pass_context
def lint(click_context: click.Context, context: CommandContext, policy_file: Path) -> None:
    """Say everything that is wrong with the document; exit 3 when anything is."""
    try:
        loaded = load_policy(policy_file)
    except PolicyError as error:
        if not error.findings:
            raise
        if context.json:
            print_json(findings_json(error.findings))
        else:
            print_findings(error.findings, nothing="")
        click_context.exit(exits.FINDINGS)
    if context.json:
        print_json(findings_json(()))
    else:
        click.echo(f"{policy_file}: {counted(len(loaded.zones), 'zone')}, nothing wrong")


@policy.command("decide-move")
@policy_option(required=True)
@click.option("--user", required=True, metavar="USER", help="who would move")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="a group of USER; may be given again")
@click.argument("src")
@click.argument("dst")
@global_options
def decide_move_command(
    context: CommandContext, policy_file: Path, user: str, groups: tuple[str, ...], src: str, dst: str
) -> None:
    """Say whether USER may rename or transfer SRC to DST, were the zones as the policy says. Always exits 0."""
    loaded = load_policy(policy_file)
    zones = [EncryptionZone(zone.path, zone.key) for zone in loaded.zones]
    decision = decide_move(loaded, zones, user=user, groups=groups, src=HdfsPath.parse(src), dst=HdfsPath.parse(dst))
    if context.json:
        print_json(decision.to_json())
    else:
        print_decision(decision)


@policy.command()
@policy_option(required=True)
@click.option(
    "--merge",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="the KMS's kms-acls.xml: print it with the policy's ACLs in it",
)
@global_options
def acls(context: CommandContext, policy_file: Path, merge: Path | None) -> None:
    """Print the policy as the kms-acls.xml of Hadoop's own KMS.

    Ringfence's KMS needs no such file: it enforces the published policy itself. What a stock KMS cannot express is
    refused. GET, which hands out key material, is closed for every key, for a stock KMS cannot close it for some.
    """
    existing = read_document(merge) if merge is not None else None
    made = stock_acls(load_policy(policy_file), existing, str(merge))
    if context.json:
        print_json({"properties": dict(made.properties)})
    else:
        click.echo(made.document, nl=False)


def print_decision(decision: MoveDecision) -> None:
    """The decision in words."""
    click.echo(f"rename:    {'allowed' if decision.rename else 'refused'}")
    click.echo(f"transfer:  {'allowed' if decision.transfer else 'refused'}")
    click.echo(f"same zone: {'yes' if decision.same_zone else 'no'}")
    if decision.rule is not None:
        click.echo(f"rule:      {decision.rule.value}: {decision.rule.meaning}")
    if decision.reason is not None:
        click.echo(f"reason:    {shown(decision.reason)}")
    if decision.command is not None:
        click.echo(f"run:       {shown(decision.command)}")


@policy.command()
@click.option("--cases", is_flag=True, help="the schema of the cases that `policy test` reads")
@global_options
def schema(_context: CommandContext, *, cases: bool) -> None:
    """Print the document's JSON Schema, which editors use for completion."""
    from ringfence_zones.schemas import read_schema  # noqa: PLC0415 - builds models that nothing else needs

    click.echo(read_schema("cases" if cases else "policy"), nl=False)
