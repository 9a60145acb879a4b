"""`ringfence agent grant`: leave for one job to bring data to another zone, asked for, given and ended."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ringfence_agent.cli.agent_asking import asking, duration_s, time_text
from ringfence_agent.client import Grant
from ringfence_zones.cli.command_group import CommandGroup
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import print_json, print_table, shown
from ringfence_zones.errors import InputError

SCHEMA = 1


@click.group(cls=CommandGroup)
def grant() -> None:
    """Leave for one job to bring data between two zones: ask, approve, end."""


@grant.command()
@click.option("--from", "source", required=True, metavar="ZONE", help="the root of the zone that is read")
@click.option("--to", "target", required=True, metavar="ZONE", help="the root of the zone that is written")
@click.option("--for", "life_s", callback=duration_s, required=True, metavar="TIME", help="how long from the approval")
@click.option("--purpose", required=True, metavar="TEXT", help="what it is for, one line")
@click.option("--user", metavar="USER", help="whose job it is  [whoever asks]")
@click.option("--token", type=click.IntRange(min=0), metavar="N", help="its delegation token's sequence number")
@click.option("--address", metavar="IP", help="or the address that its requests to the KMS come from")
@click.option("--application", metavar="ID", help="the YARN application that it ends with")
@global_options
def request(
    context: CommandContext,
    source: str,
    target: str,
    life_s: float,
    purpose: str,
    user: str | None,
    token: int | None,
    address: str | None,
    application: str | None,
) -> None:
    """Ask for a grant. Nothing is admitted until an administrator approves it."""
    if (token is None) == (address is None):
        raise InputError("a grant is for one session: give --token N or --address IP")
    with asking(context) as agent:
        wish = agent.request_grant(
            source, target, life_s, purpose, token=token, address=address, user=user, application=application
        )
    _print(context, [wish], f"grant {wish.id} waits for: ringfence agent grant approve {wish.id}")


@grant.command()
@click.argument("grant_id")
@global_options
def approve(context: CommandContext, grant_id: str) -> None:
    """Give the grant that somebody else asked for."""
    with asking(context) as agent:
        given = agent.approve_grant(grant_id)
    _print(context, [given], f"grant {given.id} is good until {time_text(given.not_after_s)}")


@grant.command("list")
@global_options
def list_grants(context: CommandContext) -> None:
    """List grants and the wishes for them: one's own, or everybody's for an administrator."""
    with asking(context) as agent:
        grants = agent.grants()
    _print(context, grants, None)


@grant.command()
@click.argument("grant_id")
@global_options
def end(context: CommandContext, grant_id: str) -> None:
    """End a grant at once, or take a wish back."""
    with asking(context) as agent:
        agent.end_grant(grant_id)
    if context.json:
        print_json({"schema": SCHEMA, "ended": grant_id})
    else:
        click.echo(f"grant {shown(grant_id)} has ended")


def _print(context: CommandContext, grants: Sequence[Grant], sentence: str | None) -> None:
    if context.json:
        print_json({"schema": SCHEMA, "grants": [each._asdict() for each in grants]})
    elif sentence is not None:
        click.echo(sentence)
    elif not grants:
        click.echo("there is no grant")
    else:
        rows = [
            (
                each.id,
                each.state,
                each.user,
                each.source,
                each.target,
                time_text(each.not_after_s),
                each.approver or "-",
                each.purpose,
            )
            for each in grants
        ]
        print_table(("ID", "STATE", "USER", "FROM", "TO", "UNTIL", "APPROVED BY", "PURPOSE"), rows)
