"""What is told about the server itself: health, metrics, and all that `ringfence kms status` shows.

`/health/live`, `/health/ready` and `/metrics` are answered here, before anybody is asked for a name:

- health to anybody, as yes or no, and `degraded` beside a yes when some keys cannot be opened; what is wrong, over
  the Unix socket alone;
- metrics as `metrics.access` says: to callers on this machine (`local`, the default), to every authenticated user too,
  or to anybody. They name no user and no key, but rates and outcomes are nobody else's business by default. Behind a
  proxy on this machine everybody is local.

No decision about a key is made here, so nothing is audited but what a user had to be authenticated for.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from ringfence_agent.http.request import Peer, Request
from ringfence_agent.http.response import Application, Response, ResponseHead
from ringfence_agent.kms import remote_exception
from ringfence_agent.kms.audit.log import AuditLog
from ringfence_agent.kms.audit.record import utc_text
from ringfence_agent.kms.authorization.access import AccessRules
from ringfence_agent.kms.key_cache import KeyCache
from ringfence_agent.kms.monitoring import prometheus
from ringfence_agent.kms.monitoring.config import MetricsAccess
from ringfence_agent.kms.monitoring.health import HealthCheck
from ringfence_agent.kms.monitoring.metrics import Metrics
from ringfence_agent.kms.store_keeper import StoreKeeper
from ringfence_zones import kms_wire

Gauges = dict[str, tuple[str, float]]
LIVE = b"/health/live"
READY = b"/health/ready"
METRICS = b"/metrics"
_READ = (b"GET", b"HEAD")
_DAY_S = 86_400

_METRICS_OK = ResponseHead(200, headers=[("Content-Type", prometheus.CONTENT_TYPE), ("Cache-Control", "no-store")])
_YES = ResponseHead(200, headers=remote_exception.JSON_HEADERS)
_NO = ResponseHead(503, headers=remote_exception.JSON_HEADERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What does not change while a worker serves. `certificate_not_after_s` is asked each time: it may be renewed."""

    address: str
    scheme: str
    only_loopback: bool
    authentication: str
    revocation_bound_s: float
    service_name: str
    metrics_access: MetricsAccess
    protectors: tuple[str, ...] = ("file",)
    certificate_not_after_s: Callable[[], float | None] = lambda: None


class Monitoring:
    """One worker's."""

    def __init__(
        self,
        facts: ServerFacts,
        metrics: Metrics,
        health: HealthCheck,
        audit: AuditLog,
        keeper: StoreKeeper,
        custody_gauges: Callable[[], Gauges] = dict,
    ) -> None:
        """`custody_gauges` are those of keys that Vault holds."""
        self.metrics = metrics
        self._custody_gauges = custody_gauges
        self._keeper = keeper
        self._facts = facts
        self.health = health
        self._audit = audit
        self._revision = 0
        self._count_connections: Callable[[], int] = int

    @property
    def service_name(self) -> str:
        """What Hadoop's beans call this service."""
        return self._facts.service_name

    def watch(self, application: Application) -> Application:
        """The application, with the paths of this module before it."""
        answers: dict[bytes, Application] = {LIVE: self._live, READY: self._ready, METRICS: self._metrics}

        def answer(request: Request) -> Response | Awaitable[Response]:
            own = answers.get(request.raw_path)
            if own is None:
                return application(request)
            if request.method not in _READ:
                return _refuse(405, "this path takes GET, HEAD and nothing else")
            if own == self._metrics and self._asks_for_a_name(request.peer):
                return application(request)
            return own(request)

        return answer

    def render_metrics(self, revision: int) -> Response:
        """The answer to an authenticated user, when `metrics.access` lets them read."""
        if self._facts.metrics_access is MetricsAccess.LOCAL:
            return _refuse(403, "the metrics are for callers on the KMS's own machine (metrics.access: local)")
        return Response(_METRICS_OK, prometheus.render(self.metrics.table, self._gauges(revision)))

    def serving(self, count_connections: Callable[[], int]) -> None:
        """Connections are taken from now on; this says how many are open."""
        self._count_connections = count_connections

    def tick(self, now_s: float, access: AccessRules, keys: KeyCache) -> None:
        """About once a second: what is counted elsewhere goes into the table."""
        self._revision = access.published.revision
        state = self._audit.state
        for name, value in (
            ("audit_bytes", state.written_bytes),
            ("audit_syncs", state.syncs),
            ("audit_lost", state.lost),
            ("key_cache_hits", keys.hits),
            ("key_cache_loads", keys.loads),
        ):
            self.metrics.copy(name, value)
        self.metrics.set_connections(self._count_connections())
        self.metrics.tick(now_s)

    async def describe(self, store: str, keys: int | None) -> dict[str, Any]:
        """For administrators: everything, in JSON's types. `store` holds `keys` keys, None when nobody could tell."""
        facts, table, state = self._facts, self.metrics.table, self._audit.state
        health = await self.health.check()
        not_after_s = facts.certificate_not_after_s()
        return {
            "address": f"kms://{facts.scheme}@{facts.address}/kms",
            "started": utc_text(table.created_s),
            "uptime_s": int(time.time() - table.created_s),
            "ready": health.is_ready,
            "degraded": health.is_degraded,
            "problems": list(health.problems),
            "risks": self._risks(),
            "workers": [
                {
                    "pid": process.pid,
                    "slot": process.slot,
                    "started": utc_text(process.started_ms / 1000),
                    "connections": process.connections,
                }
                for process in sorted(table.living(), key=lambda process: process.slot)
            ],
            "worker_crashes": table.total("worker_crashes"),
            "store": store,
            "keys": keys,
            "protectors": list(facts.protectors),
            "store_check": self._keeper.describe_check(),
            "backup": self._keeper.describe_backup(),
            "revocation_bound_s": facts.revocation_bound_s,
            "certificate": None
            if not_after_s is None
            else {"not_after": utc_text(not_after_s), "days_left": int((not_after_s - time.time()) // _DAY_S)},
            "audit": {
                "directory": str(state.directory),
                "format": state.format,
                "required": state.required,
                "problem": state.problem,
                "lost": table.total("audit_lost"),
                "unsynced_ms": int(state.unsynced_s * 1000),
            },
        }

    def _risks(self) -> list[str]:
        facts = self._facts
        risks = []
        if facts.scheme == "http" and not facts.only_loopback:
            risks.append("plain HTTP: data keys cross the network in clear")
        if facts.authentication == "simple":
            risks.append("simple authentication: a user name is a claim that nobody proves")
        risks += self._keeper.list_risks()
        if not self._audit.state.required:
            risks.append("audit.required is false: requests are served without a record when the log cannot be written")
        return risks

    def _live(self, _request: Request) -> Response:
        return Response(_YES, b'{"live":true}')

    async def _ready(self, request: Request) -> Response:
        health = await self.health.check()
        answer: dict[str, object] = {"ready": health.is_ready}
        if health.is_degraded:
            answer["degraded"] = True
        if request.peer.is_unix:
            answer["problems"] = list(health.problems)
        return Response(_YES if health.is_ready else _NO, kms_wire.encode(answer))

    def _metrics(self, _request: Request) -> Response:
        return Response(_METRICS_OK, prometheus.render(self.metrics.table, self._gauges(self._revision)))

    def _asks_for_a_name(self, peer: Peer) -> bool:
        return self._facts.metrics_access is not MetricsAccess.ANYONE and not _is_local(peer)

    def _gauges(self, revision: int) -> Gauges:
        gauges: Gauges = {
            "policy_revision": ("The published policy that the answering worker enforces.", revision),
            "audit_unsynced_seconds": (
                "Age of the oldest audit record of the answering worker that may not be on disk.",
                self._audit.state.unsynced_s,
            ),
        }
        gauges |= self._keeper.gauges() | self._custody_gauges()
        not_after_s = self._facts.certificate_not_after_s()
        if not_after_s is not None:
            gauges["certificate_expiry_seconds"] = ("When the TLS certificate ends, since the epoch.", not_after_s)
        return gauges


def _is_local(peer: Peer) -> bool:
    if peer.is_unix:
        return True
    try:
        return ipaddress.ip_address(peer.address or "").is_loopback
    except ValueError:
        return False


def _refuse(status: int, sentence: str) -> Response:
    kind = remote_exception.AUTHORIZATION if status == 403 else remote_exception.UNSUPPORTED
    return remote_exception.remote_exception(status, kind, sentence)
