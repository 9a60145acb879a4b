"""`ringfence doctor node`: this node of a cluster, as Hadoop and EMR have set it up."""

from __future__ import annotations

import os

import click

from ringfence_bootstrap.node_doctor import disks, key_server, platform, wire
from ringfence_bootstrap.node_doctor.subject import Node
from ringfence_zones.cli import exits
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.outcomes import print_outcomes
from ringfence_zones.cli.render import print_findings, print_json
from ringfence_zones.findings import findings_json
from ringfence_zones.named_checks import Check, run_checks

CHECKS = (
    Check("release", "a release that Ringfence runs on", platform.check_release),
    Check("java", "Java for Hadoop's daemons and for Ringfence's commands", platform.check_java),
    Check("python", "Python for Ringfence", platform.check_python),
    Check("clock", "the clock is kept right", platform.check_clock),
    Check("kms_address", "clients know a KMS, and reach it under TLS that they trust", key_server.check_address),
    Check("kms_port", "the KMS's port is reached from here", key_server.check_port),
    Check("namenode", "the NameNode's key provider is the one in core-site.xml", key_server.check_namenode),
    Check("key_store", "the key store rests encrypted, and outlives this node", disks.check_key_store),
    Check("root_device", "the root device is encrypted", disks.check_root_device),
    Check("data_disks", "the data disks are encrypted and work (LUKS)", disks.check_data_disks),
    Check("rpc", "Hadoop's RPC is encrypted", wire.check_rpc),
    Check("block_transfer", "blocks are encrypted between clients and DataNodes", wire.check_block_transfer),
    Check("shuffle", "map outputs are fetched over TLS", wire.check_shuffle),
    Check("spark", "Spark authenticates and encrypts", wire.check_spark),
    Check("proxy_users", "services may act for their users at the KMS too", key_server.check_proxy_users),
    Check("name_rules", "the KMS makes the same user names of principals as Hadoop", key_server.check_name_rules),
    Check("tokens", "jobs get tokens of the KMS", key_server.check_tokens),
)  # fmt: skip


@click.command("node")
@global_options
@click.pass_context
def node(click_context: click.Context, context: CommandContext) -> None:
    """Look at this node of a cluster, EMR's or another; exit 3 when anything is found.

    Read-only: files of Hadoop, EMR and the kernel, a connection to the KMS and a question to the NameNode. What does
    not apply on this machine, or cannot be seen from it, is said so and is never called fine. Run it as root, on the
    primary node and once on a core node.
    """
    outcomes = run_checks(CHECKS, Node.here(context.hadoop_conf, os.environ))
    findings = [finding for outcome in outcomes for finding in outcome.findings]
    if context.json:
        print_json({**findings_json(findings), "checks": [outcome.to_json() for outcome in outcomes]})
    else:
        print_outcomes(outcomes)
        print_findings(findings, nothing="nothing found")
    click_context.exit(exits.FINDINGS if findings else exits.DONE)
