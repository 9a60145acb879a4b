"""`ringfence emr security-config`: security configurations as files. Nothing in this module asks AWS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from ringfence_bootstrap.cli.emr_security_config_new import new
from ringfence_bootstrap.releases import Release, parse_release
from ringfence_bootstrap.security_configuration.clear_data import find_clear_data
from ringfence_bootstrap.security_configuration.cluster import ClusterFacts, read_cluster
from ringfence_bootstrap.security_configuration.compare import Difference, Effect, differences
from ringfence_bootstrap.security_configuration.document import SecurityConfiguration
from ringfence_bootstrap.security_configuration.lint import lint
from ringfence_bootstrap.security_configuration.pem_bundle import check_bundle, node_domain, read_bundle
from ringfence_bootstrap.security_configuration.reading import read_document
from ringfence_zones.cli import exits
from ringfence_zones.cli.component_group import ComponentGroup
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import counted, print_findings, print_json, shown
from ringfence_zones.errors import DocumentError
from ringfence_zones.findings import Finding, Severity, findings_json

_COLOURS = {Effect.STRONGER: "green", Effect.WEAKER: "red", Effect.OTHER: "yellow", Effect.NONE: None}
_release = click.option("--release", "label", metavar="LABEL", help="the release that it is for, such as emr-7.12.0")


@click.group(cls=ComponentGroup, path="emr.security-config")
def security_config() -> None:
    """EMR security configurations: made, checked and compared as files; stored and audited in the account."""


security_config.add_command(new)


@security_config.command("lint")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True))
@_release
@click.option("--region", metavar="REGION", help="the Region that it is for: keys of another one are errors")
@click.option(
    "--cluster",
    "cluster_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="the cluster that it is for: the request of RunJobFlow, or the answer of DescribeCluster",
)
@click.option(
    "--certificates",
    "bundle",
    type=click.Path(path_type=Path),
    metavar="ZIP",
    help="the zip of PEM files that it names, as it lies here",
)
@global_options
@click.pass_context
def lint_command(
    click_context: click.Context,
    context: CommandContext,
    file: Path,
    label: str | None,
    region: str | None,
    cluster_file: Path | None,
    bundle: Path | None,
) -> None:
    """Say everything that is wrong with FILE, offline; exit 3 when EMR or the release would not take it.

    Warnings are for what EMR takes and what is probably not meant, and for what stays in clear. FILE may be - for
    standard input. Without --release nothing is said that depends on it.
    """
    cluster = read_cluster(cluster_file) if cluster_file is not None else None
    release = _chosen_release(label, cluster)
    try:
        found: Sequence[Finding] = lint(read_document(file), release, region=region, cluster=cluster)
    except DocumentError as error:
        found = error.findings
    if bundle is not None:
        domain = node_domain(region) if region is not None else None
        found = [*found, *check_bundle(read_bundle(bundle), str(bundle), release=release, domain=domain)]
    if context.json:
        print_json(findings_json(found))
    else:
        where = f" for {release}" if release is not None else ", without a release"
        print_findings(found, nothing=f"{shown(str(file))}: nothing wrong{where}")
    if any(each.severity is Severity.ERROR for each in found):
        click_context.exit(exits.FINDINGS)


@security_config.command("diff")
@click.argument("one_file", metavar="ONE", type=click.Path(path_type=Path, allow_dash=True))
@click.argument("other_file", metavar="OTHER", type=click.Path(path_type=Path, allow_dash=True))
@_release
@click.option("--exit-code", is_flag=True, help="exit 3 when they differ")
@global_options
@click.pass_context
def diff(
    click_context: click.Context,
    context: CommandContext,
    one_file: Path,
    other_file: Path,
    label: str | None,
    *,
    exit_code: bool,
) -> None:
    """Say what changes from ONE to OTHER, and whether it makes protection stronger or weaker.

    Spelling, order and defaults make no difference. With --release also what stays in clear with the one and not with
    the other.
    """
    release = parse_release(label) if label is not None else None
    one, other = read_document(one_file), read_document(other_file)
    found = differences(one, other)
    cleared, uncovered = _clear_data_changes(one, other, release)
    if context.json:
        document = {
            "differences": [each.to_json() for each in found],
            "clear_no_longer": cleared,
            "clear_anew": uncovered,
        }
        print_json(document)
    else:
        _print_differences(found, cleared, uncovered)
    if found and exit_code:
        click_context.exit(exits.FINDINGS)


def _chosen_release(label: str | None, cluster: ClusterFacts | None) -> Release | None:
    """--release, else the cluster's own."""
    chosen = label or (cluster.release_label if cluster is not None else None)
    return parse_release(chosen) if chosen is not None else None


def _clear_data_changes(
    one: SecurityConfiguration, other: SecurityConfiguration, release: Release | None
) -> tuple[list[str], list[str]]:
    """What stays in clear with the one alone, and with the other alone."""
    before, after = (
        [each.message for each in find_clear_data(document, release) if each.severity is not Severity.INFO]
        for document in (one, other)
    )
    return [each for each in before if each not in after], [each for each in after if each not in before]


def _print_differences(found: Sequence[Difference], cleared: Sequence[str], uncovered: Sequence[str]) -> None:
    for each in found:
        click.echo(f"{click.style(f'{each.effect.value:<8}', fg=_COLOURS[each.effect])} {shown(each.message)}")
    for title, messages in (("no longer in clear", cleared), ("in clear anew", uncovered)):
        for message in messages:
            click.echo(f"{title}: {shown(message)}")
    click.echo(counted(len(found), "difference") if found else "no difference that EMR would notice")
