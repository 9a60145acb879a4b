"""`ringfence policy replay`: which past accesses a policy would have refused, from the logs alone."""

from __future__ import annotations

from pathlib import Path

import click

from ringfence_zones.cli import exits
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.policy_file import policy_option
from ringfence_zones.cli.render import counted, print_json, shown
from ringfence_zones.config_file import parse_duration_s
from ringfence_zones.errors import InputError
from ringfence_zones.findings import findings_json
from ringfence_zones.memberships import load_memberships
from ringfence_zones.policy import load_policy
from ringfence_zones.replay.judge import Refusal
from ringfence_zones.replay.report import Entry, LogResult, ReplayReport, notes, replay


@click.command("replay")
@policy_option(required=True)
@click.option(
    "--audit",
    "audit",
    type=click.Path(path_type=Path),
    metavar="FILE",
    multiple=True,
    required=True,
    help="an audit log, or several: --audit FILE...",
)
@click.argument("more", type=click.Path(path_type=Path), nargs=-1, metavar="[FILE]...")
@click.option(
    "--groups",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="who is in which group, as `hdfs groups USER...` prints it",
)
@click.option("--window", default="10m", show_default=True, metavar="TIME", help="how long a session remembers a zone")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, metavar="N")
@global_options
@click.pass_context
def replay_command(
    click_context: click.Context,
    context: CommandContext,
    *,
    policy_file: Path,
    audit: tuple[Path, ...],
    more: tuple[Path, ...],
    groups: Path | None,
    window: str,
    limit: int,
) -> None:
    """Show which past accesses the policy would have refused; exit 3 when there are any.

    Reads audit logs of Ringfence's KMS, of Hadoop's (kms-audit.log) and of NameNodes (hdfs-audit.log), plain or gzip,
    in any number, as if zones, keys and rights had been those of the policy. What is certain and what is only possible
    are told apart, and so is what a log does not tell. Exit 1 when a file broke off and nothing was found.
    """
    policy = load_policy(policy_file)
    memberships = load_memberships(groups) if groups is not None else None
    report = replay(policy, (*audit, *more), memberships, _seconds(window))
    told = notes(policy, report, groups_known=groups is not None)
    if context.json:
        print_json(_json(report, limit, told))
    else:
        _print(report, limit, told)
    incomplete = exits.DONE if report.is_complete else exits.FAILED
    click_context.exit(exits.FINDINGS if report.entries else incomplete)


def _seconds(window: str) -> float:
    try:
        return parse_duration_s(window)
    except ValueError as error:
        raise InputError(f"--window {window!r}: {error}") from error


def _json(report: ReplayReport, limit: int, told: list[str]) -> dict[str, object]:
    ranked = report.ranked()
    return {
        "schema": 1,
        "refused": [_entry_json(refusal, entry) for refusal, entry in ranked[:limit]],
        "certain": report.total(certain=True),
        "possible": report.total(certain=False),
        "left_out": max(0, len(ranked) - limit),
        "logs": [log.to_json() for log in report.logs],
        "notes": told,
        **findings_json(report.findings(limit)),
    }


def _entry_json(refusal: Refusal, entry: Entry) -> dict[str, object]:
    return {
        "rule": refusal.rule.value,
        "certain": refusal.certain,
        "user": refusal.user,
        "op": refusal.op,
        "zone": refusal.zone,
        "to": refusal.to,
        "directed": refusal.directed,
        "why": refusal.why,
        "count": entry.count,
        "first": entry.first,
        "last": entry.last,
        "where": entry.where,
    }


def _print(report: ReplayReport, limit: int, told: list[str]) -> None:
    ranked = report.ranked()
    for refusal, entry in ranked[:limit]:
        certainty = click.style("refused ", fg="red") if refusal.certain else click.style("possible", fg="yellow")
        way = "->" if refusal.directed else "and"
        places = refusal.zone if refusal.to is None else f"{refusal.zone} {way} {refusal.to}"
        line = f"{entry.count} x {refusal.user}: {refusal.op}  {places}  [{refusal.rule.value}]"
        click.echo(f"{certainty}  {shown(line)}")
        click.echo(shown(f"          {refusal.why}"))
        when = entry.first if entry.first == entry.last else f"{entry.first} to {entry.last}"
        click.echo(shown(f"          {when}; first in {entry.where}"))
    if len(ranked) > limit:
        click.echo(f"and {len(ranked) - limit} more like these; --limit shows them")
    for log in report.logs:
        _print_log(log)
    certain, possible = report.total(certain=True), report.total(certain=False)
    click.echo(f"{certain} would have been refused, {possible} may have been")
    for note in told:
        click.echo(shown(f"note: {note}"))


def _print_log(log: LogResult) -> None:
    reading, counts = log.reading, log.counts
    told = [f"{counts.judged} judged", f"{counts.failed} refused or failed then", f"{counts.outside} in no zone"]
    told.append(f"{counts.other} of other kinds")
    head = f"{reading.kind.value}: {counted(len(reading.files), 'file')}, {counted(reading.lines, 'line')}"
    click.echo(f"{head}: {', '.join(told)}")
    if reading.unreadable:
        places = ", ".join(reading.unreadable_at)
        more = ", ..." if reading.unreadable > len(reading.unreadable_at) else ""
        click.echo(shown(f"    {counted(reading.unreadable, 'line')} could not be read: {places}{more}"))
    for broken in reading.broken:
        click.echo(shown(f"    broke off at {broken}"))
