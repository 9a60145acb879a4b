"""`ringfence apply` before it reaches a cluster: what is wrong with the input is said first, and nothing starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sandboxes import run_ringfence

GOOD = "version: 1\ncluster: c\nzones: [{path: /a}]\nkms: {namenode_users: [hdfs], admins: [hdfs]}\n"


def environ(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HADOOP_", "RINGFENCE_"))}
    return kept | changes


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    directory = tmp_path / "conf"
    directory.mkdir()
    (directory / "core-site.xml").write_text(
        "<configuration><property><name>fs.defaultFS</name><value>hdfs://localhost:1</value></property></configuration>"
    )
    return directory


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "zones.yaml"
    path.write_text(GOOD)
    return path


def test_a_policy_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    finished = run_ringfence(["apply", "-f", tmp_path / "nope.yaml"], environ())
    assert finished.returncode == 2
    assert "nope.yaml" in finished.stderr


def test_every_problem_of_a_policy_is_told_with_its_line(policy: Path) -> None:
    policy.write_text(GOOD.replace("[{path: /a}]", "[{path: a}, {path: /b, ownr: x}]"))
    finished = run_ringfence(["apply", "-f", policy], environ())
    assert finished.returncode == 2
    assert finished.stderr.count("zones.yaml:3") >= 2
    assert "owner" in finished.stderr


def test_a_machine_without_hadoop_is_told_how_to_get_one(policy: Path, conf: Path) -> None:
    bare = environ(HADOOP_CONF_DIR=str(conf), PATH="/nonexistent", JAVA_HOME="")
    finished = run_ringfence(["apply", "-f", policy], bare)
    assert finished.returncode == 1
    assert finished.stderr.startswith("ringfence: no ")


def test_a_configuration_directory_that_is_not_there_is_named(policy: Path, tmp_path: Path) -> None:
    finished = run_ringfence(["apply", "-f", policy, "--hadoop-conf", tmp_path / "nope"], environ())
    assert finished.returncode == 2
    assert str(tmp_path / "nope") in finished.stderr
    assert "HADOOP_CONF_DIR" in finished.stderr


def test_a_configuration_without_an_hdfs_names_the_property(policy: Path, conf: Path) -> None:
    (conf / "core-site.xml").write_text("<configuration/>")
    finished = run_ringfence(["apply", "-f", policy, "--hadoop-conf", conf], environ())
    assert finished.returncode == 2
    assert "fs.defaultFS" in finished.stderr


def test_a_name_cannot_be_claimed_where_kerberos_proves_them(policy: Path, conf: Path) -> None:
    core_site = conf / "core-site.xml"
    core_site.write_text(
        core_site.read_text().replace(
            "</configuration>",
            "<property><name>hadoop.security.authentication</name><value>kerberos</value></property></configuration>",
        )
    )
    finished = run_ringfence(["apply", "-f", policy, "--hadoop-conf", conf, "--as", "hdfs"], environ())
    assert finished.returncode == 2
    assert "kinit hdfs" in finished.stderr
