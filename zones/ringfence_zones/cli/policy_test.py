"""`ringfence policy test`: the cases beside a policy, judged offline."""

from __future__ import annotations

from pathlib import Path

import click

from ringfence_zones.cli import exits
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.policy_file import policy_option
from ringfence_zones.cli.render import counted, print_json, shown
from ringfence_zones.findings import findings_json
from ringfence_zones.policy import load_policy
from ringfence_zones.policy_cases import CaseResult, find_cases_file, load_cases, run_cases, shown_value


@click.command("test")
@policy_option(required=True)
@click.argument("cases", type=click.Path(path_type=Path), required=False)
@global_options
@click.pass_context
def run_policy_cases(
    click_context: click.Context, context: CommandContext, policy_file: Path, cases: Path | None
) -> None:
    """Judge the cases of CASES by the policy; exit 3 when one is not as expected.

    Without CASES they are in zones.test.yaml beside zones.yaml. With -v the cases that pass are shown as well.
    """
    results = run_cases(load_policy(policy_file), load_cases(cases or find_cases_file(policy_file)))
    failed = [result for result in results if result.unmet]
    if context.json:
        findings = findings_json(result.to_finding() for result in failed)
        print_json({"schema": 1, "cases": [result.to_json() for result in results], **findings})
    else:
        for result in results:
            if result.unmet:
                _print_failure(result)
            elif context.verbose:
                click.echo(f"{click.style('pass', fg='green')}  {shown(result.case.where)}  {shown(result.case.title)}")
        click.echo(f"{counted(len(results), 'case')}: {len(results) - len(failed)} passed, {len(failed)} failed")
    click_context.exit(exits.FINDINGS if failed else exits.DONE)


def _print_failure(result: CaseResult) -> None:
    block, got = result.case.block, result.got
    click.echo(f"{click.style('FAIL', fg='red')}  {shown(result.case.where)}  {shown(result.case.title)}")
    if block.name is not None:
        groups = f" in {', '.join(block.groups)}" if block.groups else ""
        click.echo(shown(f"      {block.user}{groups}: {block.from_} -> {block.to}"))
    for name in result.unmet:
        expected = shown_value(block.expect.expected[name])
        click.echo(shown(f"      {name}: expected {expected}, got {shown_value(got[name])}"))
        click.echo(shown(f"          {result.because(name)}"))
