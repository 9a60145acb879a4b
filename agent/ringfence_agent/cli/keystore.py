"""`ringfence keystore`: where keys rest and what protects them. Commands for those who keep the key server alive."""

from __future__ import annotations

import click

from ringfence_zones.cli.component_group import ComponentGroup


@click.group(cls=ComponentGroup)
def keystore() -> None:
    """Where keys rest, and what protects them."""
