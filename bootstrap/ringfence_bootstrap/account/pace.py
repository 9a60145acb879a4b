"""No more requests in a time than AWS lets an account make, so that nobody else of the account is throttled.

EMR refills its operations slowly: of most of them half a request in a second comes back after a burst of five. All
callers of the account and region share that: an audit which ran into it would stop other people's launches. So each
operation has a bucket of its own here, and a little less than AWS gives is taken out of it.

Source of the rates: the EMR endpoints and quotas page of AWS's general reference, where they are adjustable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` requests at once, then `per_s` in a second."""

    burst: float
    per_s: float


# One of the five is left to whoever works in the account at the same time.
_SLOW = Rate(4, 0.5)
EMR_RATES: Mapping[str, Rate] = {
    "create_security_configuration": _SLOW,
    "describe_security_configuration": _SLOW,
    "list_security_configurations": _SLOW,
    "delete_security_configuration": _SLOW,
    "list_clusters": _SLOW,
    "describe_cluster": Rate(8, 1.0),
}


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Pace:
    """Waits before a request until it may be made. Not for several threads."""

    def __init__(
        self,
        rates: Mapping[str, Rate] = EMR_RATES,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rates = rates
        self._clock = clock
        self._sleep = sleep
        self._buckets: dict[str, _Bucket] = {}

    def wait(self, operation: str) -> None:
        """Returns when `operation` may be asked for; at once for one without a rate."""
        rate = self._rates.get(operation)
        if rate is None:
            return
        bucket = self._buckets.setdefault(operation, _Bucket(rate.burst, self._clock()))
        self._refill(bucket, rate)
        if bucket.left < 1:
            self._sleep((1 - bucket.left) / rate.per_s)
            self._refill(bucket, rate)
        bucket.left = max(0.0, bucket.left - 1)

    def _refill(self, bucket: _Bucket, rate: Rate) -> None:
        now = self._clock()
        bucket.left = min(rate.burst, bucket.left + (now - bucket.at) * rate.per_s)
        bucket.at = now
