"""How much clients may ask of the KMS: the `limits` block of kms.yaml, and what Hadoop's files say of the same.

Of Hadoop's properties two have a meaning here, `hadoop.http.max.request.header.size` (bytes) and
`hadoop.http.idle_timeout.ms`; the block overrules them. Threads, accept queues and the like are passed over: there is
one event loop per worker, and no queue to set.
"""

from __future__ import annotations

from pydantic import Field

from ringfence_agent.http.limits import Limits
from ringfence_zones.config_file import ConfigModel, DurationS, SizeBytes
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import HadoopConf

_KIB = 1024
_MIB = 1024 * _KIB
_HEADER_SIZE = "hadoop.http.max.request.header.size"
_IDLE_TIMEOUT = "hadoop.http.idle_timeout.ms"
# Less would refuse a Kerberos ticket, or a connection the moment it was promised to a client.
_LEAST_HEADER_BYTES = 8 * _KIB
_LEAST_IDLE_S = 1.0
_DEFAULTS = Limits()


class LimitsBlock(ConfigModel):
    """`limits:` in kms.yaml. All are for one worker.

    connections     open at once; beyond that, those that wait longest make room
    header_size     request line and headers; a Kerberos ticket with a large PAC needs 64 KiB
    header_count    headers of one request
    body_size       body of one request: a re-encryption batch needs about 300 bytes an EDEK
    bodies_size     unfinished bodies of all connections together
    header_timeout  from a request's first byte to the end of its headers; also for the TLS handshake
    body_timeout    from a request's first byte to its last
    idle            a connection is kept open so long for its next request
    write_timeout   a client that does not read its answer for so long is cut off
    """

    connections: int = Field(_DEFAULTS.connections, ge=16, le=1_000_000)
    header_size: SizeBytes | None = Field(None, ge=_LEAST_HEADER_BYTES, le=16 * _MIB)
    header_count: int = Field(_DEFAULTS.header_count, ge=32, le=10_000)
    body_size: SizeBytes = Field(_DEFAULTS.body_bytes, ge=64 * _KIB, le=1024 * _MIB)
    bodies_size: SizeBytes = Field(_DEFAULTS.held_body_bytes, ge=1 * _MIB)
    header_timeout: DurationS = Field(_DEFAULTS.head_timeout_s, ge=0.1, le=600)
    body_timeout: DurationS = Field(_DEFAULTS.body_timeout_s, ge=0.1, le=3600)
    idle: DurationS | None = Field(None, ge=_LEAST_IDLE_S, le=3600)
    write_timeout: DurationS = Field(_DEFAULTS.write_timeout_s, ge=0.1, le=3600)


def http_limits(block: LimitsBlock, conf: HadoopConf) -> Limits:
    """The limits of the HTTP core. Raises ConfigError for a property of Hadoop's that is out of bounds."""
    header_bytes = conf.get_int(_HEADER_SIZE, _DEFAULTS.head_bytes)
    idle_s = conf.get_int(_IDLE_TIMEOUT, int(_DEFAULTS.idle_timeout_s * 1000)) / 1000
    if header_bytes < _LEAST_HEADER_BYTES:
        raise ConfigError(f"{_HEADER_SIZE} must be at least {_LEAST_HEADER_BYTES} bytes, not {header_bytes}")
    if idle_s < _LEAST_IDLE_S:
        raise ConfigError(f"{_IDLE_TIMEOUT} must be at least {_LEAST_IDLE_S * 1000:.0f} ms, not {idle_s * 1000:.0f}")
    return Limits(
        head_bytes=block.header_size or header_bytes,
        header_count=block.header_count,
        body_bytes=block.body_size,
        held_body_bytes=block.bodies_size,
        head_timeout_s=block.header_timeout,
        body_timeout_s=block.body_timeout,
        idle_timeout_s=block.idle or idle_s,
        write_timeout_s=block.write_timeout,
        connections=block.connections,
    )
