"""`ringfence check`: the cluster against policy and good practice. Read-only; works on a stock KMS as well."""

from __future__ import annotations

from pathlib import Path

import click

from ringfence_zones.check import find_violations
from ringfence_zones.cli import exits
from ringfence_zones.cli.cluster import open_cluster
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.policy_file import load_optional_policy, policy_option
from ringfence_zones.cli.render import print_findings, print_json
from ringfence_zones.findings import findings_json
from ringfence_zones.observe import observe_cluster


@click.command()
@policy_option(required=False)
@global_options
@click.pass_context
def check(click_context: click.Context, context: CommandContext, policy_file: Path | None) -> None:
    """Compare the cluster with the policy; exit 3 when anything is found.

    Without a policy it looks for what is wrong on any cluster: shared keys, unpinned zone roots, a KMS on plain HTTP
    or one that hands out key material. Nothing is changed.
    """
    policy = load_optional_policy(policy_file)
    with open_cluster(context) as cluster:
        state = observe_cluster(cluster.hdfs, cluster.kms, policy, probe_get=True)
    findings = find_violations(policy, state)
    if context.json:
        print_json(findings_json(findings))
    else:
        print_findings(findings, nothing="nothing found")
        if policy is None:
            click.echo("no policy was given: drift from one was not looked for", err=True)
    click_context.exit(exits.FINDINGS if findings else exits.DONE)
