"""`ringfence policy reach`: where data of each zone can end, offline."""

from __future__ import annotations

from pathlib import Path

import click

from ringfence_zones.cli import exits
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.policy_file import policy_option
from ringfence_zones.cli.render import counted, print_json, shown
from ringfence_zones.errors import InputError
from ringfence_zones.findings import findings_json
from ringfence_zones.memberships import load_memberships
from ringfence_zones.policy import Policy, load_policy
from ringfence_zones.reach import ReachGraph, ReachPath, ReachReport

_CLEAR = "clear"


@click.command()
@policy_option(required=True)
@click.option("--from", "source", metavar="ZONE", help="only data of this zone")
@click.option("--to", "target", metavar="ZONE", help="only what ends there: a zone, a place of 'outside', or 'clear'")
@click.option(
    "--groups",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="who is in which group, as `hdfs groups USER...` prints it",
)
@click.option("--keys-alone", is_flag=True, help="count who holds both keys, also where HDFS's rights forbid the write")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, metavar="N")
@global_options
@click.pass_context
def reach(
    click_context: click.Context,
    context: CommandContext,
    *,
    policy_file: Path,
    source: str | None,
    target: str | None,
    groups: Path | None,
    keys_alone: bool,
    limit: int,
) -> None:
    """Show how data of one zone can end where the policy does not lead; exit 3 when it can.

    Steps are the edges of 'flows' and 'outside', and whoever holds two zones' keys and may write in the second. Each
    pair of places is shown once, by its shortest path; with --from and --to every path between the two is.
    """
    policy = load_policy(policy_file)
    graph = ReachGraph(policy, load_memberships(groups) if groups else None, keys_alone=keys_alone)
    report = graph.report(_sources(graph, source), _targets(graph, source, target), limit=limit)
    notes = _notes(policy, report, groups=groups, keys_alone=keys_alone)
    offending = [path for path in report.paths if not path.declared]
    if context.json:
        print_json(_json(report, offending, notes))
    else:
        _print(report, notes, between=source is not None and target not in (None, _CLEAR))
    click_context.exit(exits.FINDINGS if report.undeclared else exits.DONE)


def _sources(graph: ReachGraph, name: str | None) -> list[str] | None:
    if name is None:
        return None
    return [_known(name, graph.zones, "--from", "a zone root of the policy")]


def _targets(graph: ReachGraph, source: str | None, name: str | None) -> list[str] | None:
    if name is None:
        return None
    if name == _CLEAR:
        return graph.clear_places
    wanted = "a zone root of the policy, a place of its 'outside', or  clear"
    found = _known(name, [*graph.zones, *graph.clear_places], "--to", wanted)
    if source is not None and found == _known(source, graph.zones, "--from", wanted):
        raise InputError(f"--from and --to are both {found}", hint="data of a zone is in it already")
    return [found]


def _known(name: str, places: list[str], option: str, wanted: str) -> str:
    place = name.rstrip("/") or name
    if place in places:
        return place
    around = [each for each in places if place.startswith(f"{each}/")]
    hint = f"name the root {max(around, key=len)}" if around else f"known: {', '.join(places[:10]) or 'none'}"
    raise InputError(f"{option} {name} is not {wanted}", hint=hint)


def _json(report: ReachReport, offending: list[ReachPath], notes: list[str]) -> dict[str, object]:
    return {
        "schema": 1,
        "paths": [path.to_json() for path in report.paths],
        "undeclared": report.undeclared,
        "declared": report.declared,
        "left_out": report.left_out,
        "more": report.more,
        "notes": notes,
        **findings_json(path.to_finding() for path in offending),
    }


def _print(report: ReachReport, notes: list[str], *, between: bool) -> None:
    for path in report.paths:
        verdict = "the policy leads there" if path.declared else "the policy does not lead there"
        click.echo(f"{shown(path.source)} -> {shown(path.target)}  {counted(len(path.steps), 'step')}; {verdict}")
        for step in path.steps:
            ways = "; ".join(map(str, step.ways))
            click.echo(shown(f"    {step.source} -> {step.target}  ({ways})"))
    what = "path" if between else "pair"
    click.echo(
        f"{counted(report.undeclared, f'undeclared {what}')}, {counted(report.declared, f'declared {what}')}"
        if report.undeclared or report.declared
        else "no path"
    )
    for note in notes:
        click.echo(f"note: {note}")


def _notes(policy: Policy, report: ReachReport, *, groups: Path | None, keys_alone: bool) -> list[str]:
    notes = []
    if report.left_out:
        notes.append(f"{counted(report.left_out, 'undeclared pair')} left out; --limit shows more")
    if report.more:
        notes.append("there are further, longer paths; --limit shows more")
    if policy.flows is None:
        notes.append("the policy has no 'flows', so it leads from every zone to every other")
    if report.key_pairs and not keys_alone:
        pairs = counted(report.key_pairs, "further pair")
        notes.append(
            f"{pairs} of zones whose keys somebody holds together, kept apart by HDFS's rights alone: --keys-alone"
        )
    if groups is None and any(name.startswith("@") for zone in policy.zones for name in zone.all_readers):
        notes.append("who is in two groups holds what both hold, and no file said who is: --groups")
    if report.read_zones:
        zones = f"{counted(report.read_zones, 'zone')} {'has' if report.read_zones == 1 else 'have'} readers"
        notes.append(f"{zones}, and who reads can store what was read in clear text: no policy prevents that")
    return notes
