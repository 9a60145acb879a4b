"""`ringfence doctor`: this machine, and what a KMS on it depends on."""

from __future__ import annotations

from pathlib import Path

import click

from ringfence_agent.cli.doctor_aws_kms import aws_kms
from ringfence_agent.cli.doctor_vault import vault
from ringfence_agent.cli.kms_options import config_option
from ringfence_agent.doctor import kdc, machine, proofs, storage
from ringfence_agent.doctor.subject import find_subject
from ringfence_zones.cli import exits
from ringfence_zones.cli.component_group import ComponentGroup
from ringfence_zones.cli.context import CommandContext, global_options, hadoop_conf_given
from ringfence_zones.cli.outcomes import print_outcomes
from ringfence_zones.cli.render import print_findings, print_json
from ringfence_zones.findings import findings_json
from ringfence_zones.named_checks import Check, run_checks

CHECKS = (
    Check("configuration", "the KMS's configuration", storage.check_configuration),
    Check("key_store", "the key store: reachable, private, in a lasting place", storage.check_key_store),
    Check("root_key", "the root key file: there, whole, private (a copy off this machine is yours to keep)",
          storage.check_root_key),
    Check("audit", "room for the audit log", storage.check_audit),
    Check("transport", "no plain HTTP beyond this machine", proofs.check_transport),
    Check("authentication", "users are proven, not claimed", proofs.check_authentication),
    Check("certificate", "the TLS certificate: key, chain, age, names", proofs.check_certificate),
    Check("keytab", "the keytab: private, its principals, kinds of keys", proofs.check_keytab),
    Check("kdc", "the KDC: gives the service a ticket, goes by the same time", kdc.check_kdc),
    Check("secrets", "the cookie secret's and the admin token's files", proofs.check_secrets),
    Check("clock", "the clock is kept right", machine.check_clock),
    Check("open_files", "the limit of open files", machine.check_open_files),
    Check("core_dumps", "no core file can hold keys", machine.check_core_dumps),
    Check("swap", "no swap in clear", machine.check_swap),
    Check("hadoop", "Hadoop and Java for the commands that need them", machine.check_hadoop),
)  # fmt: skip


@click.group(cls=ComponentGroup, invoke_without_command=True)
@config_option
@global_options
@click.pass_context
def doctor(click_context: click.Context, context: CommandContext, config: Path | None) -> None:
    """Look at this machine and what the KMS on it depends on; exit 3 when anything is found.

    Read-only. Looks at the KMS of kms.yaml, or of the Hadoop directory given with --hadoop-conf, a stock KMS's too.
    Run it as root or as the KMS's user: what it may not read it cannot judge, and says so. The commands below look at
    what a KMS depends on elsewhere, and ask it.
    """
    if click_context.invoked_subcommand is not None:
        return
    named = hadoop_conf_given() is not None
    outcomes = run_checks(CHECKS, find_subject(config, context.hadoop_conf, named=named))
    findings = [finding for outcome in outcomes for finding in outcome.findings]
    if context.json:
        print_json({**findings_json(findings), "checks": [outcome.to_json() for outcome in outcomes]})
    else:
        print_outcomes(outcomes)
        print_findings(findings, nothing="nothing found")
    click_context.exit(exits.FINDINGS if findings else exits.DONE)


doctor.add_command(aws_kms)
doctor.add_command(vault)
