"""`ringfence emr`: what EMR needs to run clusters with Ringfence. Its commands are added by entry points."""

from __future__ import annotations

import click

from ringfence_zones.cli.component_group import ComponentGroup


@click.group(cls=ComponentGroup)
def emr() -> None:
    """Ringfence on Amazon EMR."""
