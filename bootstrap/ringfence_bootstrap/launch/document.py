"""The cluster document as it is written: one pydantic model per block.

These models say what one value may be. What several values mean together is `refusals.py`; what a cluster gets of them
is `pieces.py`. Types are strict, as in the policy document: `3` is no text and `yes` no boolean. Where a block is
EMR's own (a classification), its fields have EMR's own names, so that a block can be pasted from there.

A secret has no place here: passwords are named by a file or by a secret of Secrets Manager.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictInt, StrictStr

from ringfence_bootstrap.releases import parse_release
from ringfence_zones.aws_names import BUCKET, REGION, find_key_arn, is_secret_arn
from ringfence_zones.errors import InputError
from ringfence_zones.findings import Rule
from ringfence_zones.policy_document import Block, Duration, document_version, problem

_REGION = re.compile(REGION)
_S3_URI = re.compile(rf"s3://{BUCKET}/[^\s]*")
_SCRIPT = re.compile(_S3_URI.pattern + r"|(file:/)?/\S+")
_IDS = {
    "ami": re.compile(r"ami-[0-9a-f]{8,17}"),
    "subnet": re.compile(r"subnet-[0-9a-f]{8,17}"),
    "sg": re.compile(r"sg-[0-9a-f]{8,17}"),
}
_INSTANCE_TYPE = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+")
_PRICE = re.compile(r"[0-9]+(\.[0-9]+)?")
# EMR's names for users' eyes; its API takes up to 256 characters (XmlStringMaxLen256).
_MAX_NAME_CHARACTERS = 256


def _like(pattern: re.Pattern[str], what: str, example: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise problem(Rule.BAD_VALUE, f"{_quoted(text)} is not {what}", f"write it as {example}")
        return text

    return AfterValidator(check)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _name(text: str) -> str:
    # EMR refuses these characters in names of clusters and steps, and no name needs others that cannot be seen.
    if not text or len(text) > _MAX_NAME_CHARACTERS or not text.isprintable() or set(text) & set("<>$|`"):
        hint = f"use 1 to {_MAX_NAME_CHARACTERS} visible characters, none of < > $ | `"
        raise problem(Rule.BAD_VALUE, f"{_quoted(text)} is no name that EMR takes", hint)
    return text


def _release(text: str) -> str:
    try:
        parse_release(text)
    except InputError as error:
        raise problem(Rule.BAD_VALUE, error.message, error.hint or "write it as emr-7.12.0") from None
    return text


def _kms_key(text: str) -> str:
    arn = find_key_arn(text)
    if arn is None or arn.is_alias:
        hint = "write the key's whole ARN: arn:aws:kms:REGION:ACCOUNT:key/ID; an alias may move to another key"
        raise problem(Rule.BAD_VALUE, f"{_quoted(text)} is not the ARN of an AWS KMS key", hint)
    return text


def _secret(text: str) -> str:
    if not is_secret_arn(text):
        # Not quoted: it may be the secret itself.
        hint = "write arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME; the document is no place for the secret itself"
        raise problem(Rule.BAD_VALUE, "this is not the ARN of a secret", hint)
    return text


def _text(value: Any) -> Any:
    # Not quoted: a password is as often a number as not.
    if not isinstance(value, str):
        raise problem(Rule.BAD_VALUE, "this is not text", "quote it: EMR takes numbers, true and false as text too")
    return value


def _some_text(text: str) -> str:
    if not text or not text.isprintable():
        raise problem(Rule.BAD_VALUE, "this is no visible text", "write it, or remove the line")
    return text


def _at_least(least: int) -> AfterValidator:
    def check(number: int) -> int:
        if number < least:
            raise problem(Rule.BAD_VALUE, f"{number} is too few", f"write {least} or more")
        return number

    return AfterValidator(check)


def _named_password(value: Any) -> Any:
    # Not quoted: what stands there instead of a block is the password.
    named = isinstance(value, dict) and len({"secret", "file"} & value.keys()) == 1
    if not named:
        hint = "write  {secret: arn:aws:secretsmanager:...}  or  {file: PATH}, one of the two"
        raise problem(Rule.BAD_VALUE, "this does not say where the password is", hint)
    return value


def _primaries(value: Any) -> Any:
    if value in (1, 3) and not isinstance(value, bool):
        return value
    message = f"{value!r} is not a number of primary nodes that EMR launches"
    raise problem(Rule.EMR_PRIMARY_NODES, message, "write 1, or 3 for high availability")


Name = Annotated[StrictStr, AfterValidator(_name)]
ReleaseLabel = Annotated[StrictStr, AfterValidator(_release)]
Region = Annotated[StrictStr, _like(_REGION, "a region", "eu-central-1")]
S3Uri = Annotated[StrictStr, _like(_S3_URI, "an object of S3", "s3://BUCKET/KEY")]
KmsKeyArn = Annotated[StrictStr, AfterValidator(_kms_key)]
SecretArn = Annotated[StrictStr, AfterValidator(_secret)]
AmiId = Annotated[StrictStr, _like(_IDS["ami"], "an image", "ami-0123456789abcdef0")]
SubnetId = Annotated[StrictStr, _like(_IDS["subnet"], "a subnet", "subnet-0123456789abcdef0")]
SecurityGroupId = Annotated[StrictStr, _like(_IDS["sg"], "a security group", "sg-0123456789abcdef0")]
InstanceType = Annotated[StrictStr, _like(_INSTANCE_TYPE, "an instance type", "m6i.xlarge")]
Price = Annotated[StrictStr, _like(_PRICE, "a price in US dollars", '"0.35"')]
Words = Annotated[StrictStr, AfterValidator(_some_text)]
Text = Annotated[StrictStr, BeforeValidator(_text)]
Count = Annotated[StrictInt, _at_least(1)]
ScriptPath = Annotated[StrictStr, _like(_SCRIPT, "a script that a node can read", "s3://BUCKET/KEY")]
OnFailure = Literal["CONTINUE", "CANCEL_AND_WAIT", "TERMINATE_CLUSTER"]


class ConfigurationBlock(Block):
    """One classification, in EMR's own words."""

    Classification: Words = Field(description="Such as core-site.")
    Properties: dict[Words, Text] = Field({}, description="Every value is text: quote numbers and true.")
    Configurations: tuple[ConfigurationBlock, ...] = Field((), description="Nested, such as export.")


class VolumeBlock(Block):
    """EBS volumes of each instance of a group."""

    type: Literal["gp2", "gp3", "io1", "io2", "st1", "sc1", "standard"] = Field("gp3", description="EBS's volume type.")
    size_gib: Count = Field(description="Size of each in GiB.")
    per_instance: Count = Field(1, description="How many each instance gets.")
    iops: Count | None = Field(None, description="For io1, io2 and gp3.")
    throughput_mib_s: Count | None = Field(None, description="For gp3.")


class GroupBlock(Block):
    """An instance group."""

    type: InstanceType = Field(description="EC2's instance type.")
    count: Count = Field(1, description="How many instances.")
    bid_price: Price | None = Field(None, description="Makes them spot instances at this most in US dollars an hour.")
    volumes: tuple[VolumeBlock, ...] = Field((), description="EBS volumes for data; none: EMR's default.")
    configurations: tuple[ConfigurationBlock, ...] = Field((), description="Classifications of this group alone.")


class PrimaryGroupBlock(GroupBlock):
    """The primary nodes: one, or three."""

    count: Annotated[Literal[1, 3], BeforeValidator(_primaries)] = Field(1, description="1, or 3.")


class TaskGroupBlock(GroupBlock):
    """Task nodes: no HDFS on them."""

    name: Name = Field(description="Of the group; unique.")


class InstancesBlock(Block):
    """The cluster's nodes, as instance groups."""

    primary: PrimaryGroupBlock
    core: GroupBlock
    task: tuple[TaskGroupBlock, ...] = ()


class NetworkBlock(Block):
    """Where the nodes are, and who reaches them."""

    subnet: SubnetId = Field(description="A group's instances are all in one.")
    key_pair: Words | None = Field(None, description="EC2's key pair for SSH.")
    primary_security_group: SecurityGroupId | None = Field(None, description="EMR-managed, of the primary nodes.")
    worker_security_group: SecurityGroupId | None = Field(None, description="EMR-managed, of core and task nodes.")
    service_access_security_group: SecurityGroupId | None = Field(None, description="Private subnets need it.")
    more_primary_security_groups: tuple[SecurityGroupId, ...] = ()
    more_worker_security_groups: tuple[SecurityGroupId, ...] = ()


class SecurityConfigurationBlock(Block):
    """A security configuration, by name; with its file it is checked, and made by Terraform and CloudFormation."""

    name: Name = Field(description="What the cluster names it by.")
    file: Words | None = Field(None, description="Its JSON document, beside this one.")


class PasswordBlock(Block):
    """Where a password is: exactly one of the two."""

    secret: SecretArn | None = Field(None, description="For Terraform and CloudFormation.")
    key: Words | None = Field(None, description="Of a secret that is JSON: the password's name in it.")
    file: Words | None = Field(None, description="For RunJobFlow; mode 0600, its first line is the password.")


Password = Annotated[PasswordBlock, BeforeValidator(_named_password)]


class KerberosBlock(Block):
    """KerberosAttributes: what a security configuration with Kerberos needs of each cluster."""

    realm: Words = Field(description="Such as EC2.INTERNAL.")
    kdc_admin_password: Password
    cross_realm_trust_password: Password | None = Field(None, description="With a cross-realm trust.")
    ad_join_user: Words | None = Field(None, description="With Active Directory.")
    ad_join_password: Password | None = Field(None, description="With Active Directory.")


class BootstrapActionBlock(Block):
    """A bootstrap action of your own."""

    name: Name
    path: ScriptPath
    args: tuple[Text, ...] = ()


class StepBlock(Block):
    """A step of your own."""

    name: Name
    jar: Words = Field(description="Such as command-runner.jar.")
    main_class: Words | None = None
    args: tuple[Text, ...] = ()
    properties: dict[Words, Text] = Field(default={}, description="Java system properties of the jar.")
    on_failure: OnFailure = "CONTINUE"


class ZonesBlock(Block):
    """The step that applies the policy."""

    policy: S3Uri = Field(description="What the step reads.")
    policy_file: Words | None = Field(None, description="The same here: it is checked, and the step takes no other.")
    script: S3Uri = Field(description="step-zones.sh.")
    wait: Duration = Field("15m", description="How long for HDFS and for its key provider, at most a day.")
    on_failure: OnFailure = Field("CANCEL_AND_WAIT", description="What EMR does when zones are not as they should be.")
    require_tls: StrictBool | None = Field(
        None, description="Whether the NameNode's KMS has to be an https one; as the bootstrap configuration has it."
    )


class RingfenceBlock(Block):
    """What of Ringfence the cluster gets."""

    bootstrap_action: S3Uri = Field(description="bootstrap-action.sh.")
    configuration: S3Uri = Field(description="bootstrap.yaml, which every node reads.")
    configuration_file: Words = Field(description="The same here: it is checked, and nodes take no other.")
    zones: ZonesBlock | None = None


class ClusterDocument(Block):
    """An EMR cluster and what of Ringfence runs on it."""

    version: Annotated[Literal[1], BeforeValidator(document_version)] = Field(description="Version of this format.")
    name: Name = Field(description="The cluster's name.")
    release: ReleaseLabel = Field(description="Such as emr-7.12.0.")
    region: Region = Field(description="Such as eu-central-1.")
    applications: tuple[Words, ...] = Field(description="EMR's names: Hadoop, Spark, Hive.")
    service_role: Words = Field(description="EMR's own role.")
    instance_profile: Words = Field(description="The nodes'.")
    log_uri: S3Uri | None = Field(None, description="Where logs go; none: nowhere.")
    log_encryption_key: KmsKeyArn | None = Field(None, description="The AWS KMS key for logs.")
    custom_ami: AmiId | None = None
    root_volume_gib: Annotated[StrictInt, _at_least(10)] | None = None
    termination_protection: StrictBool = True
    keep_alive: StrictBool = Field(True, description="Whether the cluster waits when all steps are done.")
    step_concurrency: Count = 1
    tags: dict[Words, Text] = Field(default={}, description="Of the cluster and its instances.")
    network: NetworkBlock
    instances: InstancesBlock
    security_configuration: SecurityConfigurationBlock | None = None
    kerberos: KerberosBlock | None = None
    configurations: tuple[ConfigurationBlock, ...] = ()
    configuration_files: tuple[Words, ...] = Field((), description="Files beside this one with more of them, as JSON.")
    bootstrap_actions: tuple[BootstrapActionBlock, ...] = ()
    ringfence: RingfenceBlock | None = None
    steps: tuple[StepBlock, ...] = ()
