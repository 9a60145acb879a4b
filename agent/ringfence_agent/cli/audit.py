"""`ringfence audit`: reads what the KMS has decided, from its files alone.

The KMS need not run. Where the files are comes from the same settings that the KMS reads, or from `--dir`, which may be
given several times to read the files of several instances together.
"""

from __future__ import annotations

import calendar
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from ringfence_agent.cli.kms_options import config_option, keystore_option
from ringfence_agent.kms.audit.reader import AuditFiles, Record, find_files, follow, known_sizes
from ringfence_agent.kms.audit.record import OUTCOMES, utc_text
from ringfence_agent.kms.config import Options, find_places
from ringfence_zones.cli.command_group import CommandGroup
from ringfence_zones.cli.context import CommandContext, global_options, hadoop_conf_given
from ringfence_zones.cli.render import shown
from ringfence_zones.config_file import parse_duration_s
from ringfence_zones.errors import ConfigError, InputError

_POLL_S = 0.25
_MOMENT = re.compile(r"(?P<day>\d{4}-\d\d-\d\d)(?:[T ](?P<clock>\d\d:\d\d(?::\d\d)?)(?P<fraction>\.\d+)?)?Z?")

_Command = Callable[..., None]


def _where(command: _Command) -> _Command:
    options = (
        config_option,
        keystore_option,
        click.option(
            "--dir",
            "directories",
            type=click.Path(path_type=Path),
            multiple=True,
            metavar="DIR",
            help="read the audit files in DIR; may be given several times",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(cls=CommandGroup)
def audit() -> None:
    """What the key server has decided, for whom and why."""


@audit.command()
@click.option("-n", "--lines", type=click.IntRange(0, 1_000_000), default=10, show_default=True, metavar="N")
@click.option("-f", "--follow", "follows", is_flag=True, help="go on as records are written, until interrupted")
@_where
@global_options
def tail(
    context: CommandContext,
    *,
    lines: int,
    follows: bool,
    config: Path | None,
    keystore: str | None,
    directories: tuple[Path, ...],
) -> None:
    """Show the newest records of all workers, oldest first. With --json one object a line."""
    places = _directories(config, keystore, directories)
    files = _find(places)
    # The sizes first: what is written while the end is read is then shown twice rather than never. It is not even
    # that, because a record's place is known.
    sizes = known_sizes(files) if follows else {}
    _show(files.last(lines), context.json)
    if follows:
        _show(follow(places, sizes, lambda: time.sleep(_POLL_S)), context.json)
    _warn(files)


@audit.command()
@click.option("--user", metavar="USER", help="who asked, or in whose name, or the Kerberos principal")
@click.option("--key", metavar="KEY")
@click.option("--op", metavar="OP", help="DECRYPT_EEK, CREATE_KEY, ...")
@click.option("--outcome", type=click.Choice(OUTCOMES))
@click.option("--address", metavar="IP")
@click.option("--since", metavar="WHEN", help="2026-11-22, 2026-11-22T06:45:00Z (both UTC), or 2h: so long ago")
@click.option("--until", metavar="WHEN", help="as --since; what lies before it")
@_where
@global_options
def search(
    context: CommandContext,
    *,
    user: str | None,
    key: str | None,
    op: str | None,
    outcome: str | None,
    address: str | None,
    since: str | None,
    until: str | None,
    config: Path | None,
    keystore: str | None,
    directories: tuple[Path, ...],
) -> None:
    """Show the records that match all that is given, in time order. With --json one object a line."""
    files = _find(_directories(config, keystore, directories))
    start, end = _moment("--since", since), _moment("--until", until)
    wanted = {"key": key, "op": op.upper() if op else None, "outcome": outcome, "address": address}
    exact = {name: value for name, value in wanted.items() if value is not None}
    found = (record for record in files.read(start) if _matches(record.fields, user, exact))
    _show(_before(found, end), context.json)
    _warn(files)


def _directories(config: Path | None, keystore: str | None, given: tuple[Path, ...]) -> tuple[Path, ...]:
    if given:
        return given
    places = find_places(Options(config=config, hadoop_conf=hadoop_conf_given(), keystore=keystore))
    return (places.audit_directory,)


def _find(directories: Iterable[Path]) -> AuditFiles:
    try:
        return find_files(directories)
    except OSError as error:
        raise ConfigError(
            f"cannot list the audit files in {error.filename}: {error.strerror}",
            hint="name the KMS's settings with --config, or the directory with --dir; run it as root or the KMS's user",
        ) from error


def _moment(option: str, text: str | None) -> str | None:
    """The text of a UTC time, as records have it. Raises InputError."""
    if text is None:
        return None
    match = _MOMENT.fullmatch(text.strip())
    try:
        if match is None:
            return utc_text(time.time() - parse_duration_s(text))
        clock = match["clock"] or "00:00:00"
        whole = f"{match['day']}T{clock if len(clock) == 8 else clock + ':00'}"
        return utc_text(calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(match["fraction"] or 0))
    except ValueError as error:
        raise InputError(
            f"{option} {text!r} is no time", hint="write 2026-11-22, 2026-11-22T06:45:00Z, or how long ago: 30m, 2h, 7d"
        ) from error


def _matches(fields: dict[str, Any], user: str | None, exact: dict[str, str]) -> bool:
    if user is not None and user not in (fields.get("user"), fields.get("real_user"), fields.get("principal")):
        return False
    return all(fields.get(name) == value for name, value in exact.items())


def _before(records: Iterable[Record], end: str | None) -> Iterator[Record]:
    # Not an early end: after a clock was set back, what belongs to the interval may follow what does not.
    return (record for record in records if end is None or record.time < end)


def _show(records: Iterable[Record], as_json: bool) -> None:
    for record in records:
        sys.stdout.write((record.line.decode("utf-8", "replace").rstrip("\n") if as_json else _text(record)) + "\n")
        sys.stdout.flush()


def _text(record: Record) -> str:
    fields = record.fields
    who = fields.get("user") or "-"
    if fields.get("real_user"):
        who = f"{who} (by {fields['real_user']})"
    identity = f"/{fields['identity']}" if fields.get("identity") else ""
    key = fields.get("key") or "-"
    version = fields.get("version")
    parts = [
        record.time,
        f"{fields.get('outcome'):<8}",
        str(fields.get("op") or "-"),
        key if version is None else f"{key}@{version}",
        f"{who}{identity}",
        str(fields.get("address") or "local"),
        str(fields.get("error") or fields.get("rule") or ""),
    ]
    # What was let through although no flow leads there; what was refused says so in its error.
    flow = fields.get("flow")
    if isinstance(flow, dict) and fields.get("outcome") == "ok":
        parts.append(f"{flow.get('mode')}: no flow from {flow.get('from')} to {flow.get('to')}")
    return shown("  ".join(parts)).rstrip()


def _warn(files: AuditFiles) -> None:
    if files.torn:
        click.echo(f"ringfence: {files.torn} lines could not be read and are left out", err=True)
    if files.skipped:
        click.echo(f"ringfence: {len(files.skipped)} compressed files are left out: unpack them first", err=True)
