"""What a cluster brings: read from a request of RunJobFlow and from an answer of DescribeCluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ringfence_bootstrap.security_configuration.cluster import facts_of, read_cluster
from ringfence_zones.errors import DocumentError, InputError


def test_a_request_tells_everything() -> None:
    facts = facts_of(
        {
            "ReleaseLabel": "emr-7.12.0",
            "Applications": [{"Name": "Hadoop"}, {"Name": "Spark"}],
            "Instances": {
                "InstanceGroups": [
                    {"InstanceRole": "CORE", "InstanceCount": 9},
                    {"InstanceRole": "MASTER", "InstanceCount": 3},
                ]
            },
            "KerberosAttributes": {"Realm": "R"},
            "CustomAmiId": "ami-0",
            "Configurations": [
                {"Classification": "hive-site", "Properties": {"a": "1"}},
                {"Classification": "hive-site", "Properties": {"b": "2"}},
                {"Classification": "hadoop-env", "Configurations": [{"Classification": "export", "Properties": {}}]},
            ],
        },
        "request.json",
    )
    assert (facts.release_label, facts.primaries) == ("emr-7.12.0", 3)
    assert (facts.has_kerberos_attributes, facts.has_custom_ami) == (True, True)
    assert (facts.runs("spark"), facts.runs("Hive", "Spark"), facts.runs("Hive")) == (True, True, False)
    assert (facts.setting("hive-site", "b"), facts.setting("hive-site", "c")) == ("2", None)


def test_an_answer_tells_what_is_in_it() -> None:
    facts = facts_of({"Cluster": {"Id": "j-1", "ReleaseLabel": "emr-6.15.0", "KerberosAttributes": {}}}, "answer")
    assert (facts.release_label, facts.primaries, facts.applications) == ("emr-6.15.0", None, None)
    assert facts.runs("Spark") is None
    assert facts.has_kerberos_attributes is False


@pytest.mark.parametrize(
    ("instances", "primaries"),
    [
        ({"MasterInstanceType": "m5.xlarge", "InstanceCount": 3}, 1),
        ({"InstanceFleets": [{"InstanceFleetType": "MASTER", "TargetOnDemandCapacity": 3}]}, 3),
        ({"InstanceFleets": [{"InstanceFleetType": "MASTER", "TargetSpotCapacity": 1}]}, 1),
        ({"InstanceGroups": [{"InstanceRole": "MASTER"}]}, None),
        ({}, None),
    ],
)
def test_the_number_of_primary_nodes(instances: dict[str, Any], primaries: int | None) -> None:
    assert facts_of({"Instances": instances}, "c").primaries == primaries


@pytest.mark.parametrize(
    ("data", "member"),
    [
        ([], "the document"),
        ({"Applications": "Spark"}, "Applications"),
        ({"ReleaseLabel": 7}, "ReleaseLabel"),
        ({"Instances": []}, "Instances"),
        ({"Instances": {"InstanceGroups": {}}}, "InstanceGroups"),
        ({"Configurations": {"hive-site": {}}}, "Configurations"),
    ],
)
def test_what_is_neither_is_refused_by_the_member(data: Any, member: str) -> None:
    with pytest.raises(DocumentError) as caught:
        facts_of(data, "c")
    assert caught.value.findings[0].message.startswith(f"{member} must be")


def test_a_file_is_read_and_one_that_cannot_be_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"ReleaseLabel": "emr-7.12.0"}))
    assert read_cluster(path).release_label == "emr-7.12.0"
    with pytest.raises(InputError, match="cannot read"):
        read_cluster(tmp_path / "absent")
    path.write_text('{"ReleaseLabel": "a", "ReleaseLabel": "b"}')
    with pytest.raises(DocumentError):
        read_cluster(path)
