"""What EMR takes at launch and fails over an hour later, or never tells: found before anything is launched.

A rule is a function of the draft that gives findings; the table says which parts of the document it needs whole. An
error refuses the document. A warning is about what EMR does without a word. Facts about releases are
`releases.Release`'s; what a security configuration says by itself is linted by `security_configuration.lint`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ringfence_bootstrap.launch import cluster_rules, kerberos_rules, primary_rules, zone_rules
from ringfence_bootstrap.launch.draft import Draft
from ringfence_bootstrap.launch.limits import find_limits
from ringfence_bootstrap.launch.secrets_in_clear import find_secrets
from ringfence_zones.findings import Finding


def find_refusals(draft: Draft) -> list[Finding]:
    """Everything that rules find in what of the draft could be read."""
    return [finding for reads, rule in _RULES if draft.unread.isdisjoint(reads) for finding in rule(draft)]


# A part that could not be read has no findings of its own to miss: only parts whose absence would be one are named.
_RULES: tuple[tuple[tuple[str, ...], Callable[[Draft], Iterator[Finding]]], ...] = (
    ((), zone_rules.check_key_names),
    (("node",), zone_rules.check_takeover),
    ((), zone_rules.check_group_classifications),
    (("policy",), zone_rules.check_policy),
    (("applications", "release"), zone_rules.check_hdfs),
    (("node",), zone_rules.check_kms_address),
    (("node", "policy"), zone_rules.check_zones_step),
    ((), zone_rules.check_concurrent_steps),
    (("release",), primary_rules.check_three_primaries),
    (("node",), primary_rules.check_node_mode),
    (("configurations", "configuration_files", "node", "release"), primary_rules.check_key_store),
    (("release",), primary_rules.check_ranger_classifications),
    ((), primary_rules.check_security_configuration),
    (("release",), cluster_rules.check_python),
    (("release",), cluster_rules.check_features),
    (("release",), cluster_rules.check_applications),
    (("log_uri", "region"), cluster_rules.check_logs),
    ((), cluster_rules.check_classifications),
    ((), cluster_rules.check_groups),
    (("kerberos", "security_configuration", "security"), kerberos_rules.check_attributes),
    (("node",), kerberos_rules.check_keytab),
    (("kerberos",), kerberos_rules.check_sasl),
    ((), find_secrets),
    (("release",), find_limits),
)
