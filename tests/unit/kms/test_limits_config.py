from __future__ import annotations

import pytest

from ringfence_agent.http.limits import Limits
from ringfence_agent.kms.limits_config import LimitsBlock, http_limits
from ringfence_zones.config_file import parse_config
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import HadoopConf

NOTHING = HadoopConf({})
HADOOP = HadoopConf({"hadoop.http.max.request.header.size": "65536", "hadoop.http.idle_timeout.ms": "30000"})


def block(text: str) -> LimitsBlock:
    return parse_config(text, "kms.yaml", LimitsBlock)


def test_nothing_said_means_the_cores_own_limits() -> None:
    assert http_limits(LimitsBlock(), NOTHING) == Limits()


def test_hadoops_properties_count_unless_the_block_says_otherwise() -> None:
    limits = http_limits(LimitsBlock(), HADOOP)
    assert (limits.head_bytes, limits.idle_timeout_s) == (65536, 30.0)
    limits = http_limits(block("header_size: 256KiB\nidle: 2m\n"), HADOOP)
    assert (limits.head_bytes, limits.idle_timeout_s) == (262_144, 120.0)


def test_every_setting_reaches_its_limit() -> None:
    text = (
        "connections: 100\nheader_size: 64KiB\nheader_count: 50\nbody_size: 1MiB\nbodies_size: 8MiB\n"
        "header_timeout: 2s\nbody_timeout: 3s\nidle: 4s\nwrite_timeout: 5s\n"
    )
    assert http_limits(block(text), NOTHING) == Limits(
        head_bytes=65_536,
        header_count=50,
        body_bytes=1_048_576,
        held_body_bytes=8_388_608,
        head_timeout_s=2.0,
        body_timeout_s=3.0,
        idle_timeout_s=4.0,
        write_timeout_s=5.0,
        connections=100,
    )


@pytest.mark.parametrize("text", ["connections: 1\n", "header_size: 1KiB\n", "idle: 0s\n", "body_size: 2GiB\n"])
def test_limits_that_would_serve_nobody_or_everything_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        block(text)


@pytest.mark.parametrize("name", ["hadoop.http.max.request.header.size", "hadoop.http.idle_timeout.ms"])
def test_so_are_hadoops(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        http_limits(LimitsBlock(), HadoopConf({name: "10"}))
