"""What commands say of runs of a journal: their steps before, and what goes on meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from ringfence_bootstrap.journal import Step
from ringfence_zones.cli.context import CommandContext
from ringfence_zones.cli.render import shown


def show_steps(steps: Sequence[Step]) -> None:
    """The plan, for people, and that nothing was changed."""
    for number, step in enumerate(steps, start=1):
        click.echo(f"  {number}. {shown(step.title)}")
    click.echo("nothing was changed; give --yes to go on")


def saying(context: CommandContext) -> Callable[[str], None]:
    """Tells what goes on, on standard error; nobody with `--json`."""
    return (lambda _text: None) if context.json else (lambda text: click.echo(shown(text), err=True))
