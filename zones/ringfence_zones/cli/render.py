"""How commands print: findings, tables, JSON. Plain text that survives a pipe, colour only on a terminal.

Names come from clusters and documents: control and direction characters in them are shown as escapes, so that no
name can rewrite the screen.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ringfence_zones.findings import Finding, Severity

_COLOURS = {Severity.ERROR: "red", Severity.WARN: "yellow", Severity.INFO: "cyan"}
# Wide enough that a pipe never wraps a path.
_PIPE_WIDTH = 500
_SHOWN_NAMES = 5


def shown(text: str) -> str:
    """`text` with every control, format and unpaired character as an escape."""
    return "".join(char if unicodedata.category(char)[0] != "C" else ascii(char)[1:-1] for char in text)


def print_json(value: Any) -> None:
    """One JSON document on standard output, letters as they are."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    click.echo(text.encode("utf-8", "backslashreplace").decode())


def print_findings(findings: Sequence[Finding], *, nothing: str, err: bool = False) -> None:
    """Each finding with its hint and its command, then how many; `nothing` when there are none."""
    for finding in findings:
        severity = click.style(f"{finding.severity.value:<5}", fg=_COLOURS[finding.severity])
        click.echo(f"{severity} {finding.rule.value}  {shown(finding.path)}: {shown(finding.message)}", err=err)
        click.echo(f"      hint: {shown(finding.hint)}", err=err)
        if finding.command:
            click.echo(f"      run:  {shown(finding.command)}", err=err)
    click.echo(counted(len(findings), "finding") if findings else nothing, err=err)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table without lines; every cell on one row."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ignore")
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    # Never narrower than its lines when piped; rich pads the last column, which nobody wants in a pipe.
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, markup=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def counted(count: int, noun: str) -> str:
    """`1 zone`, `2 zones`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(noun: str, names: Sequence[str]) -> str:
    """`key a`, `keys a, b`; of many the first few and how many more."""
    left_out = len(names) - _SHOWN_NAMES
    more = f" and {left_out} more" if left_out > 0 else ""
    return f"{noun}{'' if len(names) == 1 else 's'} {', '.join(names[:_SHOWN_NAMES])}{more}"
