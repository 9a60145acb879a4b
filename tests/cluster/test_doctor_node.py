"""`ringfence doctor node` beside real daemons, where everything is encrypted and where nothing is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from cluster_commands import Cluster
from sandboxes import run_ringfence
from secure_clusters import SecureCluster

from ringfence_zones.findings import Rule

pytestmark = pytest.mark.cluster


def told(environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Result of each check, and the paths by rule of what was found."""
    done = run_ringfence(["doctor", "node", "--json"], environ)
    document: dict[str, Any] = json.loads(done.stdout)
    results = {each["name"]: each["result"] for each in document["checks"]}
    return results, {each["rule"]: each["path"] for each in document["findings"]}


def test_a_cluster_with_everything_encrypted_is_called_so(secure_cluster: SecureCluster) -> None:
    results, _ = told(secure_cluster.environ("hdfs"))
    fine = {"kms_address", "namenode", "rpc", "block_transfer", "name_rules", "tokens"}
    assert {name: results[name] for name in fine} == dict.fromkeys(fine, "ok")


def test_a_cluster_of_claims_is_told_what_crosses_in_clear(ringfence_cluster: Cluster) -> None:
    results, found = told(ringfence_cluster.environ("hdfs"))
    assert (results["rpc"], results["block_transfer"]) == ("found", "found")
    assert Rule.EMR_CLEAR_IN_TRANSIT in found
    # The address is this machine's own, so that no key crosses a network; and the NameNode tells it.
    assert (results["kms_address"], results["namenode"]) == ("ok", "ok")
