"""`ringfence emr security-config create | show | list | delete | audit`: security configurations in the account."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ringfence_bootstrap.account import configurations
from ringfence_bootstrap.account.audit import AuditReport, audit, iso_time, needs_action
from ringfence_bootstrap.account.connection import AwsPlace, Connection
from ringfence_bootstrap.account.emr_calls import EmrCalls, check_name
from ringfence_bootstrap.cli.account_options import account_options
from ringfence_bootstrap.releases import parse_release
from ringfence_bootstrap.security_configuration.lint import lint
from ringfence_bootstrap.security_configuration.output_members import without_output_members
from ringfence_bootstrap.security_configuration.reading import read_document
from ringfence_zones.cli import exits
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import counted, print_findings, print_json, print_table, shown
from ringfence_zones.errors import DocumentError, PlanRefusedError
from ringfence_zones.findings import Severity, findings_json

_file = click.Path(path_type=Path, allow_dash=True)
_NOTHING = "-"


@click.command()
@click.argument("name")
@click.argument("file", metavar="FILE", type=_file)
@click.option("--release", "label", required=True, metavar="LABEL", help="the release that it is for: emr-7.12.0")
@account_options
@global_options
def create(context: CommandContext, name: str, file: Path, label: str, place: AwsPlace) -> None:
    """Store FILE under NAME in the account, once it is without errors for the release.

    A security configuration is never changed: the same document under the same name is nothing to do, another one is
    refused. Clusters take it when they are created. FILE may be - for standard input.
    """
    check_name(name)
    document = read_document(file)
    calls = _calls(place)
    release = parse_release(label)
    found = lint(document, release, region=calls.region)
    errors = [each for each in found if each.severity is Severity.ERROR]
    if errors:
        raise PlanRefusedError(
            f"{file} was not stored: {counted(len(errors), 'error')} for {label} in {calls.region}",
            errors,
            hint="mend them; `ringfence emr security-config lint` says the same offline, with warnings",
        )
    is_new = configurations.create(calls, name, document, release)
    if context.json:
        outcome = {"schema": 1, "name": name, "region": calls.region, "created": is_new}
        print_json(outcome | findings_json(found))
        return
    if not is_new:
        click.echo(f"nothing to do: {shown(name)} is this document")
        return
    for each in found:
        if each.severity is not Severity.WARN and not context.verbose:
            continue
        click.echo(f"{each.severity.value:<5} {shown(each.path)}: {shown(each.message)}", err=True)
    click.echo(f"stored {shown(name)} in {calls.region}")


@click.command()
@click.argument("name")
@click.option("--reusable", is_flag=True, help="without what EMR itself added, so that it can be created again")
@account_options
@global_options
def show(context: CommandContext, name: str, place: AwsPlace, *, reusable: bool) -> None:
    """Print the document of NAME as the account has it; with --json also since when."""
    stored = configurations.get(_calls(place), check_name(name))
    try:
        document = configurations.document_of(stored)
    except DocumentError:
        # Whatever is there is shown: nobody can mend what cannot be seen.
        click.echo(shown_lines(stored.text))
        return
    plain = without_output_members(document) if reusable else document
    if context.json:
        created = iso_time(stored.created)
        print_json({"schema": 1, "name": stored.name, "created": created, "document": plain.to_json()})
    else:
        click.echo(json.dumps(plain.to_json(), indent=2))


@click.command("list")
@account_options
@global_options
def list_command(context: CommandContext, place: AwsPlace) -> None:
    """List the security configurations of the account in the region."""
    calls = _calls(place)
    found = calls.list_security_configurations()
    if context.json:
        entries = [{"name": each.name, "created": iso_time(each.created)} for each in found]
        print_json({"schema": 1, "region": calls.region, "configurations": entries})
    elif found:
        print_table(["NAME", "CREATED"], [[each.name, iso_time(each.created) or _NOTHING] for each in found])
    else:
        click.echo(f"no security configuration in {calls.region}")


@click.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="also while clusters that are not down were made with it")
@account_options
@global_options
def delete(context: CommandContext, name: str, place: AwsPlace, *, yes: bool) -> None:
    """Remove NAME from the account. Refused while clusters that are not down were made with it.

    What it held is printed, so that it can be created again.
    """
    calls = _calls(place)
    # Before it is gone: what could not be printed, on a full disk say, nobody has any more.
    told = None if context.json else lambda stored: click.echo(shown_lines(stored.text))
    stored, users = configurations.delete(calls, check_name(name), used_too=yes, before=told)
    if context.json:
        clusters = [each.cluster_id for each in users]
        print_json({"schema": 1, "name": name, "deleted": True, "clusters": clusters, "document": stored.text})
        return
    click.echo(f"deleted {shown(name)} from {calls.region}; the document above was it", err=True)
    for each in users:
        click.echo(f"cluster {shown(each.label)} goes on with it", err=True)


@click.command("audit")
@click.option(
    "-f", "--file", "file", metavar="FILE", type=_file, help="the document that clusters are to have; others are found"
)
@click.option("--only", "pattern", metavar="PATTERN", help="only configurations of such names: 'analytics-*'")
@account_options
@global_options
@click.pass_context
def audit_command(
    click_context: click.Context, context: CommandContext, file: Path | None, pattern: str | None, place: AwsPlace
) -> None:
    """Say which clusters and security configurations leave data unencrypted, and why; exit 3 when any does.

    Every cluster that is not down is looked at, with what its release makes of its configuration. With -f also clusters
    that were created with another document, which they keep until they are created anew. With -v also what is only
    worth knowing. Asks AWS slowly, for all its callers share one rate: 100 clusters take about two minutes.
    """
    wanted = read_document(file) if file is not None else None
    calls = _calls(place)
    say: Callable[[str], None] = _say if context.verbose else lambda _text: None
    report = audit(calls, wanted=wanted, pattern=pattern, say=say)
    if context.json:
        print_json(report.to_json() | {"region": calls.region})
    else:
        _print_report(report, context, calls.region, named=wanted.name if wanted is not None else None)
    if needs_action(report.findings):
        click_context.exit(exits.FINDINGS)


def shown_lines(text: str) -> str:
    """Several lines, each without what could rewrite the screen."""
    return "\n".join(shown(line.replace("\t", "    ")) for line in text.split("\n"))


def _say(text: str) -> None:
    click.echo(shown(text), err=True)


def _calls(place: AwsPlace) -> EmrCalls:
    return EmrCalls(Connection(place))


def _print_report(report: AuditReport, context: CommandContext, region: str, *, named: str | None) -> None:
    rows: list[list[str]] = [
        [
            each.cluster_id,
            each.name,
            each.state,
            each.release_label or _NOTHING,
            each.security_configuration or "none",
        ]
        for each in report.clusters
    ]
    if rows:
        print_table(["CLUSTER", "NAME", "STATE", "RELEASE", "SECURITY CONFIGURATION"], rows)
        click.echo()
    used: list[list[Any]] = [
        [
            each.name,
            iso_time(each.created) or _NOTHING,
            str(len(configurations.users_of(report.clusters, each.name))),
            "yes" if each.name in report.same_document else "no",
        ]
        for each in report.configurations
    ]
    if used:
        columns = ["SECURITY CONFIGURATION", "CREATED", "CLUSTERS"]
        print_table([*columns, "IS THE FILE"] if named else columns, [row if named else row[:3] for row in used])
        click.echo()
    if named is not None and not report.same_document:
        click.echo(f"{shown(named)} is not in the account yet", err=True)
    counts = f"{counted(len(report.clusters), 'cluster')} and {counted(len(used), 'configuration')} in {region}"
    # What is only worth knowing is the same for every cluster of a release.
    found = [each for each in report.findings if context.verbose or each.severity is not Severity.INFO]
    print_findings(found, nothing=f"{counts}: nothing in clear")
