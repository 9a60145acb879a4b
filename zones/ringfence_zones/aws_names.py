"""How AWS writes the names that documents and commands of Ringfence carry: regions, ARNs, buckets. Asks nobody.

A name of the right form may still be nobody's; whether it is there says AWS alone. The key's own id is held to its form
(a UUID, or `mrk-` and 32 digits), because an ARN that lost its end is the commonest mistake.

Source: "Amazon Resource Names" of the IAM user guide, "Key identifiers" of the KMS developer guide, "Bucket naming
rules" of the S3 user guide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

REGION = r"[a-z]{2,4}(?:-[a-z]+)+-[0-9]{1,2}"
KEY_ID = r"(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32})"
BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
"""Patterns of a region, of a KMS key's id and of a bucket's name."""
_KEY_ARN = re.compile(
    rf"arn:(?P<partition>aws[a-z-]*):kms:(?P<region>{REGION}):(?P<account>[0-9]{{12}}):"
    rf"(?P<resource>key/{KEY_ID}|alias/[A-Za-z0-9/_-]{{1,250}})"
)
_SECRET_ARN = re.compile(rf"arn:aws[a-z-]*:secretsmanager:{REGION}:[0-9]{{12}}:secret:\S+")


@dataclass(frozen=True, slots=True)
class KeyArn:
    """`arn:PARTITION:kms:REGION:ACCOUNT:key/ID`, or `alias/NAME` in place of `key/ID`."""

    text: str
    partition: str
    region: str
    account: str
    resource: str

    @property
    def is_alias(self) -> bool:
        """Whether it names an alias, which may be given to another key."""
        return self.resource.startswith("alias/")


def find_key_arn(text: str) -> KeyArn | None:
    """The parts of an ARN of a KMS key or alias; None for what is none."""
    match = _KEY_ARN.fullmatch(text)
    return KeyArn(text, **match.groupdict()) if match is not None else None


def is_secret_arn(text: str) -> bool:
    """Whether it is the ARN of a secret in Secrets Manager."""
    return _SECRET_ARN.fullmatch(text) is not None
