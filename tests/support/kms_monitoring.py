"""What a KMS application built by hand tells of itself."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from memory_keystore import MemoryKeyStore

from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.kms.audit.log import AuditLog
from ringfence_agent.kms.keeping_config import DEFAULT_CHECK_S, DEFAULT_TOMBSTONE_S, KeepingSettings
from ringfence_agent.kms.monitoring.config import MetricsAccess
from ringfence_agent.kms.monitoring.health import HealthCheck
from ringfence_agent.kms.monitoring.metrics import MetricsTable
from ringfence_agent.kms.monitoring.pages import Monitoring, ServerFacts
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_agent.kms.store_keeper import StoreKeeper
from ringfence_agent.kms.store_record import StoreRecord


def idle_keeper(store: OpenStore | None = None) -> StoreKeeper:
    """Keeps nothing: it is never run."""
    settings = KeepingSettings(
        backup=None, check_s=DEFAULT_CHECK_S, tombstone_s=DEFAULT_TOMBSTONE_S, mark_directory=Path("/nonexistent")
    )
    return StoreKeeper(store or MemoryKeyStore(), StoreRecord(), settings, None, ThreadPoolExecutor(1))


def plain_facts() -> ServerFacts:
    """Of a server on loopback, with simple authentication and without TLS."""
    return ServerFacts(
        address="localhost:9600",
        scheme="http",
        only_loopback=True,
        authentication="simple",
        revocation_bound_s=30.0,
        service_name="KMS",
        metrics_access=MetricsAccess.LOCAL,
    )


def plain_monitoring(store: StoreAccess, audit: AuditLog, keeper: StoreKeeper | None = None) -> Monitoring:
    """Of one worker on loopback, with simple authentication and without TLS."""
    health = HealthCheck(store, audit, time.monotonic)
    return Monitoring(plain_facts(), MetricsTable(1).worker(0, 0), health, audit, keeper or idle_keeper())
