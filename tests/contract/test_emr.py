"""What these commands rely on of EMR, against every EMR there is: the double, moto, and EMR itself where one is named.

Where moto does otherwise, the test says so; that is what the double is for.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from emr_document_checks import check_document
from emr_documents import DOCUMENTED, document_path
from emr_double import INSTANCE_ROLE, REGION, SERVICE_ROLE, EmrDouble
from emr_places import REAL_CLUSTER, EmrPlace
from emr_requests import cluster_request, step

from ringfence_bootstrap.account.connection import AwsPlace, Connection
from ringfence_zones.errors import AwsError, AwsUnavailableError

DOCUMENT = {
    "EncryptionConfiguration": {
        "EnableInTransitEncryption": False,
        "EnableAtRestEncryption": True,
        "AtRestEncryptionConfiguration": {"S3EncryptionConfiguration": {"EncryptionMode": "SSE-S3"}},
    }
}
TEXT = json.dumps(DOCUMENT)


def test_a_configuration_comes_back_as_it_was_stored(emr_place: EmrPlace) -> None:
    name = emr_place.new_name()
    assert emr_place.calls.find_security_configuration(name) is None
    assert emr_place.calls.create_security_configuration(name, TEXT)
    found = emr_place.calls.find_security_configuration(name)
    assert found is not None
    assert (found.name, json.loads(found.text)) == (name, DOCUMENT)
    assert found.created is not None
    emr_place.calls.delete_security_configuration(name)
    assert emr_place.calls.find_security_configuration(name) is None


def test_a_name_is_taken_once(emr_place: EmrPlace) -> None:
    name = emr_place.new_name()
    assert emr_place.calls.create_security_configuration(name, TEXT)
    other = TEXT.replace("SSE-S3", "SSE-KMS")
    assert not emr_place.calls.create_security_configuration(name, other), "moto says so in other words"
    found = emr_place.calls.find_security_configuration(name)
    assert found is not None
    assert json.loads(found.text) == DOCUMENT


def test_an_unknown_member_is_refused_by_name(emr_place: EmrPlace) -> None:
    document = {"EncryptionConfiguration": {**DOCUMENT["EncryptionConfiguration"], "EnableAtRestEncription": True}}
    if emr_place.name == "moto":
        assert emr_place.calls.create_security_configuration(emr_place.new_name(), json.dumps(document))
        return
    with pytest.raises(AwsError) as raised:
        emr_place.calls.create_security_configuration(emr_place.new_name(), json.dumps(document))
    assert raised.value.code == "InvalidRequestException"
    assert "object has invalid properties: [EnableAtRestEncription]" in raised.value.message


def test_what_is_no_json_is_refused(emr_place: EmrPlace) -> None:
    if emr_place.name == "moto":
        assert emr_place.calls.create_security_configuration(emr_place.new_name(), "not json")
        return
    with pytest.raises(AwsError) as raised:
        emr_place.calls.create_security_configuration(emr_place.new_name(), "not json")
    assert raised.value.code == "InvalidRequestException"


def test_every_configuration_is_listed(emr_place: EmrPlace) -> None:
    if emr_place.name == "moto":
        with pytest.raises(AwsUnavailableError):
            emr_place.calls.list_security_configurations()
        return
    # More than one page, but not of a real account's rates.
    count = 3 if emr_place.name == "real" else 55
    names = [emr_place.new_name() for _ in range(count)]
    for name in names:
        emr_place.calls.create_security_configuration(name, TEXT)
    listed = [each.name for each in emr_place.calls.list_security_configurations()]
    assert set(names) <= set(listed)
    assert listed == sorted(listed)


def test_deleting_what_is_not_there_is_refused(emr_place: EmrPlace) -> None:
    with pytest.raises(AwsError) as raised:
        emr_place.calls.delete_security_configuration(emr_place.new_name())
    assert raised.value.code == "InvalidRequestException"


def test_an_unknown_cluster_is_refused(emr_place: EmrPlace) -> None:
    with pytest.raises(AwsError) as raised:
        emr_place.calls.describe_cluster("j-0000000000000")
    assert raised.value.code == "InvalidRequestException"


def finished(emr: Any, double: EmrDouble | None, cluster_id: str, step_id: str) -> str:
    """The step's last state; EMR itself takes its time."""
    ends = time.monotonic() + (60 if double is not None else 900)
    while time.monotonic() < ends:
        if double is not None:
            double.advance(15)
        state = emr.describe_step(ClusterId=cluster_id, StepId=step_id)["Step"]["Status"]["State"]
        if state not in ("PENDING", "RUNNING"):
            return str(state)
        time.sleep(0.05 if double is not None else 5)
    raise AssertionError("the step does not end")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_double_takes_every_documented_example(name: str) -> None:
    """Its reading of the reference is not the linter's: each is held against the other's examples."""
    check_document(document_path(name).read_text())


@pytest.mark.parametrize("place", ["double", *(["real"] if REAL_CLUSTER else [])])
@pytest.mark.parametrize(("command", "state"), [("exit 0", "COMPLETED"), ("exit 3", "FAILED")])
def test_a_step_ends_as_its_command_does(request: pytest.FixtureRequest, place: str, command: str, state: str) -> None:
    if place == "double":
        double: EmrDouble = request.getfixturevalue("emr_double")
        emr = double.client("emr")
        cluster_id = emr.run_job_flow(**cluster_request())["JobFlowId"]
        double.advance(120)
    else:
        import boto3.session

        double, emr, cluster_id = None, boto3.session.Session().client("emr"), REAL_CLUSTER  # type: ignore[assignment]
    (step_id,) = emr.add_job_flow_steps(JobFlowId=cluster_id, Steps=[step("bash", "-c", command)])["StepIds"]
    assert finished(emr, double, cluster_id, step_id) == state


def states(double: EmrDouble, cluster_id: str) -> list[str]:
    found = double.client("emr").list_steps(ClusterId=cluster_id)["Steps"]
    return [each["Status"]["State"] for each in reversed(found)]


def cluster(double: EmrDouble, cluster_id: str) -> dict[str, Any]:
    return dict(double.client("emr").describe_cluster(ClusterId=cluster_id)["Cluster"])


def test_a_cluster_goes_through_its_states(emr_double: EmrDouble) -> None:
    emr = emr_double.client("emr")
    cluster_id = emr.run_job_flow(**cluster_request())["JobFlowId"]
    seen = [cluster(emr_double, cluster_id)["Status"]["State"]]
    for _ in range(2):
        emr_double.advance(30)
        seen.append(cluster(emr_double, cluster_id)["Status"]["State"])
    assert seen == ["STARTING", "BOOTSTRAPPING", "WAITING"]
    instances = emr.list_instances(ClusterId=cluster_id, InstanceGroupTypes=["CORE"])["Instances"]
    assert [(each["Id"][:3], each["InstanceGroupId"][:3]) for each in instances] == [("ci-", "ig-")] * 2
    emr.terminate_job_flows(JobFlowIds=[cluster_id])
    emr_double.advance(10)
    status = cluster(emr_double, cluster_id)["Status"]
    assert (status["State"], status["StateChangeReason"]["Code"]) == ("TERMINATED", "USER_REQUEST")


@pytest.mark.parametrize(
    ("on_failure", "steps", "end"),
    [
        ("CONTINUE", ["FAILED", "COMPLETED"], "WAITING"),
        ("CANCEL_AND_WAIT", ["FAILED", "CANCELLED"], "WAITING"),
        ("TERMINATE_CLUSTER", ["FAILED", "CANCELLED"], "TERMINATED_WITH_ERRORS"),
    ],
)
def test_what_a_failed_step_does_to_the_others(
    emr_double: EmrDouble, on_failure: str, steps: list[str], end: str
) -> None:
    asked = [step("false", on_failure=on_failure), step("true")]
    cluster_id = emr_double.client("emr").run_job_flow(**cluster_request(Steps=asked))["JobFlowId"]
    emr_double.advance(70)
    ends = time.monotonic() + 30
    while any(each in ("PENDING", "RUNNING") for each in states(emr_double, cluster_id)):
        assert time.monotonic() < ends
        emr_double.advance(20)
    emr_double.advance(20)
    assert states(emr_double, cluster_id) == steps
    assert cluster(emr_double, cluster_id)["Status"]["State"] == end


def test_a_cluster_without_steps_to_do_ends_unless_it_is_to_stay(emr_double: EmrDouble) -> None:
    request = cluster_request(Steps=[step("true")])
    request["Instances"]["KeepJobFlowAliveWhenNoSteps"] = False
    cluster_id = emr_double.client("emr").run_job_flow(**request)["JobFlowId"]
    emr_double.advance(70)
    ends = time.monotonic() + 30
    while cluster(emr_double, cluster_id)["Status"]["State"] != "TERMINATED":
        assert time.monotonic() < ends
        emr_double.advance(20)
    assert states(emr_double, cluster_id) == ["COMPLETED"]


def test_a_bootstrap_action_that_fails_ends_the_cluster(emr_double: EmrDouble) -> None:
    emr_double.world.bootstrap_failure = (1, 7)
    action = {"Name": "ringfence", "ScriptBootstrapAction": {"Path": "s3://b/bootstrap-action.sh"}}
    cluster_id = emr_double.client("emr").run_job_flow(**cluster_request(BootstrapActions=[action]))["JobFlowId"]
    emr_double.advance(120)
    status = cluster(emr_double, cluster_id)["Status"]
    (detail,) = status["ErrorDetails"]
    assert (status["State"], detail["ErrorCode"], detail["ErrorData"][0]["return-code"]) == (
        "TERMINATED_WITH_ERRORS",
        "BOOTSTRAP_FAILURE_PRIMARY_WITH_NON_ZERO_CODE",
        "7",
    )


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"SecurityConfiguration": "nobody's"}, "does not exist"),
        ({"ReleaseLabel": "7.12.0"}, "release label is invalid"),
        (
            {"BootstrapActions": [{"Name": "a", "ScriptBootstrapAction": {"Path": "s3://b/a.sh"}}] * 17},
            "bootstrap actions exceeded",
        ),
        ({"Steps": [step("true")] * 257}, "active steps exceeded"),
        ({"ServiceRole": "Nobody"}, "Invalid ServiceRole"),
        ({"KerberosAttributes": {"Realm": "R", "KdcAdminPassword": "p"}}, "go together"),
        ({"CustomAmiId": "ami-1", "ReleaseLabel": "emr-5.6.0"}, "Custom AMI is not allowed"),
    ],
)
def test_what_no_cluster_is_made_of_is_refused(emr_double: EmrDouble, more: dict[str, Any], says: str) -> None:
    connection = Connection(AwsPlace(REGION))
    with pytest.raises(AwsError, match=says) as raised:
        connection.call("emr", "run_job_flow", "the cluster", **cluster_request(**more))
    assert raised.value.code == "ValidationException"
    assert not emr_double.world.clusters


def local_disk(key: str, *, ebs: bool) -> str:
    disk = {"EncryptionKeyProviderType": "AwsKms", "AwsKmsKey": key, "EnableEbsEncryption": ebs}
    at_rest = {"LocalDiskEncryptionConfiguration": disk}
    encryption = {
        "EnableInTransitEncryption": False,
        "EnableAtRestEncryption": True,
        "AtRestEncryptionConfiguration": at_rest,
    }
    return json.dumps({"EncryptionConfiguration": encryption})


@pytest.mark.parametrize("ebs", [False, True])
def test_a_cluster_whose_roles_may_not_use_the_key_ends(emr_double: EmrDouble, ebs: bool) -> None:
    emr = emr_double.client("emr")
    emr.create_security_configuration(Name="disks", SecurityConfiguration=local_disk(emr_double.make_key(), ebs=ebs))
    cluster_id = emr.run_job_flow(**cluster_request(SecurityConfiguration="disks"))["JobFlowId"]
    emr_double.advance(120)
    status = cluster(emr_double, cluster_id)["Status"]
    role = SERVICE_ROLE if ebs else INSTANCE_ROLE
    assert status["State"] == "TERMINATED_WITH_ERRORS"
    assert role in status["StateChangeReason"]["Message"]


def test_who_asks_too_fast_is_throttled(emr_double: EmrDouble) -> None:
    emr_double.world.throttles = True
    emr = emr_double.client("emr")
    with pytest.raises(emr.exceptions.ClientError, match="Rate exceeded"):
        for _ in range(200):
            emr.describe_cluster(ClusterId="j-1") if emr_double.world.clusters else emr.list_clusters()
