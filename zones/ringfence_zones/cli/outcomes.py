"""How the commands below `ringfence doctor` print what came of each check."""

from __future__ import annotations

from collections.abc import Iterable

import click

from ringfence_zones.cli.render import shown
from ringfence_zones.named_checks import Outcome


def print_outcomes(outcomes: Iterable[Outcome]) -> None:
    """One line each: fine, something found, or why it was not checked. The findings are printed apart."""
    for outcome in outcomes:
        if outcome.not_checked is not None:
            click.echo(shown(f"--    {outcome.name:<15} not checked: {outcome.not_checked}"))
        else:
            click.echo(shown(f"{'!!' if outcome.findings else 'ok'}    {outcome.name:<15} {outcome.meaning}"))
