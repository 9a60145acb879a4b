"""The request of RunJobFlow, as SDKs take it. The AWS CLI has only a command of its own, with other names.

Names and nesting are EMR's API's; what is left out of a document is left out here. RunJobFlow takes Kerberos passwords
themselves and no reference, so they are read from files, and whoever writes the request keeps it to its owner.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ringfence_bootstrap.launch.document import (
    ClusterDocument,
    ConfigurationBlock,
    GroupBlock,
    KerberosBlock,
    PasswordBlock,
    VolumeBlock,
)
from ringfence_bootstrap.launch.pieces import Step, bootstrap_actions, steps
from ringfence_bootstrap.launch.reading import Launch
from ringfence_zones.errors import ConfigError

_MAX_PASSWORD_BYTES = 256
ReadPassword: TypeAlias = Callable[[str, PasswordBlock], str]


def run_job_flow_request(launch: Launch) -> dict[str, Any]:
    """The request. Raises ConfigError when a Kerberos password cannot be read from a file."""
    return make_request(launch, lambda field, block: _read_password(field, block, launch.directory))


def make_request(launch: Launch, password: ReadPassword) -> dict[str, Any]:
    """The request with passwords as `password` gives them, by the document's field and block."""
    document = launch.document
    request: dict[str, Any] = {
        "Name": document.name,
        "ReleaseLabel": launch.release.label,
        "Applications": [{"Name": name} for name in document.applications],
        "Instances": _instances(document),
        "JobFlowRole": document.instance_profile,
        "ServiceRole": document.service_role,
        "StepConcurrencyLevel": document.step_concurrency,
    }
    request |= _given(
        LogUri=document.log_uri,
        LogEncryptionKmsKeyId=document.log_encryption_key,
        CustomAmiId=document.custom_ami,
        EbsRootVolumeSize=document.root_volume_gib,
        SecurityConfiguration=document.security_configuration.name if document.security_configuration else None,
        KerberosAttributes=_kerberos(document.kerberos, password) if document.kerberos else None,
        Configurations=[classification(block) for block in launch.configurations],
        BootstrapActions=[
            {"Name": each.name, "ScriptBootstrapAction": {"Path": each.path, "Args": list(each.args)}}
            for each in bootstrap_actions(document, launch.pins)
        ],
        Steps=[_step(step) for step in steps(document, launch.pins)],
        Tags=[{"Key": name, "Value": value} for name, value in document.tags.items()],
    )
    return request


def classification(block: ConfigurationBlock) -> dict[str, Any]:
    """A classification as EMR's API and DescribeCluster have it."""
    out: dict[str, Any] = {"Classification": block.Classification, "Properties": dict(block.Properties)}
    if block.Configurations:
        out["Configurations"] = [classification(inner) for inner in block.Configurations]
    return out


def _instances(document: ClusterDocument) -> dict[str, Any]:
    network, groups = document.network, document.instances
    listed = [_group("primary", "MASTER", groups.primary), _group("core", "CORE", groups.core)]
    listed += [_group(each.name, "TASK", each) for each in groups.task]
    return {
        "InstanceGroups": listed,
        "Ec2SubnetId": network.subnet,
        "KeepJobFlowAliveWhenNoSteps": document.keep_alive,
        "TerminationProtected": document.termination_protection,
        **_given(
            Ec2KeyName=network.key_pair,
            EmrManagedMasterSecurityGroup=network.primary_security_group,
            EmrManagedSlaveSecurityGroup=network.worker_security_group,
            ServiceAccessSecurityGroup=network.service_access_security_group,
            AdditionalMasterSecurityGroups=list(network.more_primary_security_groups),
            AdditionalSlaveSecurityGroups=list(network.more_worker_security_groups),
        ),
    }


def _group(name: str, role: str, group: GroupBlock) -> dict[str, Any]:
    return {
        "Name": name,
        "InstanceRole": role,
        "InstanceType": group.type,
        "InstanceCount": group.count,
        "Market": "ON_DEMAND" if group.bid_price is None else "SPOT",
        **_given(
            BidPrice=group.bid_price,
            Configurations=[classification(block) for block in group.configurations],
            EbsConfiguration={"EbsBlockDeviceConfigs": [_volume(each) for each in group.volumes]}
            if group.volumes
            else None,
        ),
    }


def _volume(volume: VolumeBlock) -> dict[str, Any]:
    specification = {"VolumeType": volume.type, "SizeInGB": volume.size_gib}
    specification |= _given(Iops=volume.iops, Throughput=volume.throughput_mib_s)
    return {"VolumeSpecification": specification, "VolumesPerInstance": volume.per_instance}


def _step(step: Step) -> dict[str, Any]:
    jar: dict[str, Any] = {"Jar": step.jar}
    jar |= _given(
        MainClass=step.main_class,
        Args=list(step.args),
        Properties=[{"Key": name, "Value": value} for name, value in step.properties.items()],
    )
    return {"Name": step.name, "ActionOnFailure": step.on_failure, "HadoopJarStep": jar}


def _kerberos(kerberos: KerberosBlock, password: ReadPassword) -> dict[str, Any]:
    passwords = {
        "KdcAdminPassword": ("kdc_admin_password", kerberos.kdc_admin_password),
        "CrossRealmTrustPrincipalPassword": ("cross_realm_trust_password", kerberos.cross_realm_trust_password),
        "ADDomainJoinPassword": ("ad_join_password", kerberos.ad_join_password),
    }
    read = {name: password(field, block) for name, (field, block) in passwords.items() if block is not None}
    return {"Realm": kerberos.realm, **_given(ADDomainJoinUser=kerberos.ad_join_user), **read}


def _read_password(field: str, block: PasswordBlock, directory: Path) -> str:
    if block.file is None:
        raise ConfigError(
            f"kerberos.{field} names a secret of Secrets Manager, and RunJobFlow takes the password itself",
            hint=f"write  {field}: {{file: PATH}}  with a file of mode 0600, or launch by Terraform or CloudFormation",
        )
    path = directory / block.file
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            line = stream.read(_MAX_PASSWORD_BYTES + 2).split(b"\n", 1)[0]
    except OSError as error:
        raise ConfigError(f"cannot read {path} of kerberos.{field}: {error.strerror}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"others can read {path}, and it holds a password", command=f"chmod 600 {path}")
    try:
        password = line.decode("ascii")
    except UnicodeDecodeError:
        password = ""
    if not password.isprintable() or not 1 <= len(password) <= _MAX_PASSWORD_BYTES:
        raise ConfigError(
            f"the first line of {path} is no password that EMR takes",
            hint=f"write 1 to {_MAX_PASSWORD_BYTES} visible ASCII characters",
        )
    return password


def _given(**members: Any) -> dict[str, Any]:
    """What is not None and not empty."""
    return {name: value for name, value in members.items() if value not in (None, [], {})}


def holds_passwords(request: Mapping[str, Any]) -> bool:
    """Whether a request may be seen by its owner alone."""
    return "KerberosAttributes" in request


def classifications(blocks: Iterable[ConfigurationBlock]) -> list[dict[str, Any]]:
    """A list of them, as EMR has it."""
    return [classification(block) for block in blocks]
