"""Which AWS KMS key protects a store, and how AWS is reached: the `aws_kms` block of kms.yaml.

Rules:

1. Region, endpoint and FIPS are what this block says. What the environment or a profile says of them
   (AWS_ENDPOINT_URL and its kin) is passed over: it must not decide where keys are sent.
2. An endpoint is https; plain http only to this machine itself, for tests.
3. No credential stands here. The SDK finds them as everywhere on AWS: environment, profile, container or instance role.
4. The key is one that this account or another made. Keys that AWS manages (`alias/aws/...`) are refused: nobody can
   change who may use them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import Field, field_validator

from ringfence_zones.aws_names import KEY_ID, REGION, find_key_arn
from ringfence_zones.config_file import ConfigModel, DurationS
from ringfence_zones.errors import ConfigError
from ringfence_zones.http_origin import find_origin
from ringfence_zones.kms_uri import is_loopback

DEFAULT_DEADLINE_S = 5.0
# A protector's call returns or raises within about 10 s (`keystore.protector`).
MAX_DEADLINE_S = 10.0
MAX_FORMER_KEYS = 8
_KEY_ID = re.compile(KEY_ID)
_ALIAS = re.compile(r"alias/[A-Za-z0-9/_-]{1,250}")
# It stands in conditions of key policies, where *, ? and ${ mean something else than themselves.
_CLUSTER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_OF_AWS = "alias/aws/"


class AwsKmsBlock(ConfigModel):
    """`aws_kms:` in kms.yaml.

    key          the key's ARN; or an alias or id, which is looked up once, at start
    cluster      whose keys these are; part of every encryption context, so it never changes
    region       the ARN's unless named
    endpoint     of a VPC endpoint with a name of its own; else the region's public one
    fips         use the region's FIPS endpoint
    deadline     how long one operation may take, its retries included
    former_keys  ARNs of keys that slots and seals still name, while a store moves away from them
    """

    key: str
    cluster: str
    region: str | None = Field(None, pattern=f"^{REGION}$")
    endpoint: str | None = None
    fips: bool = False
    deadline: DurationS = Field(DEFAULT_DEADLINE_S, ge=0.5, le=MAX_DEADLINE_S)
    former_keys: list[str] = Field(default_factory=list, max_length=MAX_FORMER_KEYS)

    @field_validator("key")
    @classmethod
    def _key(cls, value: str) -> str:
        return _checked_key(value)

    @field_validator("cluster")
    @classmethod
    def _cluster(cls, value: str) -> str:
        if _CLUSTER.fullmatch(value) is None:
            raise ValueError("must be a name of at most 128 letters, digits and inner . _ -")
        return value

    @field_validator("endpoint")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        return None if value is None else _checked_endpoint(value)

    @field_validator("former_keys")
    @classmethod
    def _former_keys(cls, value: list[str]) -> list[str]:
        for key in value:
            arn = find_key_arn(key)
            if arn is None or arn.is_alias:
                raise ValueError("must hold key ARNs, for an alias may name another key tomorrow")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsKmsSettings:
    """The block with its region found. `key` is an ARN, `alias/NAME` or a key's id; `deadline_s` in seconds."""

    key: str
    cluster: str
    region: str
    endpoint: str | None = None
    fips: bool = False
    deadline_s: float = DEFAULT_DEADLINE_S
    former_keys: tuple[str, ...] = ()


def aws_kms_settings(block: AwsKmsBlock) -> AwsKmsSettings:
    """The block's settings; nothing is asked of AWS. Raises ConfigError for settings that contradict one another."""
    arn = find_key_arn(block.key)
    region = block.region or (arn.region if arn is not None else None)
    if region is None:
        raise ConfigError(
            f"aws_kms.key {block.key} does not say its region", hint="write the key's ARN, or set aws_kms.region"
        )
    for text in (block.key, *block.former_keys):
        named = find_key_arn(text)
        if named is not None and named.region != region:
            raise ConfigError(
                f"{text} is in {named.region}, but aws_kms.region is {region}",
                hint="a server uses keys of one region; for a move to another, protect the store with a file between",
            )
    if block.fips and block.endpoint is not None:
        raise ConfigError(
            "aws_kms.fips and aws_kms.endpoint exclude each other",
            hint="name the FIPS endpoint itself, or leave it out",
        )
    return AwsKmsSettings(
        key=block.key,
        cluster=block.cluster,
        region=region,
        endpoint=block.endpoint,
        fips=block.fips,
        deadline_s=block.deadline,
        former_keys=tuple(block.former_keys),
    )


def _checked_key(value: str) -> str:
    arn = find_key_arn(value)
    if arn is None and _KEY_ID.fullmatch(value) is None and _ALIAS.fullmatch(value) is None:
        raise ValueError("must be the ARN of a KMS key, alias/NAME or a key's id")
    if value.startswith(_OF_AWS) or (arn is not None and f":{_OF_AWS}" in value):
        raise ValueError("must be a key of your own: what AWS manages cannot be limited to this server")
    return value


def _checked_endpoint(value: str) -> str:
    origin = find_origin(value)
    if origin is None:
        raise ValueError("must be an address like https://vpce-1a2b.kms.eu-west-1.vpce.amazonaws.com")
    if origin.scheme == "http" and not is_loopback(origin.host):
        raise ValueError(f"must be https for {origin.host}: the store's root would cross the network in clear")
    return f"{origin.scheme}://{origin.bracketed_host}" + (f":{origin.port}" if origin.port else "")
