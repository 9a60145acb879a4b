from __future__ import annotations

import pytest

from ringfence_agent.kms.key_memory_config import key_memory_s
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import HadoopConf

LONG = "hadoop.kms.cache.timeout.ms"
CURRENT = "hadoop.kms.current.key.cache.timeout.ms"
ENABLE = "hadoop.kms.cache.enable"


@pytest.mark.parametrize(
    ("from_file_s", "conf", "expected_s"),
    [
        (600.0, {}, 600.0),
        (600.0, {LONG: "60000"}, 60.0),
        (600.0, {LONG: "60000", CURRENT: "5000"}, 5.0),
        (10.0, {LONG: "60000", CURRENT: "30000"}, 10.0),
        (600.0, {CURRENT: "0"}, 0.0),
        (0.0, {LONG: "60000"}, 0.0),
        (600.0, {ENABLE: "true"}, 600.0),
        (600.0, {ENABLE: "false", LONG: "60000"}, 0.0),
    ],
)
def test_the_shortest_time_counts_and_a_cache_that_is_off_is_off(
    from_file_s: float, conf: dict[str, str], expected_s: float
) -> None:
    assert key_memory_s(from_file_s, HadoopConf(conf)) == expected_s


@pytest.mark.parametrize(
    ("from_file_s", "conf", "name"),
    [(0.5, {}, "key_memory"), (600.0, {LONG: "-1"}, LONG), (600.0, {CURRENT: "999"}, CURRENT)],
)
def test_a_time_that_cannot_be_kept_is_refused_by_name(from_file_s: float, conf: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigError, match=name) as refused:
        key_memory_s(from_file_s, HadoopConf(conf))
    assert "write 0" in (refused.value.hint or "")
