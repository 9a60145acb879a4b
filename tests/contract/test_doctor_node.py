"""`ringfence doctor node` as a user runs it: beside a real key server with TLS, and where there is nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from kms_serving import KmsPlace, write_xml

from ringfence_bootstrap.cli.doctor_node import CHECKS
from ringfence_zones.findings import Rule

PROVIDER = "hadoop.security.key.provider.path"


def doctor(conf: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("ringfence")), "doctor", "node", "--hadoop-conf", str(conf), *options]
    return subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=60, check=False)


def told(conf: Path) -> tuple[dict[str, str], dict[str, str], set[str]]:
    """Result and reason of each check, and the rules of what was found."""
    done = doctor(conf, "--json")
    assert done.returncode in (0, 3), done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert bool(document["findings"]) == (done.returncode == 3)
    results = {each["name"]: each["result"] for each in document["checks"]}
    reasons = {each["name"]: each["why"] for each in document["checks"] if each["why"]}
    return results, reasons, {each["rule"] for each in document["findings"]}


@pytest.fixture
def place(tmp_path: Path) -> KmsPlace:
    return KmsPlace.make(tmp_path)


def test_a_node_with_a_key_server_of_ours_over_tls(place: KmsPlace, certificates: Certificates) -> None:
    tls = ("--tls-cert", str(certificates.server.certificate), "--tls-key", str(certificates.server.key))
    (place.conf / "ringfence-client.yaml").write_text(f"kms_ca_file: {certificates.trusted}\n")
    with place.serving(1, *tls, client_context=certificates.client_context()) as kms:
        write_xml(place.conf / "core-site.xml", {PROVIDER: f"kms://https@localhost:{kms.port}/kms"})
        results, reasons, rules = told(place.conf)
        assert results["kms_address"] == "ok"
        assert "on this node" in reasons["kms_port"]
        (place.conf / "ringfence-client.yaml").unlink()
        _, _, rules = told(place.conf)
        assert Rule.CERTIFICATE in rules
    # It has ended.
    _, reasons, _ = told(place.conf)
    assert "nothing answers there" in reasons["kms_address"]


def test_where_there_is_no_cluster_it_says_so_of_each_check(tmp_path: Path) -> None:
    results, reasons, _ = told(tmp_path)
    assert list(results) == [check.name for check in CHECKS]
    of_clusters = set(results) - {"release", "java", "python", "clock", "root_device"}
    assert {name for name in of_clusters if results[name] != "not_checked"} == set()
    assert "no core-site.xml" in reasons["rpc"]
    assert "no node of an EMR cluster" in reasons["release"]
    printed = doctor(tmp_path).stdout
    assert "--    rpc             not checked: there is no core-site.xml" in printed
