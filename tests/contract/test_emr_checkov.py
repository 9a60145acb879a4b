"""A policy scanner's second opinion: what the generator calls compliant passes Checkov's rules for EMR's security
configurations, and each switch less fails one of them.

Checkov runs in an environment of its own in the cache, made from packaging/constraints/checkov.txt, and reads Terraform
files offline.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from emr_documents import DOCUMENTED, changed, document_data, parse_place

from ringfence_bootstrap.releases import parse_release
from ringfence_bootstrap.sandbox.artifacts import cache_directory
from ringfence_bootstrap.security_configuration.document import CertificateProvider, DiskProvider, KdcProvider, S3Mode
from ringfence_bootstrap.security_configuration.generate import (
    CertificatesWanted,
    DiskWanted,
    KerberosWanted,
    S3Wanted,
    Wanted,
    compliance_gaps,
    generate,
)
from ringfence_bootstrap.security_configuration.reading import parse_document

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

PINNED = Path(__file__).parents[2] / "packaging/constraints/checkov.txt"
S3, DISK, EBS, TRANSIT = "CKV_AWS_171", "CKV_AWS_349", "CKV_AWS_350", "CKV_AWS_351"
RULES = {S3, DISK, EBS, TRANSIT}
KEY = "arn:aws:kms:us-east-1:123456789012:key/12345678-1234-1234-1234-123456789012"
REST = "EncryptionConfiguration.AtRestEncryptionConfiguration"


@pytest.fixture(scope="module")
def checkov() -> Path:
    """The program, installed once for each list of pins."""
    pins = hashlib.sha256(PINNED.read_bytes()).hexdigest()[:16]
    home = cache_directory(os.environ) / f"checkov-{pins}"
    program = home / "bin" / "checkov"
    if not (home / "complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True, timeout=300)
        install = [home / "bin" / "pip", "install", "--quiet", "--require-hashes", "--requirement", PINNED]
        subprocess.run(install, check=True, timeout=1500)
        (home / "complete").touch()
    return program


def failed_rules(checkov: Path, directory: Path, documents: dict[str, Any]) -> dict[str, set[str]]:
    """Which of the four rules each document fails; fails the test when a rule did not look at one."""
    for name, document in documents.items():
        (directory / f"{name}.tf").write_text(
            f'resource "aws_emr_security_configuration" "{name}" {{\n'
            f'  name = "{name}"\n  configuration = <<EOF\n{json.dumps(document, indent=2)}\nEOF\n}}\n'
        )
    command = [checkov, "--directory", directory, "--framework", "terraform", "--check", ",".join(sorted(RULES))]
    command += ["--output", "json", "--skip-download", "--soft-fail"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(directory), "LOG_LEVEL": "ERROR"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=300, check=True)
    results = json.loads(done.stdout)["results"]
    assert results["parsing_errors"] == []
    failed: dict[str, set[str]] = {name: set() for name in documents}
    looked: dict[str, set[str]] = {name: set() for name in documents}
    for outcome in ("passed_checks", "failed_checks"):
        for check in results[outcome]:
            name = check["resource"].rpartition(".")[2]
            looked[name].add(check["check_id"])
            if outcome == "failed_checks":
                failed[name].add(check["check_id"])
    assert {name: RULES - seen for name, seen in looked.items() if seen != RULES} == {}
    return failed


def compliant() -> dict[str, Any]:
    """Several documents that the generator calls compliant, by name."""
    s3 = S3Wanted(S3Mode.SSE_KMS, KEY)
    disk = DiskWanted(DiskProvider.AWS_KMS, KEY, ebs=True)
    emr = CertificatesWanted(CertificateProvider.EMR)
    pem = CertificatesWanted(CertificateProvider.PEM, "s3://amzn-s3-demo-bucket/certs.zip")
    own = CertificatesWanted(CertificateProvider.CUSTOM, "s3://amzn-s3-demo-bucket/tls.jar", "com.example.Tls")
    wanted = {
        "newest": (Wanted(s3=s3, disk=disk, certificates=emr, metadata=(2, 1)), "emr-7.14.0"),
        "oldest": (Wanted(s3=s3, disk=disk, certificates=pem), "emr-5.24.0"),
        "own_provider": (Wanted(s3=s3, disk=disk, certificates=own), "emr-6.15.0"),
        "overrides": (Wanted(s3=s3, overrides=(("b1", s3),), disk=disk, certificates=pem, wal_key=""), "emr-7.12.0"),
        "kerberos": (
            Wanted(s3=s3, disk=disk, certificates=pem, kerberos=KerberosWanted(KdcProvider.CLUSTER_DEDICATED, 24)),
            "emr-7.12.0",
        ),
    }
    made = {name: generate(each, parse_release(release)) for name, (each, release) in wanted.items()}
    assert [name for name, each in made.items() if compliance_gaps(each)] == []
    return {name: each.to_json() for name, each in made.items()}


def test_what_the_generator_calls_compliant_the_scanner_does_too(checkov: Path, tmp_path: Path) -> None:
    documents = compliant()
    assert failed_rules(checkov, tmp_path, documents) == {name: set() for name in documents}


def test_each_switch_less_fails_a_rule_of_the_scanner_and_is_not_compliant(checkov: Path, tmp_path: Path) -> None:
    changes: dict[str, tuple[str, Any, set[str]]] = {
        "at_rest_off": ("EncryptionConfiguration.EnableAtRestEncryption", False, {DISK, EBS}),
        "at_rest_absent": ("EncryptionConfiguration.EnableAtRestEncryption", None, {DISK, EBS}),
        "in_transit_off": ("EncryptionConfiguration.EnableInTransitEncryption", False, {TRANSIT}),
        "in_transit_absent": ("EncryptionConfiguration.EnableInTransitEncryption", None, {TRANSIT}),
        "no_block_at_rest": (REST, None, {S3, DISK, EBS}),
        "no_s3": (f"{REST}.S3EncryptionConfiguration", None, {S3}),
        "sse_s3": (f"{REST}.S3EncryptionConfiguration.EncryptionMode", "SSE-S3", {S3}),
        "no_mode": (f"{REST}.S3EncryptionConfiguration.EncryptionMode", None, {S3}),
        "no_disks": (f"{REST}.LocalDiskEncryptionConfiguration", None, {DISK, EBS}),
        "ebs_off": (f"{REST}.LocalDiskEncryptionConfiguration.EnableEbsEncryption", False, {EBS}),
        "ebs_absent": (f"{REST}.LocalDiskEncryptionConfiguration.EnableEbsEncryption", None, {EBS}),
        "no_encryption": ("EncryptionConfiguration", None, RULES),
    }
    whole = compliant()["newest"]
    documents = {name: changed(whole, parse_place(place), value) for name, (place, value, _) in changes.items()}
    failed = failed_rules(checkov, tmp_path, documents)
    assert failed == {name: rules for name, (_, _, rules) in changes.items()}
    for name, document in documents.items():
        assert compliance_gaps(parse_document(json.dumps(document), name)), name


def test_of_documented_documents_none_is_called_compliant_that_the_scanner_objects_to(
    checkov: Path, tmp_path: Path
) -> None:
    documents = {name.replace("-", "_"): document_data(name) for name in DOCUMENTED}
    failed = failed_rules(checkov, tmp_path, documents)
    called = {name for name, each in documents.items() if not compliance_gaps(parse_document(json.dumps(each), name))}
    assert called
    assert {name for name in called if failed[name]} == set()
