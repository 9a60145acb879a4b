"""`ringfence emr launch-config` and `emr step zones` as commands: streams, exit codes, files, bad input."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from emr_launch import CHECKOUT, Site
from sandboxes import run_ringfence

SCRIPT = CHECKOUT / "bootstrap" / "emr" / "step-zones.sh"


def launch(site: Site, *options: str | Path) -> subprocess.CompletedProcess[str]:
    return run_ringfence(["emr", "launch-config", "-f", site.cluster, *options])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_document_is_on_standard_output_and_warnings_are_not(site: Site) -> None:
    finished = launch(site)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["Name"] == "small"
    assert "emr_clear_in_transit" in finished.stderr


def test_json_holds_the_document_and_the_findings(site: Site) -> None:
    finished = launch(site, "--format", "terraform", "--json")
    found: dict[str, Any] = json.loads(finished.stdout)
    assert (found["schema"], found["format"]) == (1, "terraform")
    assert "aws_emr_cluster" in found["document"]["resource"]
    assert "emr_clear_in_transit" in {finding["rule"] for finding in found["findings"]}


def test_what_the_other_commands_write_goes_in_as_it_is(tmp_path: Path) -> None:
    site = Site(tmp_path, "every-field")
    made = run_ringfence(
        ["emr", "classifications", "--release", "emr-7.12.0", "--applications", "Hadoop,Spark,Hive", "--kerberos"]
    )
    assert made.returncode == 0, made.stderr
    site.file("classifications.json", made.stdout)
    site.file("bootstrap.yaml", (CHECKOUT / "packaging" / "docs" / "bootstrap.yaml").read_text())
    finished = launch(site, "--format", "terraform")
    assert finished.returncode == 0, finished.stderr
    cluster = json.loads(finished.stdout)["resource"]["aws_emr_cluster"]["analytics"]
    written = {block["Classification"] for block in json.loads(cluster["configurations_json"])}
    assert {block["Classification"] for block in json.loads(made.stdout)} <= written


def test_a_refused_document_writes_nothing_and_names_every_line(site: Site, tmp_path: Path) -> None:
    site.set("emr-7.0.0", "release").set(["--password", "canary-7f3a"], "bootstrap_actions", 0, "args")
    output = tmp_path / "out.json"
    finished = launch(site, "--output", output)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert "[emr_release]" in finished.stderr
    assert "[emr_secret_in_clear]" in finished.stderr
    assert f"{site.cluster}:{site.line_of('release:')}" in finished.stderr
    assert "canary" not in finished.stderr
    # What is only a warning would hide which of the lines keep it from being written.
    assert "2 problems" in finished.stderr and "[emr_clear_in_transit]" not in finished.stderr
    assert not output.exists()


def test_a_request_with_passwords_goes_into_a_file_of_its_owner_alone(tmp_path: Path) -> None:
    site = Site(tmp_path, "every-field")
    password = tmp_path / "password"
    password.write_text("canary-of-the-kdc\n")
    password.chmod(0o600)
    for name in ("kdc_admin_password", "cross_realm_trust_password", "ad_join_password"):
        site.set({"file": "password"}, "kerberos", name)
    refused = launch(site)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--output" in refused.stderr
    output = tmp_path / "request.json"
    finished = launch(site, "--output", output, "--json")
    assert finished.returncode == 0, finished.stderr
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert json.loads(output.read_text())["KerberosAttributes"]["KdcAdminPassword"] == "canary-of-the-kdc"
    assert "canary" not in finished.stdout + finished.stderr


def test_a_change_that_only_a_new_cluster_brings_is_refused(site: Site, tmp_path: Path) -> None:
    running = tmp_path / "running.yaml"
    running.write_text(site.cluster.read_text())
    site.set(4, "instances", "core", "count")
    assert launch(site, "--running", running).returncode == 0
    site.set("emr-7.13.0", "release")
    finished = launch(site, "--running", running, "--json")
    assert (finished.returncode, finished.stdout) == (2, "")
    assert [finding["rule"] for finding in json.loads(finished.stderr)["error"]["findings"]] == ["emr_creation_only"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--kms", "stock"], "--kms"),
        (["--kms", "ringfence", "--wait", "5"], "--wait"),
        (["--kms", "ringfence", "--wait", "2d"], "day"),
        (["--kms", "ringfence", "--policy-sha256", "abc"], "--policy-sha256"),
        ([], "--kms"),
    ],
)
def test_a_step_with_bad_options_begins_nothing(tmp_path: Path, options: list[str], word: str) -> None:
    finished = run_ringfence(["emr", "step", "zones", "--policy", tmp_path / "zones.yaml", *options])
    assert (finished.returncode, finished.stdout) == (2, "")
    assert word in finished.stderr


def test_a_policy_that_is_not_the_checked_one_is_refused_before_hdfs_is_asked(tmp_path: Path) -> None:
    policy = tmp_path / "zones.yaml"
    policy.write_text("version: 1\ncluster: c\nzones: [{path: /a}]\n")
    status = tmp_path / "status.json"
    options = ["--kms", "ringfence", "--policy-sha256", "0" * 64, "--status", str(status), "--log-uri", "s3://l/x"]
    finished = run_ringfence(["emr", "step", "zones", "--policy", policy, *options])
    assert finished.returncode == 2
    written = json.loads(status.read_text())
    assert (written["state"], written["schema"], written["step"]) == ("failed", 1, "zones")
    assert "not the policy that was checked" in written["error"]["message"]
    assert written["log"]["directory"]


def test_the_script_is_the_command_with_a_status_file(tmp_path: Path) -> None:
    """Run as root with the places of a node exchanged for ours: what it execs, and what it says without Ringfence."""
    text = SCRIPT.read_text()
    fake = tmp_path / "ringfence"
    script = tmp_path / "step-zones.sh"
    state = tmp_path / "state"
    exchanged = text.replace("/opt/ringfence/bin/ringfence", str(fake)).replace("/var/lib/ringfence-node", str(state))
    # Not root: sudo is not asked for here.
    script.write_text(exchanged.replace('[ "$(id -u)" != 0 ]', "false"))
    missing = subprocess.run(["bash", script, "--policy", "p"], capture_output=True, text=True, check=False)
    assert missing.returncode == 1
    assert "hint: did bootstrap-action.sh run here?" in missing.stderr
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    finished = subprocess.run(
        ["bash", script, "--policy", "s3://b/zones and more.yaml", "--tls"], capture_output=True, text=True, check=True
    )
    status = os.fspath(state / "zones.json")
    assert finished.stdout.splitlines() == [
        *("emr", "step", "zones", "--status", status),
        *("--policy", "s3://b/zones and more.yaml", "--tls"),
    ]
    assert state.is_dir()
    assert "exec sudo -n -- bash" in text
    assert os.access(SCRIPT, os.X_OK)
