from __future__ import annotations

import pytest

from ringfence_agent.keystore.protectors.aws_kms_config import AwsKmsBlock, aws_kms_settings
from ringfence_zones.config_file import parse_config
from ringfence_zones.errors import ConfigError

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
MULTI_REGION = "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"


def block(**settings: object) -> AwsKmsBlock:
    text = "\n".join(f"{name}: {value}" for name, value in {"key": KEY, "cluster": "c", **settings}.items())
    return parse_config(text, "kms.yaml", AwsKmsBlock)


def test_an_arn_says_all_but_the_cluster() -> None:
    settings = aws_kms_settings(block())
    assert (settings.key, settings.region, settings.endpoint, settings.deadline_s) == (KEY, "eu-west-1", None, 5.0)
    assert aws_kms_settings(block(key=MULTI_REGION)).region == "us-gov-west-1"


@pytest.mark.parametrize(
    "key", ["alias/ringfence", "1234abcd-12ab-34cd-56ef-1234567890ab", "mrk-1234abcd12ab34cd56ef1234567890ab"]
)
def test_what_names_no_region_needs_one(key: str) -> None:
    with pytest.raises(ConfigError, match="region"):
        aws_kms_settings(block(key=key))
    assert aws_kms_settings(block(key=key, region="eu-west-1")).region == "eu-west-1"


@pytest.mark.parametrize(
    "key", ["ringfence", "alias/aws/s3", KEY.replace("key/", "alias/aws/"), KEY.replace("kms", "s3"), KEY + ":x", "''"]
)
def test_what_names_no_key_of_one_s_own_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="'key' must be"):
        block(key=key)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"region": "eu-west-2"}, "is in eu-west-1"),
        ({"former_keys": f"[{MULTI_REGION}]"}, "is in us-gov-west-1"),
        ({"fips": "true", "endpoint": "https://kms.example.com"}, "exclude each other"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        aws_kms_settings(block(**settings))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cluster", "a*"),
        ("cluster", "${aws:x}"),
        ("cluster", "a" * 129),
        ("cluster", "-a"),
        ("region", "Ireland"),
        ("deadline", "11s"),
        ("deadline", "100ms"),
        ("deadline", "5"),
        ("endpoint", "http://kms.example.com"),
        ("endpoint", "https://user@kms.example.com"),
        ("endpoint", "https://kms.example.com/path"),
        ("endpoint", "https://kms.example.com:port"),
        ("endpoint", "kms.example.com"),
        ("endpoint", "'https://kms.exa mple.com'"),
        ("endpoint", "https://kms.example.com:0"),
        ("former_keys", "[alias/old]"),
        ("former_keys", f"[{', '.join([KEY] * 9)}]"),
    ],
)
def test_a_value_of_another_form_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        block(**{name: value})


@pytest.mark.parametrize("endpoint", ["https://kms.example.com", "http://localhost:8080", "http://[::1]:8080"])
def test_an_endpoint_is_https_or_this_machine(endpoint: str) -> None:
    assert aws_kms_settings(block(endpoint=f"'{endpoint}'")).endpoint == endpoint
