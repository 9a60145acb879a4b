"""`ringfence agent places`: where a job puts what is not finished yet."""

from __future__ import annotations

import click

from ringfence_agent.cli.agent_asking import asking
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import print_json, shown


@click.command()
@click.option("--job", metavar="NAME", help="keeps two jobs of one user apart")
@click.option("--only", type=click.Choice(("staging", "scratch")), help="print this path alone, for a script")
@click.argument("path")
@global_options
def places(context: CommandContext, job: str | None, only: str | None, path: str) -> None:
    """Say where to stage what will be renamed to PATH, in the zone that PATH is in. Nothing is made."""
    with asking(context) as agent:
        found = agent.places(path, job)
    if context.json:
        print_json(found._asdict())
    elif only is not None:
        click.echo(shown(found.staging if only == "staging" else found.scratch))
    else:
        click.echo(f"staging:  {shown(found.staging)}")
        click.echo(f"scratch:  {shown(found.scratch)}")
        click.echo(f"zone:     {shown(found.zone) if found.zone is not None else 'none: stored in clear text'}")
        click.echo(f"why:      {shown(found.why)}")
