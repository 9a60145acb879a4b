"""The cluster in Terraform's JSON syntax: `aws_emr_cluster`, task groups, and the security configuration.

Terraform reads every text as a template, so `${user.name}` of a Hadoop property is escaped. Names of arguments are
those of the AWS provider (hashicorp/aws). A Kerberos password is read from Secrets Manager by a data source: it stands
in no file of ours, but in Terraform's state, as every argument does.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ringfence_bootstrap.launch.document import GroupBlock, InstancesBlock, KerberosBlock, PasswordBlock, VolumeBlock
from ringfence_bootstrap.launch.pieces import Step, bootstrap_actions, steps
from ringfence_bootstrap.launch.reading import Launch
from ringfence_bootstrap.launch.run_job_flow import classifications
from ringfence_zones.errors import ConfigError

# The provider that has log_encryption_kms_key_id and the throughput of volumes.
_PROVIDER = {"source": "hashicorp/aws", "version": ">= 5.0"}
_LABEL = re.compile(r"[^A-Za-z0-9_-]+")
_CLUSTER, _SECURITY, _SECRET = "aws_emr_cluster", "aws_emr_security_configuration", "aws_secretsmanager_secret_version"


def terraform_document(launch: Launch) -> dict[str, Any]:
    """The content of a `.tf.json` file. Raises ConfigError for a Kerberos password that is in a file."""
    document = launch.document
    label = _label(document.name)
    _refuse_what_the_provider_lacks(document.instances)
    cluster: dict[str, Any] = {
        "name": _literal(document.name),
        "release_label": launch.release.label,
        "applications": [_literal(name) for name in document.applications],
        "service_role": _literal(document.service_role),
        "termination_protection": document.termination_protection,
        "keep_job_flow_alive_when_no_steps": document.keep_alive,
        "step_concurrency_level": document.step_concurrency,
        "ec2_attributes": _ec2_attributes(launch),
        "master_instance_group": _group("primary", document.instances.primary),
        "core_instance_group": _group("core", document.instances.core),
        # Steps are history: another list of them would make Terraform replace the cluster, and its HDFS be empty.
        "lifecycle": {"ignore_changes": ["step"], "prevent_destroy": document.termination_protection},
    }
    resources: dict[str, Any] = {_CLUSTER: {label: cluster}}
    cluster |= _given(
        log_uri=document.log_uri,
        log_encryption_kms_key_id=document.log_encryption_key,
        custom_ami_id=document.custom_ami,
        ebs_root_volume_size=document.root_volume_gib,
        configurations_json=_json(classifications(launch.configurations)) if launch.configurations else None,
        bootstrap_action=[
            {"name": _literal(each.name), "path": _literal(each.path), "args": [_literal(arg) for arg in each.args]}
            for each in bootstrap_actions(document, launch.pins)
        ],
        step=[_step(step) for step in steps(document, launch.pins)],
        tags={name: _literal(value) for name, value in document.tags.items()},
    )
    out: dict[str, Any] = {
        "terraform": {"required_providers": {"aws": _PROVIDER}},
        "provider": {"aws": {"region": document.region}},
    }
    if document.kerberos is not None:
        cluster["kerberos_attributes"], secrets = _kerberos(document.kerberos, label)
        out["data"] = {_SECRET: secrets}
    named = document.security_configuration
    if named is not None:
        cluster["security_configuration"] = _literal(named.name)
    if named is not None and launch.security is not None:
        resource = {"name": _literal(named.name), "configuration": _json(launch.security.to_json())}
        resources[_SECURITY] = {_label(named.name): resource}
        cluster["security_configuration"] = f"${{{_SECURITY}.{_label(named.name)}.name}}"
    if document.instances.task:
        resources["aws_emr_instance_group"] = {
            f"{label}-{_label(each.name)}": {
                "cluster_id": f"${{{_CLUSTER}.{label}.id}}",
                **_group(each.name, each),
                **_given(
                    configurations_json=_json(classifications(each.configurations)) if each.configurations else None
                ),
            }
            for each in document.instances.task
        }
    return {**out, "resource": resources}


def _refuse_what_the_provider_lacks(instances: InstancesBlock) -> None:
    for role, group in (("primary", instances.primary), ("core", instances.core)):
        if group.configurations:
            raise ConfigError(
                f"instances.{role}.configurations: Terraform's aws_emr_cluster has no classifications of a group",
                hint="move them to the document's configurations, or write another format",
            )
    for index, task in enumerate(instances.task):
        if any(volume.throughput_mib_s is not None for volume in task.volumes):
            raise ConfigError(
                f"instances.task[{index}].volumes: Terraform's aws_emr_instance_group has no throughput_mib_s",
                hint="leave it out, or write another format",
            )


def _ec2_attributes(launch: Launch) -> dict[str, Any]:
    network = launch.document.network
    return {
        "subnet_id": network.subnet,
        "instance_profile": _literal(launch.document.instance_profile),
        **_given(
            key_name=network.key_pair,
            emr_managed_master_security_group=network.primary_security_group,
            emr_managed_slave_security_group=network.worker_security_group,
            service_access_security_group=network.service_access_security_group,
            additional_master_security_groups=",".join(network.more_primary_security_groups),
            additional_slave_security_groups=",".join(network.more_worker_security_groups),
        ),
    }


def _group(name: str, group: GroupBlock) -> dict[str, Any]:
    return {
        "name": _literal(name),
        "instance_type": group.type,
        "instance_count": group.count,
        **_given(bid_price=group.bid_price, ebs_config=[_volume(each) for each in group.volumes]),
    }


def _volume(volume: VolumeBlock) -> dict[str, Any]:
    out = {"type": volume.type, "size": volume.size_gib, "volumes_per_instance": volume.per_instance}
    return out | _given(iops=volume.iops, throughput=volume.throughput_mib_s)


def _step(step: Step) -> dict[str, Any]:
    # The provider has these two as attributes of objects, which are all to be there: null is "not given".
    jar: dict[str, Any] = {
        "jar": _literal(step.jar),
        "main_class": _literal(step.main_class) if step.main_class is not None else None,
        "args": [_literal(arg) for arg in step.args],
        "properties": {name: _literal(value) for name, value in step.properties.items()} or None,
    }
    return {"name": _literal(step.name), "action_on_failure": step.on_failure, "hadoop_jar_step": [jar]}


def _kerberos(kerberos: KerberosBlock, label: str) -> tuple[dict[str, Any], dict[str, Any]]:
    attributes: dict[str, Any] = {"realm": _literal(kerberos.realm)}
    attributes |= _given(ad_domain_join_user=_literal(kerberos.ad_join_user) if kerberos.ad_join_user else None)
    secrets: dict[str, Any] = {}
    passwords = {
        "kdc_admin_password": ("kdc_admin_password", kerberos.kdc_admin_password),
        "cross_realm_trust_principal_password": ("cross_realm_trust_password", kerberos.cross_realm_trust_password),
        "ad_domain_join_password": ("ad_join_password", kerberos.ad_join_password),
    }
    for argument, (field, block) in passwords.items():
        if block is not None:
            name = f"{label}_{field}"
            secrets[name] = {"secret_id": secret_of(field, block)}
            attributes[argument] = _reference(f"data.{_SECRET}.{name}.secret_string", block)
    return attributes, secrets


def _reference(value: str, block: PasswordBlock) -> str:
    return f"${{{value}}}" if block.key is None else f"${{jsondecode({value})[{json.dumps(_literal(block.key))}]}}"


def secret_of(field: str, block: PasswordBlock) -> str:
    """The ARN of a password's secret. Raises ConfigError for one in a file, which would go into a document."""
    if block.secret is None:
        raise ConfigError(
            f"kerberos.{field} is in a file, and the document of Terraform or CloudFormation would hold it in clear",
            hint=f"put it into Secrets Manager:  {field}: {{secret: arn:aws:secretsmanager:...}}",
        )
    return block.secret


def _json(value: Any) -> str:
    return _literal(json.dumps(value))


def _literal(text: str) -> str:
    """Text that Terraform's templates leave as it is."""
    return text.replace("${", "$${").replace("%{", "%%{")


def _label(name: str) -> str:
    label = _LABEL.sub("-", name).strip("-")
    return label if label[:1].isalpha() else f"cluster-{label}".rstrip("-")


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value not in (None, [], {}, "")}
