"""What a KMS application built by hand tells of itself."""

from __future__ import annotations

import time

from ringfence_agent.kms.audit.log import AuditLog
from ringfence_agent.kms.monitoring.config import MetricsAccess
from ringfence_agent.kms.monitoring.health import HealthCheck
from ringfence_agent.kms.monitoring.metrics import MetricsTable
from ringfence_agent.kms.monitoring.pages import Monitoring, ServerFacts
from ringfence_agent.kms.store_access import StoreAccess


def plain_monitoring(store: StoreAccess, audit: AuditLog) -> Monitoring:
    """Of one worker on loopback, with simple authentication and without TLS."""
    facts = ServerFacts(
        address="localhost:9600",
        scheme="http",
        only_loopback=True,
        authentication="simple",
        revocation_bound_s=30.0,
        service_name="KMS",
        metrics_access=MetricsAccess.LOCAL,
    )
    return Monitoring(facts, MetricsTable(1).worker(0, 0), HealthCheck(store, audit, time.monotonic), audit)
