"""Rate-limit quotas: so many requests per interval, path and client address, else 429."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from vault_double.backend import Call
from vault_double.clock import Clock
from vault_double.storage import View
from vault_double.wire import RefusedError

_EXEMPT = ("sys/generate-root/", "sys/health", "sys/seal-status", "sys/unseal")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One quota; an empty path means every path."""

    name: str
    path: str
    rate: float
    interval_s: float
    block_interval_s: float


@dataclass(slots=True)
class _Window:
    began: float
    used: int = 0
    blocked_until: float = 0.0


class QuotaGate:
    """Counts, and refuses what is too much."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows: dict[tuple[str, str], _Window] = {}

    def check(self, view: View, path: str, peer: str) -> None:
        """Raises RefusedError(429) when the most specific quota for `path` is used up."""
        quota = _find_quota(view, path)
        if quota is None or path.startswith(_EXEMPT):
            return
        now = self._clock.now()
        window = self._windows.setdefault((quota.name, peer), _Window(now))
        if now >= window.began + quota.interval_s:
            elapsed = math.floor((now - window.began) / quota.interval_s)
            window.began, window.used = window.began + elapsed * quota.interval_s, 0
        allowed = math.ceil(quota.rate)
        if now >= window.blocked_until and window.used < allowed:
            window.used += 1
            return
        if quota.block_interval_s and now >= window.blocked_until:
            window.blocked_until = now + quota.block_interval_s
        message = f'request path "{path}": rate limit quota exceeded'
        raise RefusedError(429, message, headers=self._headers(view, quota, window, now))

    def forget(self, name: str) -> None:
        """A quota that is written anew starts counting anew."""
        for key in [key for key in self._windows if key[0] == name]:
            del self._windows[key]

    def _headers(self, view: View, quota: RateLimit, window: _Window, now: float) -> dict[str, str]:
        if not (view.get("quota-config") or {}).get("enable_rate_limit_response_headers"):
            return {}
        if window.blocked_until > now:
            return {"Retry-After": str(int(window.blocked_until - now))}
        until_s = window.began + quota.interval_s - now
        return {
            # Whole seconds, rounded down: 0 for most.
            "Retry-After": str(int(until_s)),
            "X-Ratelimit-Limit": str(math.ceil(quota.rate)),
            "X-Ratelimit-Remaining": "0",
            "X-Ratelimit-Reset": str(int(until_s)),
        }


def _find_quota(view: View, path: str) -> RateLimit | None:
    quotas = [view.get(f"quota/{name}") for name in view.names("quota/")]
    fitting = [quota for quota in quotas if path.startswith(quota.path)]
    return max(fitting, key=lambda quota: len(quota.path), default=None)


def write_quota(call: Call) -> None:
    if not call.number("rate") > 0 and not float(call.data.get("rate") or 0) > 0:
        raise RefusedError(400, "'rate' is invalid")
    path = call.text("path")
    if path and not call.core.is_mounted(call.view, path):
        raise RefusedError(400, f'invalid mount path "{path}"')
    quota = RateLimit(
        call.name,
        path,
        float(call.data["rate"]),
        call.seconds("interval", 1.0) or 1.0,
        call.seconds("block_interval"),
    )
    call.view.put(f"quota/{call.name}", quota)
    call.core.quotas.forget(call.name)


def read_quota(call: Call) -> dict[str, Any] | None:
    quota: RateLimit | None = call.view.get(f"quota/{call.name}")
    if quota is None:
        return None
    return {
        "block_interval": int(quota.block_interval_s),
        "inheritable": not quota.path,
        "interval": int(quota.interval_s),
        "name": quota.name,
        "path": quota.path,
        "rate": quota.rate,
        "role": "",
        "type": "rate-limit",
    }


def delete_quota(call: Call) -> None:
    call.view.delete(f"quota/{call.name}")
    call.core.quotas.forget(call.name)


def list_quotas(call: Call) -> dict[str, Any] | None:
    names = call.view.names("quota/")
    return {"keys": names} if names else None


def write_quota_config(call: Call) -> None:
    known = call.view.get("quota-config") or {}
    name = "enable_rate_limit_response_headers"
    call.view.put("quota-config", known | {name: call.flag(name, default=bool(known.get(name)))})


def read_quota_config(call: Call) -> dict[str, Any]:
    config = call.view.get("quota-config") or {}
    return {
        "absolute_rate_limit_exempt_paths": [],
        "enable_rate_limit_audit_logging": False,
        "enable_rate_limit_response_headers": bool(config.get("enable_rate_limit_response_headers")),
        "rate_limit_exempt_paths": [],
    }
