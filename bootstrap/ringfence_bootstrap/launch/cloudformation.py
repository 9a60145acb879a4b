"""The cluster as a CloudFormation template: `AWS::EMR::Cluster`, and its security configuration.

It is the request of RunJobFlow under CloudFormation's names, which differ in three places: the properties of a
classification are `ConfigurationProperties`, those of a step `StepProperties`, and instance groups are members by role.
A Kerberos password is a dynamic reference to Secrets Manager, which CloudFormation resolves when it makes the cluster.
"""

from __future__ import annotations

from typing import Any

from ringfence_bootstrap.launch.document import PasswordBlock
from ringfence_bootstrap.launch.reading import Launch
from ringfence_bootstrap.launch.run_job_flow import make_request
from ringfence_bootstrap.launch.terraform import secret_of

_GROUPS = {"MASTER": "MasterInstanceGroup", "CORE": "CoreInstanceGroup"}
_CLUSTER, _SECURITY = "Cluster", "SecurityConfiguration"


def cloudformation_template(launch: Launch) -> dict[str, Any]:
    """The template. Raises ConfigError for a Kerberos password that is in a file."""
    properties = make_request(launch, _dynamic_reference)
    properties["Instances"] = _instances(properties["Instances"])
    if "Configurations" in properties:
        properties["Configurations"] = [_classification(each) for each in properties["Configurations"]]
    if "Steps" in properties:
        properties["Steps"] = [_step(each) for each in properties["Steps"]]
    # CloudFormation's default is false, unlike the API's.
    properties["VisibleToAllUsers"] = True
    cluster: dict[str, Any] = {"Type": "AWS::EMR::Cluster", "Properties": properties}
    resources: dict[str, Any] = {_CLUSTER: cluster}
    if launch.document.termination_protection:
        # A stack that is deleted leaves the cluster and its data, whose protection would stop the deletion half-way.
        cluster |= {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
    named = launch.document.security_configuration
    if named is not None and launch.security is not None:
        resources[_SECURITY] = {
            "Type": "AWS::EMR::SecurityConfiguration",
            "Properties": {"Name": named.name, "SecurityConfiguration": launch.security.to_json()},
        }
        properties["SecurityConfiguration"] = {"Ref": _SECURITY}
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"EMR cluster {launch.document.name}",
        "Resources": resources,
        "Outputs": {"ClusterId": {"Value": {"Ref": _CLUSTER}}},
    }


def _dynamic_reference(field: str, block: PasswordBlock) -> str:
    key = f":{block.key}" if block.key is not None else ""
    return f"{{{{resolve:secretsmanager:{secret_of(field, block)}:SecretString{key}}}}}"


def _instances(instances: dict[str, Any]) -> dict[str, Any]:
    out = {name: value for name, value in instances.items() if name != "InstanceGroups"}
    tasks = []
    for group in instances["InstanceGroups"]:
        properties = {name: value for name, value in group.items() if name != "InstanceRole"}
        if "Configurations" in properties:
            properties["Configurations"] = [_classification(each) for each in properties["Configurations"]]
        if group["InstanceRole"] in _GROUPS:
            out[_GROUPS[group["InstanceRole"]]] = properties
        else:
            tasks.append(properties)
    return out | ({"TaskInstanceGroups": tasks} if tasks else {})


def _classification(given: dict[str, Any]) -> dict[str, Any]:
    out = {"Classification": given["Classification"], "ConfigurationProperties": given["Properties"]}
    if "Configurations" in given:
        out["Configurations"] = [_classification(each) for each in given["Configurations"]]
    return out


def _step(given: dict[str, Any]) -> dict[str, Any]:
    jar = dict(given["HadoopJarStep"])
    if "Properties" in jar:
        jar["StepProperties"] = jar.pop("Properties")
    return {**given, "HadoopJarStep": jar}
