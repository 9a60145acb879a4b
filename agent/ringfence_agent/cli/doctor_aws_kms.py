"""`ringfence doctor aws-kms`: whether this machine's role can protect a key store with an AWS KMS key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from ringfence_agent import process_hygiene
from ringfence_agent.cli.kms_options import config_option
from ringfence_agent.keystore.protectors.aws_kms_config import AwsKmsBlock, AwsKmsSettings, aws_kms_settings
from ringfence_agent.kms.config import KmsFile, default_file
from ringfence_zones.cli import exits
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.outcomes import print_outcomes
from ringfence_zones.cli.render import print_findings, print_json, shown
from ringfence_zones.config_file import read_config
from ringfence_zones.errors import InputError
from ringfence_zones.findings import findings_json

_UNNAMED_CLUSTER = "preflight"


@click.command("aws-kms")
@config_option
@click.option("--key", metavar="ARN", help="the KMS key: its ARN, id or alias/NAME  [aws_kms.key of kms.yaml]")
@click.option("--cluster", metavar="NAME", help="the cluster that seals are bound to  [aws_kms.cluster]")
@click.option("--region", metavar="REGION", help="the key's region  [the ARN's, else aws_kms.region]")
@click.option("--endpoint", metavar="URL", help="a VPC endpoint with a name of its own  [aws_kms.endpoint]")
@global_options
@click.pass_context
def aws_kms(
    click_context: click.Context,
    context: CommandContext,
    *,
    config: Path | None,
    key: str | None,
    cluster: str | None,
    region: str | None,
    endpoint: str | None,
) -> None:
    """Look at an AWS KMS key as this machine's role may use it; exit 3 when anything is found.

    Changes nothing: it seals 32 random bytes and opens them again. When a permission is missing it prints the statement
    to add to the key's policy. Run it where the key server runs, as its user: the role counts.
    """
    # The AWS SDK takes a quarter of a second to load, and is an extra.
    from ringfence_agent.doctor import aws_kms as preflights  # noqa: PLC0415
    from ringfence_agent.keystore.protectors.aws_kms_api import AwsKms  # noqa: PLC0415
    from ringfence_zones.named_checks import run_checks  # noqa: PLC0415

    process_hygiene.forbid_core_dumps()
    if config is None and click_context.parent is not None:
        config = click_context.parent.params.get("config")
    given = {"key": key, "cluster": cluster, "region": region, "endpoint": endpoint}
    settings, is_cluster_named = _settings(config, {name: value for name, value in given.items() if value is not None})
    preflight = preflights.KeyPreflight(
        AwsKms(settings),
        settings.key,
        settings.cluster if is_cluster_named else None,
        is_moving=bool(settings.former_keys),
    )
    outcomes = run_checks(preflights.CHECKS, preflight)
    findings = [finding for outcome in outcomes for finding in outcome.findings]
    statements = preflights.key_policy_statements(preflight)
    own_statements = preflights.role_policy_statements(preflight)
    if context.json:
        document = {**findings_json(findings), "checks": [outcome.to_json() for outcome in outcomes]}
        print_json({**document, "key_policy": statements, "role_policy": own_statements})
    else:
        print_outcomes(outcomes)
        print_findings(findings, nothing="nothing found")
        _print_statements("the key's policy (aws kms put-key-policy)", statements)
        _print_statements("the role's own policy, for the key is another account's", own_statements)
        for note in preflights.notes(preflight) if statements else ():
            click.echo(f"note: {shown(note)}")
    click_context.exit(exits.FINDINGS if findings else exits.DONE)


def _settings(config: Path | None, given: Mapping[str, str]) -> tuple[AwsKmsSettings, bool]:
    """What kms.yaml says, overruled by what was given; and whether anybody named the cluster."""
    path = config or (default_file() if default_file().exists() else None)
    stated = read_config(path, KmsFile).aws_kms if path is not None else None
    fields: dict[str, Any] = {}
    if stated is not None:
        fields = stated.model_dump() | {"deadline": f"{stated.deadline:g}s"}
        if "key" in given:
            # They belong to the other key.
            del fields["region"], fields["former_keys"]
    fields |= given
    if "key" not in fields:
        raise InputError("no AWS KMS key is named", hint="give --key ARN, or aws_kms.key in kms.yaml")
    try:
        block = AwsKmsBlock.model_validate({"cluster": _UNNAMED_CLUSTER, **fields})
    except ValidationError as error:
        detail = error.errors()[0]
        why = detail["msg"].removeprefix("Value error, ")
        raise InputError(f"--{detail['loc'][0]} {why[:1].lower()}{why[1:]}") from None
    return aws_kms_settings(block), "cluster" in fields


def _print_statements(place: str, statements: list[dict[str, Any]]) -> None:
    if statements:
        click.echo(f"\nadd to {place}:")
        for statement in statements:
            click.echo(json.dumps(statement, indent=2))
