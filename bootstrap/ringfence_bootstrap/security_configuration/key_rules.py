"""Rules about AWS KMS keys: how they are named, and whether EMR can use them for what they are named for.

Offline nobody knows whether a key exists, is symmetric or lets the cluster's roles use it; that is what permission
checks in the account are for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ringfence_bootstrap.security_configuration.document import LocalDisk, S3Mode, S3Rule
from ringfence_bootstrap.security_configuration.json_text import Location
from ringfence_bootstrap.security_configuration.nodes import Node
from ringfence_bootstrap.security_configuration.subject import Subject
from ringfence_zones.aws_names import KEY_ID, KeyArn, find_key_arn
from ringfence_zones.findings import Finding, Rule

_KEY = "AwsKmsKey"
_EXAMPLE = "arn:aws:kms:REGION:ACCOUNT:key/KEY-ID"
# Partitions that are not named `aws` begin their Regions so.
_REGION_PREFIXES = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b"}


def check_keys(subject: Subject) -> Iterator[Finding]:
    """Every key is named by its ARN, and is one that EMR can use for this."""
    for node, text in _named(subject):
        place = (*node.place, _KEY)
        arn = find_key_arn(text)
        if arn is None:
            yield subject.error(Rule.EMR_KEY, place, f"{text!r} is no ARN of an AWS KMS key", _way_to_arn(text))
        elif arn.is_alias:
            yield from _alias(subject, node, place, arn.resource)


def _way_to_arn(text: str) -> str:
    if re.fullmatch(KEY_ID, text) or text.startswith(("alias/", "key/")):
        return f"write the whole ARN, {_EXAMPLE}: aws kms describe-key prints it"
    if "${" in text or "{{" in text:
        return "lint what the template renders, not the template"
    return f"write {_EXAMPLE}"


def _alias(subject: Subject, node: Node, place: Location, alias: str) -> Iterator[Finding]:
    is_managed = alias.startswith("alias/aws/")
    if is_managed and (isinstance(node, LocalDisk) or (isinstance(node, S3Rule) and node.mode is S3Mode.CSE_KMS)):
        use = "local disks" if isinstance(node, LocalDisk) else "CSE-KMS"
        message = f"{alias} is managed by AWS, and EMR cannot use such a key for {use}"
        yield subject.error(Rule.EMR_KEY, place, message, "create a customer managed key, and name its ARN")
        return
    message = f"{alias} is an alias, and EMR's documentation wants the key's own ARN"
    yield subject.warn(Rule.EMR_KEY, place, message, f"write {_EXAMPLE}: aws kms describe-key prints it")


def check_regions(subject: Subject) -> Iterator[Finding]:
    """Keys are of the cluster's Region; without being told which that is, at least of one and the same."""
    arns = [((*node.place, _KEY), arn) for node, text in _named(subject) if (arn := find_key_arn(text)) is not None]
    first: str | None = None
    for place, arn in arns:
        partition = _partition(arn)
        if arn.partition != partition:
            message = f"Region {arn.region} is in the partition {partition}, not {arn.partition}"
            yield subject.error(Rule.EMR_KEY, place, message, f"write arn:{partition}:kms:…")
        if subject.region is not None and arn.region != subject.region:
            message = f"the key is of {arn.region}, and the cluster of {subject.region}"
            yield subject.error(Rule.EMR_KEY, place, message, f"name a key of {subject.region}")
        elif subject.region is None and first not in (None, arn.region):
            message = f"the key is of {arn.region}, and another one of {first}: a cluster uses keys of its own Region"
            yield subject.warn(Rule.EMR_KEY, place, message, "name keys of one Region; --region says which")
        first = first or arn.region


def _partition(arn: KeyArn) -> str:
    """The partition of its Region; what it says itself when neither is known here."""
    found = next((name for prefix, name in _REGION_PREFIXES.items() if arn.region.startswith(prefix)), None)
    if found is not None:
        return found
    return "aws" if arn.partition in _REGION_PREFIXES.values() else arn.partition


def _named(subject: Subject) -> Iterator[tuple[Node, str]]:
    for node in subject.document.nodes():
        text = node.written().get(_KEY)
        if isinstance(text, str):
            yield node, text
