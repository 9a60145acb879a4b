"""`ringfence emr step`: what steps of an EMR cluster run on its primary node."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ringfence_bootstrap.node import places
from ringfence_bootstrap.node.configuration import read_node_config
from ringfence_bootstrap.node.facts import read_node_facts
from ringfence_bootstrap.zones_step.expected_kms import parse_expected_kms
from ringfence_bootstrap.zones_step.log_place import LogPlace, find_log_place
from ringfence_bootstrap.zones_step.step import Outcome, ZonesStep, run_zones_step
from ringfence_zones.cli import exits
from ringfence_zones.cli.apply import print_result
from ringfence_zones.cli.command_group import CommandGroup
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import print_json, shown
from ringfence_zones.client_config import is_secure
from ringfence_zones.config_file import parse_duration_s
from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import InputError, InstallError

DEFAULT_WAIT = "15m"
_MAX_WAIT_S = 86_400
_SHA256_DIGITS = 64


@click.group(cls=CommandGroup)
def step() -> None:
    """What steps of a cluster run on its primary node."""


@step.command()
@click.option("--policy", required=True, metavar="FILE|s3://...", help="the policy document")
@click.option("--policy-sha256", metavar="HEX", help="what it must be; another one is refused")
@click.option(
    "--kms",
    "expected",
    required=True,
    metavar="ringfence|existing|URI",
    help="the KMS that the NameNode has to name before a zone is made",
)
@click.option("--tls", is_flag=True, help="its address has to be an https one")
@click.option("--wait", default=DEFAULT_WAIT, show_default=True, metavar="TIME", help="for HDFS and its KMS, at most")
@click.option("--log-uri", metavar="s3://...", help="the cluster's, to say where EMR copies this step's log")
@click.option(
    "--status", "status_file", type=click.Path(path_type=Path), metavar="FILE", help="write the status object there too"
)
@global_options
@click.pass_context
def zones(
    click_context: click.Context,
    context: CommandContext,
    *,
    policy: str,
    policy_sha256: str | None,
    expected: str,
    tls: bool,
    wait: str,
    log_uri: str | None,
    status_file: Path | None,
) -> None:
    """Wait for HDFS and its KMS, then apply the policy: keys and zones, one key for each zone.

    Nothing is made until the NameNode itself names the KMS that is expected. Run again after a failure or a kill, it
    finishes what is missing. Exits with 1 when zones are not as the policy has them.
    """
    told = ZonesStep(policy, _sha256(policy_sha256), parse_expected_kms(expected, tls=tls), _wait_s(wait))
    place = find_log_place(log_uri, read_node_facts().cluster_id, Path.cwd())
    click.echo(f"zones step: its log is in {place}", err=True)
    outcome = run_zones_step(_as_superuser(context), told, _say)
    status = {**outcome.status, "log": _log_json(place)}
    if status_file is not None:
        _write(status_file, status)
    if context.json:
        print_json(status)
    elif outcome.error is not None:
        exits.print_error(outcome.error)
    elif outcome.plan is not None and outcome.result is not None:
        print_result(outcome.result, outcome.plan)
    click.echo(f"zones step: {outcome.state}; log: {place}", err=True)
    click_context.exit(_code(outcome))


def _say(text: str) -> None:
    click.echo(f"zones step: {shown(text)}", err=True)


def _as_superuser(context: CommandContext) -> CommandContext:
    """Root is nobody to HDFS: under simple authentication the step acts as the superuser of bootstrap.yaml."""
    if context.as_user is not None or os.environ.get("HADOOP_USER_NAME") or not places.BOOTSTRAP_CONFIG.exists():
        return context
    if is_secure(context.hadoop_conf):
        return context
    return replace(context, as_user=read_node_config(places.BOOTSTRAP_CONFIG).superuser)


def _code(outcome: Outcome) -> int:
    if outcome.error is not None:
        return exits.exit_code(outcome.error)
    return exits.DONE if outcome.result is not None and outcome.result.is_complete else exits.FAILED


def _sha256(text: str | None) -> str | None:
    if text is not None and (len(text) != _SHA256_DIGITS or set(text) - set("0123456789abcdef")):
        raise InputError("--policy-sha256 is no SHA-256", hint="give 64 digits, as sha256sum prints them")
    return text


def _wait_s(text: str) -> float:
    try:
        seconds = parse_duration_s(text)
    except ValueError as error:
        raise InputError(f"--wait {error}") from None
    if seconds > _MAX_WAIT_S:
        raise InputError(f"--wait {text} is more than a day", hint="15m is plenty")
    return seconds


def _log_json(place: LogPlace) -> dict[str, Any]:
    return {"step_id": place.step_id, "directory": str(place.directory), "uri": place.uri}


def _write(path: Path, status: dict[str, Any]) -> None:
    try:
        replace_file(path, (json.dumps(status, indent=2) + "\n").encode(), mode=0o644)
    except OSError as error:
        raise InstallError(f"cannot write {path}: {error.strerror}") from error
