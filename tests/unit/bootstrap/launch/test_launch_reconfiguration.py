"""What a running cluster cannot become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from emr_launch import VECTORS, Site

from ringfence_bootstrap.launch.reconfiguration import find_impossible_changes
from ringfence_zones.findings import Rule


def pair(tmp_path: Path, running: list[dict[str, Any]], wanted: list[dict[str, Any]], primaries: int = 1) -> list[Rule]:
    sites = []
    for name, configurations in (("running", running), ("wanted", wanted)):
        directory = tmp_path / name
        directory.mkdir()
        site = Site(directory)
        head = (VECTORS / "bootstrap.yaml").read_text().split("mode:")[0]
        mode = (
            "mode: existing-kms\n"
            if primaries == 1
            else "mode: clients-only\nclients: {uri: 'kms://https@k:9600/kms'}\n"
        )
        site.file("bootstrap.yaml", head + mode)
        site.set(primaries, "instances", "primary", "count").set(configurations, "configurations")
        sites.append(site.read())
    return [finding.rule for finding in find_impossible_changes(sites[0], sites[1], "wanted.yaml")]


def block(name: str, **properties: str) -> dict[str, Any]:
    return {"Classification": name, "Properties": properties}


@pytest.mark.parametrize(
    ("running", "wanted"),
    [
        ([], [block("hdfs-encryption-zones", **{"/data/a": "a"})]),
        ([block("hdfs-encryption-zones", **{"/data/a": "a"})], []),
        (
            [block("hdfs-encryption-zones", **{"/data/a": "a"})],
            [block("hdfs-encryption-zones", **{"/data/a": "a", "/data/b": "b"})],
        ),
    ],
    ids=["added", "removed", "changed"],
)
def test_zones_are_not_reconfigured(tmp_path: Path, running: list[Any], wanted: list[Any]) -> None:
    assert pair(tmp_path, running, wanted) == [Rule.EMR_ZONES_RECONFIGURED]


def test_the_kms_of_one_primary_is_reconfigured_and_that_of_three_is_not(tmp_path: Path) -> None:
    running, wanted = [block("hadoop-kms-site", a="1")], [block("hadoop-kms-site", a="2")]
    for primaries, found in ((1, []), (3, [Rule.EMR_ZONES_RECONFIGURED])):
        directory = tmp_path / str(primaries)
        directory.mkdir()
        assert pair(directory, running, wanted, primaries) == found


def test_other_classifications_are_reconfigured(tmp_path: Path) -> None:
    assert pair(tmp_path, [block("core-site", a="1")], [block("core-site", a="2"), block("yarn-site", b="1")]) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("release", "emr-7.13.0"),
        ("applications", ["Hadoop"]),
        ("log_uri", "s3://example-emr/other/"),
        ("bootstrap_actions", []),
        ("security_configuration", {"name": "other"}),
        ("service_role", "Other"),
    ],
)
def test_what_a_cluster_is_created_with_it_keeps(tmp_path: Path, field: str, value: Any) -> None:
    site = Site(tmp_path)
    running = site.read()
    found = find_impossible_changes(running, site.set(value, field).read(), "wanted.yaml")
    assert [finding.rule for finding in found] == [Rule.EMR_CREATION_ONLY]
    assert field in found[0].message


def test_the_number_of_primary_nodes_is_kept(tmp_path: Path) -> None:
    site = Site(tmp_path).drop("ringfence")
    running = site.read()
    found = find_impossible_changes(running, site.set(3, "instances", "primary", "count").read(), "wanted.yaml")
    assert [finding.rule for finding in found] == [Rule.EMR_CREATION_ONLY]


def test_the_same_document_changes_nothing(tmp_path: Path) -> None:
    launch = Site(tmp_path).read()
    assert find_impossible_changes(launch, launch, "wanted.yaml") == []
