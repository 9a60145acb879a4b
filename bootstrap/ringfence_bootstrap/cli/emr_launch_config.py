"""`ringfence emr launch-config`: what launches a cluster, from one document that is checked first."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ringfence_bootstrap.launch.cloudformation import cloudformation_template
from ringfence_bootstrap.launch.reading import Launch, read_launch
from ringfence_bootstrap.launch.reconfiguration import find_impossible_changes
from ringfence_bootstrap.launch.run_job_flow import holds_passwords, run_job_flow_request
from ringfence_bootstrap.launch.service_model import check_run_job_flow
from ringfence_bootstrap.launch.terraform import terraform_document
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import print_json, shown
from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import ConfigError, DocumentError
from ringfence_zones.findings import Finding, findings_json

DEFAULT_CLUSTER = Path("cluster.yaml")
LAUNCH_SCHEMA = 1
_PATH = click.Path(path_type=Path)


def _run_job_flow(launch: Launch) -> dict[str, Any]:
    request = run_job_flow_request(launch)
    check_run_job_flow(request)
    return request


_FORMATS: dict[str, Callable[[Launch], dict[str, Any]]] = {
    "run-job-flow": _run_job_flow,
    "terraform": terraform_document,
    "cloudformation": cloudformation_template,
}


@click.command("launch-config")
@click.option(
    "-f", "--file", "cluster_file", type=_PATH, default=DEFAULT_CLUSTER, metavar="FILE", help="the cluster document"
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(_FORMATS)),
    default="run-job-flow",
    show_default=True,
    help="run-job-flow: the request of RunJobFlow, for SDKs (the AWS CLI takes none); terraform: a .tf.json file",
)
@click.option("--output", type=_PATH, metavar="FILE", help="write it there, for its owner alone  [standard output]")
@click.option(
    "--running", type=_PATH, metavar="FILE", help="the document of a cluster that runs: refuse what cannot be changed"
)
@global_options
def launch_config(
    context: CommandContext, *, cluster_file: Path, form: str, output: Path | None, running: Path | None
) -> None:
    """Write what launches a cluster: classifications, bootstrap action, steps, security configuration.

    The document is checked first, offline: what EMR would reject at launch, or fail over an hour later, is refused
    with its line (exit 2) and nothing is written. Warnings go to standard error.
    """
    launch = read_launch(cluster_file)
    if running is not None:
        changes = find_impossible_changes(read_launch(running), launch, str(cluster_file))
        if changes:
            raise DocumentError(f"the cluster of {running} cannot become that of {cluster_file}", changes)
    document = _FORMATS[form](launch)
    if output is None and form == "run-job-flow" and holds_passwords(document):
        raise ConfigError(
            "the request holds Kerberos passwords, which belong on no screen and in no pipe",
            hint="give --output FILE: it is written for its owner alone; remove it when the cluster is launched",
        )
    if output is not None:
        _write(output, document)
    if context.json:
        print_json(_result(form, document if output is None else None, output, launch.warnings))
        return
    _print_warnings(launch.warnings)
    if output is None:
        print_json(document)
    else:
        click.echo(f"written: {output}", err=True)


def _write(output: Path, document: dict[str, Any]) -> None:
    try:
        replace_file(output, (json.dumps(document, indent=2) + "\n").encode())
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror}") from error


def _result(
    form: str, document: dict[str, Any] | None, output: Path | None, warnings: Sequence[Finding]
) -> dict[str, Any]:
    out: dict[str, Any] = {"schema": LAUNCH_SCHEMA, "format": form}
    out |= {"document": document} if output is None else {"output": os.fspath(output)}
    return out | findings_json(warnings)


def _print_warnings(warnings: Sequence[Finding]) -> None:
    for finding in warnings:
        click.echo(f"{finding.severity.value}: {shown(finding.path)}: {shown(finding.message)}", err=True)
        click.echo(f"      hint: {shown(finding.hint)}  [{finding.rule.value}]", err=True)
