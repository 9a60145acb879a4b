"""`ringfence key`: the keys of a key server, and who may do what with them."""

from __future__ import annotations

import click


@click.group()
def key() -> None:
    """Keys and who may use them."""


@key.group()
def acl() -> None:
    """Who may do what on which key, and which line says so."""
