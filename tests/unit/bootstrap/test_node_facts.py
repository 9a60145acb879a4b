"""What a node says of itself, from the files that EMR leaves on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_bootstrap.node.facts import (
    Provisioning,
    find_kms_conf,
    find_provider_path,
    get_provider_path,
    is_emr_node,
    read_node_facts,
)
from ringfence_bootstrap.node.protobuf_text import find_block, find_word, parse_text
from ringfence_zones.errors import ConfigError

STATE = """
jobFlowId: "j-1"   # a comment
instanceGroups: [ { id: "ig-1" }, { id: 'ig-2' } ]
localInstance {
  instanceId: "i-\\"1\\""
  instanceRole: "master"
  nodeProvisionCheckinRecord: <
    provisionId: "1"; status: SUCCESSFUL
  >
}
"""


def info(root: Path, place: str = "mnt/var/lib/info", **files: str) -> Path:
    directory = root / place
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        extension = "txt" if name == "job-flow-state" else "json"
        (directory / f"{name}.{extension}").write_text(text)
    return root


def test_text_of_protocol_buffers_is_read_in_all_its_forms() -> None:
    message = parse_text(STATE)
    assert find_word(message, "jobFlowId") == "j-1"
    assert [find_word(each, "id") for each in message["instanceGroups"] if not isinstance(each, str)] == [
        "ig-1",
        "ig-2",
    ]
    assert find_word(find_block(message, "localInstance"), "instanceId") == 'i-"1"'
    assert find_word(find_block(message, "localInstance", "nodeProvisionCheckinRecord"), "status") == "SUCCESSFUL"
    assert find_block(message, "localInstance", "other") is None


@pytest.mark.parametrize("text", ["a {", "a: ", "a: }", "}", "a: [1", '"a": 1', "a: 'x", "a {" * 70])
def test_what_is_cut_off_or_no_such_text_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_text(text)


@given(st.integers(min_value=0, max_value=len(STATE) - 3))
def test_a_state_that_is_being_written_is_read_or_refused_never_misread(length: int) -> None:
    try:
        message = parse_text(STATE[:length])
    except ValueError:
        return
    record = find_block(message, "localInstance", "nodeProvisionCheckinRecord")
    assert find_word(record, "status") in (None, "SUCCESSFUL")


@pytest.mark.parametrize("place", ["mnt/var/lib/info", "emr/instance-controller/lib/info"])
def test_both_names_of_the_instance_controllers_directory_are_known(tmp_path: Path, place: str) -> None:
    extra = {
        "jobFlowId": "j-1",
        "instanceId": "i-1",
        "region": "eu-west-1",
        "haEnabled": True,
        "releaseLabel": "emr-7.1.0",
    }
    info(tmp_path, place, **{"job-flow-state": STATE, "extraInstanceData": json.dumps(extra)})
    facts = read_node_facts(tmp_path)
    assert (facts.role, facts.cluster_id, facts.instance_id, facts.region) == ("primary", "j-1", "i-1", "eu-west-1")
    assert (facts.release, facts.high_availability, facts.provisioning) == ("emr-7.1.0", True, Provisioning.SUCCESSFUL)
    assert is_emr_node(tmp_path)


@pytest.mark.parametrize(
    ("files", "role"),
    [
        ({}, None),
        ({"instance": '{"isMaster": true}'}, "primary"),
        ({"instance": '{"isMaster": false}'}, "core"),
        ({"instance": '{"isMaster": tr'}, None),
        ({"instance": "[]"}, None),
        ({"job-flow-state": "localInstance { instanceRole: task }", "instance": '{"isMaster": false}'}, "task"),
        ({"job-flow-state": "localInstance { instanceRole: task", "instance": '{"isMaster": false}'}, "core"),
    ],
)
def test_the_role_is_what_the_best_of_the_files_says(tmp_path: Path, files: dict[str, str], role: str | None) -> None:
    facts = read_node_facts(info(tmp_path, **files))
    assert facts.role == role
    assert facts.provisioning is Provisioning.RUNNING


def test_provisioning_that_failed_is_known(tmp_path: Path) -> None:
    text = "localInstance { nodeProvisionCheckinRecord { status: FAILED } }"
    assert read_node_facts(info(tmp_path, **{"job-flow-state": text})).provisioning is Provisioning.FAILED


def test_the_status_of_another_record_is_not_this_nodes(tmp_path: Path) -> None:
    text = "nodeProvisionCheckinRecord { status: SUCCESSFUL } localInstance { instanceId: 'i-1' }"
    assert read_node_facts(info(tmp_path, **{"job-flow-state": text})).provisioning is Provisioning.RUNNING


def test_the_kms_is_the_one_in_core_site_whatever_its_port(tmp_path: Path) -> None:
    conf = tmp_path / "etc/hadoop/conf"
    assert find_provider_path(conf) is None
    conf.mkdir(parents=True)
    property_text = "<property><name>hadoop.security.key.provider.path</name><value>kms://http@ip-10-0-0-1:9700/kms</value></property>"
    (conf / "core-site.xml").write_text(f"<configuration>{property_text}</configuration>")
    assert find_provider_path(conf) == "kms://http@ip-10-0-0-1:9700/kms"
    (conf / "core-site.xml").write_text("<configuration/>")
    with pytest.raises(ConfigError, match=r"names no KMS"):
        get_provider_path(conf)


def test_the_kms_configuration_is_found_beside_core_site_or_in_its_own_directory(tmp_path: Path) -> None:
    assert find_kms_conf(tmp_path) is None
    for place in ("etc/hadoop-kms/conf", "etc/hadoop/conf"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "kms-site.xml").write_text("<configuration/>")
        assert find_kms_conf(tmp_path) == tmp_path / place


def test_files_that_are_no_json_of_emr_s_say_nothing(tmp_path: Path) -> None:
    info(tmp_path, **{"job-flow": "[" * 100_000, "instance": "\x00"})
    assert read_node_facts(tmp_path).cluster_id is None
