"""How long key material stays in memory: `key_memory` of kms.yaml, and Hadoop's switches for its key caches.

The shortest of what is said counts. `hadoop.kms.cache.timeout.ms` and `hadoop.kms.current.key.cache.timeout.ms` bound
it, `hadoop.kms.cache.enable=false` (or a time of 0) makes it 0: then material is opened for each request and dropped
with its answer (`key_cache`). Left out, Hadoop's two times bound nothing: there they say how soon a change made behind
the server's back is seen, which is here the revocation bound's business.
"""

from __future__ import annotations

from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import HadoopConf

DEFAULT_S = 600.0
MAX_S = 86_400.0
_ENABLE = "hadoop.kms.cache.enable"
_TIMEOUTS_MS = ("hadoop.kms.cache.timeout.ms", "hadoop.kms.current.key.cache.timeout.ms")
# What is old is looked for once a second.
_SHORTEST_S = 1.0


def key_memory_s(from_file_s: float, conf: HadoopConf) -> float:
    """Seconds, 0 for no memory of material. Raises ConfigError for a time that cannot be kept."""
    if not conf.get_bool(_ENABLE, True):
        return 0.0
    times = {"key_memory": from_file_s}
    for name in _TIMEOUTS_MS:
        if conf.get(name, ""):
            times[name] = conf.get_int(name, 0) / 1000
    for name, time_s in times.items():
        if time_s < 0 or 0 < time_s < _SHORTEST_S:
            raise ConfigError(
                f"{name} is {time_s:g} s: key material is kept for at least {_SHORTEST_S:g} s, or not at all",
                hint="write 0 to open the material for each request and keep none",
            )
    return min(times.values())
