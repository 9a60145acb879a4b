"""Requests to EMR that tests begin with."""

from __future__ import annotations

from typing import Any


def cluster_request(**more: Any) -> dict[str, Any]:
    """What RunJobFlow needs at least, and more."""
    return {
        "Name": "a cluster",
        "ReleaseLabel": "emr-7.12.0",
        "JobFlowRole": "EMR_EC2_DefaultRole",
        "ServiceRole": "EMR_DefaultRole",
        "Instances": {
            "InstanceGroups": [
                {"InstanceRole": "MASTER", "InstanceType": "m6g.xlarge", "InstanceCount": 1},
                {"InstanceRole": "CORE", "InstanceType": "m6g.xlarge", "InstanceCount": 2},
            ],
            "KeepJobFlowAliveWhenNoSteps": True,
        },
        **more,
    }


def step(*command: str, on_failure: str = "CONTINUE", name: str = "a step") -> dict[str, Any]:
    jar = {"Jar": "command-runner.jar", "Args": list(command)}
    return {"Name": name, "ActionOnFailure": on_failure, "HadoopJarStep": jar}
